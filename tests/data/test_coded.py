"""Columns of polars frames, kept as distinct values, against the same columns as plain arrays."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midpg_np.data import Encoder, Schema
from midpg_np.data.categories import factorise
from midpg_np.data.coded import CodedColumn, coded
from midpg_np.data.frames import coded_columns, columns_of
from midpg_np.data.vocabulary import parse_numbers

TEXTS = [
    *("7", "7.0", "007", "-3", "-0", "0", "0.0", "+7", "10", "2"),
    *("9223372036854775807", "9223372036854775808", "9999999999999999999", "99999999999999999999"),
    *("TRUE", "true", "True", "false", "", " ", "x", "é", "𝄞", "a\0b", "Z", "1.5", None),
]
text_columns = st.one_of(
    st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12),
    st.lists(st.sampled_from(["7", "7.0", "10", "2", "-3", None]), min_size=1, max_size=12),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=12),
)
integer_columns = st.lists(
    st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)), min_size=1
)


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def assert_same_factors(got, want):
    assert got.distinct.dtype == want.distinct.dtype
    assert got.distinct.tolist() == want.distinct.tolist()
    np.testing.assert_array_equal(got.inverse, want.inverse)


@given(text_columns, st.randoms(use_true_random=False))
def test_texts_have_the_factors_of_an_array(values, random):
    column, array = coded(pl.Series("x", values, dtype=pl.String)), objects(values)
    assert column.tolist() == values and len(column) == len(values)
    # Sorting integers among texts as texts, or as numbers where no text is left, is the trap.
    for _ in range(4):
        rows = np.array([i for i in range(len(values)) if random.random() < 0.5], dtype=np.int64)
        assert_same_factors(factorise(column[rows], "x"), factorise(array[rows], "x"))
    assert_same_factors(factorise(column, "x"), factorise(array, "x"))


@given(integer_columns)
def test_integers_with_gaps_have_the_factors_of_an_array(values):
    column, array = coded(pl.Series("x", values, dtype=pl.Int64)), objects(values)
    assert column.tolist() == values
    assert_same_factors(factorise(column, "x"), factorise(array, "x"))
    half = slice(0, len(values), 2)
    assert_same_factors(factorise(column[half], "x"), factorise(array[half], "x"))
    np.testing.assert_array_equal(parse_numbers(column, "x"), parse_numbers(array, "x"))


def test_numbers_written_as_text():
    values = ["1.5", "", None, "7", "1e3", "-0.0", "7"]
    column = coded(pl.Series("x", values))
    np.testing.assert_array_equal(parse_numbers(column, "x"), parse_numbers(objects(values), "x"))
    broken = coded(pl.Series("x", ["1", "1_0", "2", "cheap"]))
    assert parse_numbers(broken[::2], "x").tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"got '1_0' at row 1\. Correct the value"):
        parse_numbers(broken, "x")


def test_which_columns_are_coded():
    frame = pl.DataFrame(
        {
            "text": ["a", None],
            "gaps": pl.Series([1, None], dtype=pl.UInt16),
            "whole": [1, 2],
            "float": [0.5, None],
            "truth": [True, None],
            "long": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
        }
    )
    columns = coded_columns(frame, frame.columns)
    assert [isinstance(column, CodedColumn) for column in columns.values()] == [True, True] + [
        False
    ] * 4
    for name, plain in columns_of(frame, frame.columns).items():
        assert_same_factors(factorise(columns[name], name), factorise(plain, name))
    again = coded_columns(columns, ["gaps", "text"])
    assert again["text"] is columns["text"] and list(again) == ["gaps", "text"]
    with pytest.raises(ValueError, match="'text' has 2 rows and 'x' has 3"):
        coded_columns({**columns, "x": np.zeros(3)}, ["text", "x"])


@given(text_columns, text_columns, st.integers(0, 2**32 - 1))
def test_an_encoder_learns_and_encodes_the_same(fields, prices, seed):
    rng = np.random.default_rng(seed)
    n_rows = 12
    numbers = [None if price is None else str(len(price) / 4) for price in prices]
    columns = {
        "item": [fields[i] for i in rng.integers(0, len(fields), n_rows)],
        "price": [numbers[i] for i in rng.integers(0, len(numbers), n_rows)],
        "shop": [("a", "b", "7")[i] for i in rng.integers(0, 3, n_rows)],
        "bought": ["0", "1"] * (n_rows // 2),
    }
    schema = Schema("bought", "shop", ("shop",), ("item", "price"), ("price",), n_bins=3)
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    arrays = {name: objects(values) for name, values in columns.items()}
    half = slice(0, n_rows // 2)
    by_frame = Encoder(schema).fit(frame[half])
    by_array = Encoder(schema).fit({name: values[half] for name, values in arrays.items()})
    (meta, parts), (want_meta, want_parts) = by_frame.state(), by_array.state()
    assert meta == want_meta and parts.keys() == want_parts.keys()
    assert all(parts[name].tobytes() == want_parts[name].tobytes() for name in parts)
    options = {"unknown_scenario": "shared", "warn": False}
    got, want = by_frame.transform(frame, **options), by_array.transform(arrays, **options)
    for name in ("codes", "scenario", "label"):
        assert getattr(got, name).tobytes() == getattr(want, name).tobytes()
    assert got.unknown_counts == want.unknown_counts
