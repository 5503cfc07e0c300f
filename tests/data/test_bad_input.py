"""The rows of the design's table of bad input that concern data."""

import numpy as np
import polars as pl
import pytest

from midpg_np.data import Encoder, Schema

SCHEMA = Schema("y", "s", aware=("s",), agnostic=("price",), numeric=("price",))


def columns(**changes):
    table = {
        "y": np.array([0, 1, 0, 1]),
        "s": np.array(list("aabb")),
        "price": np.array([1.0, 2.0, 3.0, 4.0]),
    }
    return table | changes


def objects(*values):
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"y": np.zeros(2), "s": np.zeros(2), "prise": np.zeros(2)},
            "the data has no column 'price'; its columns are y, s, prise. Did you mean 'prise'?",
        ),
        (
            {"price": np.zeros(2)},
            "the data has no columns 's', 'y'; its columns are price.",
        ),
        (
            columns(y=np.array([0, 1, 2, 3])),
            "label column 'y' must hold 0 or 1; got 2 at row 2.",
        ),
        (
            columns(y=objects("0", "yes", None, "1")),
            "label column 'y' must hold 0 or 1; got 'yes' at row 1.",
        ),
        (
            columns(y=np.array([0, 1, 1, np.nan])),
            "label column 'y' must hold 0 or 1; got no value at row 3.",
        ),
        (
            columns(y=np.array([0, 1, 0.5, np.nan])),
            "label column 'y' must hold 0 or 1; got 0.5 at row 2.",
        ),
        (
            columns(y=np.zeros(4)),
            "label column 'y' is 0 in all 4 training rows; rows of both classes, 0 and 1, "
            "are needed.",
        ),
        (
            columns(price=objects(1.0, "cheap", 3.0, 4.0)),
            "numeric column 'price' must hold finite numbers; got 'cheap' at row 1. "
            "Correct the value, or take the column out of numeric.",
        ),
        (
            columns(price=np.array([1, 2, 3, -np.inf])),
            "numeric column 'price' must hold finite numbers; got -inf at row 3. "
            "Correct the value, or take the column out of numeric.",
        ),
        (
            columns(price=objects("1", "2", "1_0", "inf")),
            "numeric column 'price' must hold finite numbers; got '1_0' at row 2. "
            "Correct the value, or take the column out of numeric.",
        ),
        (
            columns(price=objects(1, 2, "1e999", 10**400)),
            "numeric column 'price' must hold finite numbers; got '1e999' at row 2. "
            "Correct the value, or take the column out of numeric.",
        ),
        (
            columns(s=objects("a", None, "b", "b")),
            "scenario column 's' has no value at row 1 of the training data; every row needs a "
            "scenario.",
        ),
        (
            {name: values[:0] for name, values in columns().items()},
            "the training data has no rows; at least two are needed.",
        ),
        (
            {name: values[:1] for name, values in columns().items()},
            "the training data has 1 row; at least two are needed.",
        ),
        (
            columns(price=np.zeros(3)),
            "all columns must have the same length; 's' has 4 rows and 'price' has 3.",
        ),
        (
            columns(price=np.zeros((4, 2))),
            "column 'price' must have one dimension; got shape (4, 2).",
        ),
    ],
)
def test_fit_refuses(table, message):
    with pytest.raises(ValueError) as caught:
        Encoder(SCHEMA).fit(table)
    assert str(caught.value) == message


def test_numbers_as_text_are_numbers_and_missing_ones_missing():
    table = columns(price=objects("1.5", "", None, "2e3"))
    codes = Encoder(SCHEMA).fit(table).transform(table).codes[:, 1]
    assert codes.tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize(
    ("value", "got"), [("z", "holds 'z'"), (None, "has no value"), (7, "holds 7")]
)
def test_transform_refuses_a_scenario_never_seen(value, got):
    encoder = Encoder(SCHEMA).fit(columns())
    with pytest.raises(ValueError) as caught:
        encoder.transform(columns(s=objects("a", "b", value, "a")))
    assert str(caught.value) == (
        f"scenario column 's' {got} at row 2, which no training row had; the scenarios are a, b. "
        "unknown_scenario='shared' predicts such rows with models that do not route by scenario."
    )


def test_transform_refuses():
    encoder = Encoder(SCHEMA).fit(columns())
    with pytest.raises(ValueError, match="the data has no rows; there is nothing to encode"):
        encoder.transform({name: values[:0] for name, values in columns().items()})
    with pytest.raises(ValueError, match="unknown_scenario must be 'error' or 'shared'; got 'no'"):
        encoder.transform(columns(), unknown_scenario="no")
    with pytest.raises(ValueError, match="the data has no column 'y'"):
        encoder.transform({name: columns()[name] for name in ("s", "price")})
    with pytest.raises(ValueError, match="not fitted; call fit"):
        Encoder(SCHEMA).transform(columns())


def test_things_that_are_no_tables():
    with pytest.raises(TypeError, match=r"got builtins.list"):
        Encoder(SCHEMA).fit([[1, 2]])
    with pytest.raises(TypeError, match=r"LazyFrame. Call collect\(\) first"):
        Encoder(SCHEMA).fit(pl.LazyFrame(columns()))
