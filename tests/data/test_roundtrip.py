"""Encoding is the same whatever form the columns arrive in, and survives saving."""

import json

import numpy as np
import pandas as pd
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from midpg_np.data import Encoder, Schema

SCHEMA = Schema("y", "s", aware=("s", "a"), agnostic=("b", "x"), numeric=("x",), n_bins=5)

# Hypothesis chooses what may occur in a column; the seed fills the column from it.
alphabets = st.lists(st.text(max_size=5), min_size=1, max_size=6, unique=True)
integers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6, unique=True)


def draw_table(seed, n_rows, texts, numbers, missing):
    rng = np.random.default_rng(seed)
    some_missing = rng.random(n_rows) < missing
    texts = np.array(texts, dtype=object)[rng.integers(len(texts), size=n_rows)]
    texts[some_missing] = None
    label = rng.permutation(np.arange(n_rows) % 2)
    return {
        "y": label,
        "s": np.array(["u", "v", "w"])[rng.integers(3, size=n_rows)],
        "a": texts,
        "b": np.array(numbers, dtype=np.int64)[rng.integers(len(numbers), size=n_rows)],
        "x": np.where(rng.random(n_rows) < missing, np.nan, rng.normal(size=n_rows)),
    }


tables = st.builds(
    draw_table,
    seed=st.integers(0, 2**32),
    n_rows=st.integers(2, 30),
    texts=alphabets,
    numbers=integers,
    missing=st.sampled_from([0.0, 0.3, 1.0]),
)


@given(tables)
def test_saved_encoder_encodes_alike(table):
    encoder = Encoder(SCHEMA).fit(table)
    meta, arrays = encoder.state()
    copy = Encoder.from_state(json.loads(json.dumps(meta)), arrays)
    again, before = copy.transform(table), encoder.transform(table)
    np.testing.assert_array_equal(again.codes, before.codes)
    assert again.scenario_names == before.scenario_names
    assert copy.state()[0] == meta
    for name, array in copy.state()[1].items():
        np.testing.assert_array_equal(array, arrays[name])


@given(tables)
def test_frames_and_text_encode_like_arrays(table):
    encoder = Encoder(SCHEMA).fit(table)
    codes = encoder.transform(table).codes
    as_text = table | {"b": table["b"].astype(str), "y": table["y"].astype(str)}
    for form in (pl.DataFrame(table), pd.DataFrame(table), as_text):
        np.testing.assert_array_equal(encoder.transform(form).codes, codes)
        np.testing.assert_array_equal(Encoder(SCHEMA).fit(form).transform(form).codes, codes)


@given(tables)
def test_codes_name_categories_exactly(table):
    data = Encoder(SCHEMA).fit(table).transform(table)
    # Two rows share a code if and only if they share the value (missing is a value here).
    for f, name in ((0, "s"), (2, "b")):
        same_code = data.codes[:, f][:, None] == data.codes[:, f]
        np.testing.assert_array_equal(same_code, table[name][:, None] == table[name])
    assert (data.codes[:, 1] == 0).tolist() == [value is None for value in table["a"]]
    assert (data.codes.max(axis=0) < data.vocab_sizes).all()


@given(tables)
def test_bins_keep_the_order_of_numbers(table):
    data = Encoder(SCHEMA).fit(table).transform(table)
    codes = data.codes[:, 3]
    np.testing.assert_array_equal(codes == 0, np.isnan(table["x"]))
    known = codes > 0
    assert (np.diff(codes[known][np.argsort(table["x"][known])]) >= 0).all()
    if known.any():
        assert data.vocab_sizes[3] <= SCHEMA.n_bins + 1
        # Every bin holds a training row.
        assert set(codes[known].tolist()) == set(range(1, data.vocab_sizes[3]))
