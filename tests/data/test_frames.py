import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from midpg_np.data.frames import column_names, columns_of

LONG = 9148482949976129397  # needs more digits than a float has


def test_polars_columns():
    frame = pl.DataFrame(
        {
            "id": [LONG, None],
            "number": [1.5, None],
            "text": ["a", None],
            "flag": [True, None],
            "day": [datetime.date(2020, 1, 2), None],
            "whole": [1, 2],
        }
    ).with_columns(kind=pl.Series(["k", None], dtype=pl.Categorical))
    arrays = columns_of(frame, frame.columns)
    assert arrays["id"].tolist() == [LONG, None]
    assert arrays["number"].dtype == np.float64 and np.isnan(arrays["number"][1])
    assert arrays["text"].tolist() == ["a", None]
    assert arrays["flag"].tolist() == [True, None]
    assert arrays["day"].tolist() == [datetime.date(2020, 1, 2), None]
    assert arrays["kind"].tolist() == ["k", None]
    assert arrays["whole"].dtype == np.int64


def test_pandas_columns():
    frame = pd.DataFrame(
        {
            "id": pd.array([LONG, None], dtype="Int64"),
            "number": [1.5, None],
            "text": ["a", None],
            "flag": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["k", None]),
            "whole": pd.array([1, 2], dtype="Int64"),
        }
    )
    arrays = columns_of(frame, list(frame.columns))
    assert arrays["id"].tolist() == [LONG, None]
    assert np.isnan(arrays["number"][1])
    assert arrays["text"].tolist() == ["a", None]
    assert arrays["flag"].tolist() == [True, None]
    assert arrays["kind"].tolist() == ["k", None]
    assert arrays["whole"].tolist() == [1, 2]


def test_mapping_of_lists_and_masked_arrays():
    masked = np.ma.array([1, 2], mask=[False, True])
    arrays = columns_of({"a": [1, "x"], "b": masked, "c": [1, 2]}, ["a", "b", "c"])
    assert arrays["a"].tolist() == [1, "x"]
    assert arrays["b"].tolist() == [1, None]
    assert arrays["c"].dtype == np.int64


@pytest.mark.parametrize(
    "series", [pl.Series([LONG, None]), pd.Series([LONG, None], dtype="Int64")]
)
def test_series_in_a_mapping_stay_exact(series):
    assert columns_of({"id": series}, ["id"])["id"].tolist() == [LONG, None]


def test_integers_longer_than_numpy_has():
    frame = pl.DataFrame({"id": pl.Series([2**70], dtype=pl.Int128)})
    assert columns_of(frame, ["id"])["id"].tolist() == [2**70]


def test_a_column_twice():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="column 'a' occurs 2 times"):
        columns_of(frame, ["a"])


def test_names():
    assert column_names(pl.DataFrame({"a": [1], "b": [2]})) == ("a", "b")
    with pytest.raises(TypeError, match="must be a mapping of names to arrays"):
        column_names(np.zeros(3))
