import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from midpg_np.data import Encoder, Schema, UnknownCategoryWarning

SCHEMA = Schema("y", "s", aware=("s",), agnostic=("item", "price"), numeric=("price",), n_bins=4)


def columns(**changes):
    table = {
        "y": np.array([0, 1, 0, 1, 0, 0, 1, 0]),
        "s": np.array(list("aabbccaa")),
        "item": np.array([5, 7, 5, 9, 9, 7, 5, 5]),
        "price": np.arange(1.0, 9.0),
    }
    return table | changes


def test_codes_by_hand():
    encoder = Encoder(SCHEMA).fit(columns())
    data = encoder.transform(columns())
    assert encoder.vocab_sizes == (4, 4, 5)
    assert encoder.scenario_names == ("a", "b", "c")
    assert encoder.n_scenarios == 3
    assert data.codes[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 1, 1]
    assert data.codes[:, 1].tolist() == [1, 2, 1, 3, 3, 2, 1, 1]
    # Quartiles of 1..8 are 2, 4 and 6; bins are closed on the right.
    assert data.codes[:, 2].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert data.scenario.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert data.label.tolist() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert data.codes.flags.c_contiguous and data.codes.dtype == np.int64
    assert data.field_names == ("s", "item", "price") and data.n_aware == 1


def test_bins_of_numbers_never_seen():
    encoder = Encoder(SCHEMA).fit(columns())
    price = np.array([-100.0, 2.0, 2.5, 4.0, 6.0, 6.5, 1e9, np.nan])
    codes = encoder.transform(columns(price=price), warn=False).codes[:, 2]
    assert codes.tolist() == [1, 1, 2, 2, 3, 4, 4, 0]


@pytest.mark.parametrize(
    ("price", "edges"),
    [
        ([0, 0, 0, 0, 0, 0, 3, 9], [0.0]),  # a heap of zeros has a bin of its own
        ([5, 5, 5, 5, 5, 5, 5, 5], []),
        ([np.nan, 1, 2, 3, 4, np.nan, np.nan, np.nan], [1.0, 2.0, 3.0]),
        ([np.nan] * 8, []),
    ],
)
def test_bin_edges(price, edges):
    encoder = Encoder(SCHEMA).fit(columns(price=np.array(price, dtype=float)))
    _, arrays = encoder.state()
    assert arrays["vocabulary/price/edges"].tolist() == edges
    assert encoder.vocab_sizes[2] == len(edges) + 2


FORMS = {
    "integer": np.array([5, 7, 5, 9, 9, 7, 5, 5]),
    "int32": np.array([5, 7, 5, 9, 9, 7, 5, 5], dtype=np.int32),
    "float": np.array([5.0, 7, 5, 9, 9, 7, 5, 5]),
    "text": np.array(list("57599755")),
    "float text": np.array(["5.0", "7.0", "5.0", "9.0", "9.0", "7.0", "5.0", "5.0"]),
    "objects": np.array([5, 7.0, "5", "9.0", 9, np.float64(7), np.int8(5), "5"], dtype=object),
    "list": [5, 7.0, "5", "9.0", 9, 7, 5, 5],
    "polars": pl.Series([5, 7, 5, 9, 9, 7, 5, 5]).to_numpy(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fitted_on", FORMS)
def test_seven_is_seven_however_it_was_read(fitted_on, form):
    encoder = Encoder(SCHEMA).fit(columns(item=FORMS[fitted_on]))
    codes = encoder.transform(columns(item=FORMS[form])).codes[:, 1]
    assert codes.tolist() == [1, 2, 1, 3, 3, 2, 1, 1]


def test_vocabulary_of_text_and_numbers_matches_numbers():
    encoder = Encoder(SCHEMA).fit(columns(item=np.array(["5", "x", "7", "9", "5", "5", "7", "9"])))
    with pytest.warns(UnknownCategoryWarning, match="item 1"):
        codes = encoder.transform(columns(item=np.array([5.0, 7, 9, 11, 5, 5, 7, 9]))).codes[:, 1]
    assert codes.tolist() == [1, 2, 3, 0, 1, 1, 2, 3]


def test_a_column_of_missing_values_becomes_floats_in_one_file():
    encoder = Encoder(SCHEMA).fit(columns(item=np.array([5, 7, np.nan, 9, 9, 7, 5, 5])))
    data = encoder.transform(columns(item=FORMS["integer"]))
    assert data.codes[:, 1].tolist() == [1, 2, 1, 3, 3, 2, 1, 1]


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
def test_frames(frame):
    table = columns(item=np.array([5, 7, 5, 9, 9, 7, 5, 5]))
    encoder = Encoder(SCHEMA).fit(frame(table))
    np.testing.assert_array_equal(
        encoder.transform(frame(table)).codes,
        Encoder(SCHEMA).fit(table).transform(table).codes,
    )


def test_unknown_categories_get_code_0_and_are_counted_once():
    encoder = Encoder(SCHEMA).fit(columns())
    rows = columns(item=np.array([5, 1, 2, 9, 9, 7, 5, 5]), price=np.full(8, np.nan))
    with pytest.warns(UnknownCategoryWarning) as caught:
        data = encoder.transform(rows)
    assert [str(warning.message) for warning in caught] == [
        "categories that no training row had get code 0 (8 rows; unknown: item 2, price 8)."
    ]
    assert caught[0].filename == __file__
    assert data.unknown_counts == {"item": 2, "price": 8}
    assert data.codes[:, 1].tolist() == [1, 0, 0, 3, 3, 2, 1, 1]


def test_missing_values_that_training_rows_had_too_are_nothing_unusual():
    item = np.array([5, 7, np.nan, 9, 9, 7, 5, 5])
    encoder = Encoder(SCHEMA).fit(columns(item=item))
    data = encoder.transform(columns(item=item))
    assert data.codes[2, 1] == 0
    assert data.unknown_counts == {}


def test_shared_scenario():
    encoder = Encoder(SCHEMA).fit(columns())
    rows = columns(s=np.array(["a", "z", None, "b", "c", "c", "a", "a"], dtype=object))
    data = encoder.transform(rows, unknown_scenario="shared", warn=False)
    assert data.scenario.tolist() == [0, -1, -1, 1, 2, 2, 0, 0]
    assert data.codes[:, 0].tolist() == [1, 0, 0, 2, 3, 3, 1, 1]


def test_prediction_without_labels():
    encoder = Encoder(SCHEMA).fit(columns())
    rows = columns()
    del rows["y"]
    assert encoder.transform(rows, require_label=False).label is None
    empty = columns(y=np.full(8, np.nan))
    assert encoder.transform(empty, require_label=False).label is None
    assert encoder.transform(columns(), require_label=False).label.sum() == 3
    one = {name: values[:1] for name, values in rows.items()}
    assert len(encoder.transform(one, require_label=False)) == 1


@pytest.mark.parametrize(
    "label",
    [
        [False, True, False, True, False, False, True, False],
        [0.0, 1, 0, 1, 0, 0, 1, 0],
        list("01010010"),
        ["FALSE", "TRUE", "False", "True", "false", "0", "1", "0.0"],
    ],
)
def test_labels_in_other_forms(label):
    data = Encoder(SCHEMA).fit(columns(y=label)).transform(columns(y=label))
    assert data.label.tolist() == [0, 1, 0, 1, 0, 0, 1, 0]


def test_only_training_rows_are_learned_from():
    train = columns()
    rest = columns(item=np.arange(100, 108), price=np.linspace(-1e6, 1e6, 8))
    encoder = Encoder(SCHEMA).fit(train)
    before = encoder.state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownCategoryWarning)
        encoder.transform(rest)
    assert encoder.state()[0] == before[0]
    _, arrays = encoder.state()
    assert arrays["vocabulary/item/values"].tolist() == [5, 7, 9]
    assert arrays["vocabulary/price/edges"].tolist() == [2, 4, 6]


def test_state_survives_json_and_keeps_strange_text():
    strange = ["", "\n", "a\r\nb", "ü€𝄞", "x\0y", "nan", "None", " "]
    schema = Schema("y", "s", aware=("s",), agnostic=("item",))
    table = columns(item=np.array(strange, dtype=object), s=np.array(strange[::-1], dtype=object))
    encoder = Encoder(schema).fit(table)
    meta, arrays = encoder.state()
    copy = Encoder.from_state(json.loads(json.dumps(meta)), arrays)
    assert copy.scenario_names == encoder.scenario_names == tuple(sorted(strange))
    assert copy.vocab_sizes == encoder.vocab_sizes == (9, 9)
    np.testing.assert_array_equal(copy.transform(table).codes, encoder.transform(table).codes)
    assert {array.dtype.kind for array in arrays.values()} <= set("iuf")


def test_foreign_state_is_refused():
    meta, arrays = Encoder(SCHEMA).fit(columns()).state()
    with pytest.raises(ValueError, match="has format 2; expected 1"):
        Encoder.from_state(meta | {"format": 2}, arrays)
    del arrays["vocabulary/item/values"]
    with pytest.raises(ValueError, match="lacks 'vocabulary/item/values'"):
        Encoder.from_state(meta, arrays)


def test_inputs_are_left_alone():
    table = columns()
    for values in table.values():
        values.flags.writeable = False
    Encoder(SCHEMA).fit(table).transform(table)


def test_state_fits_into_safetensors():
    from safetensors.numpy import load, save

    table = columns(item=np.array([None] * 8, dtype=object), s=np.array(list("äbäbäbäb")))
    encoder = Encoder(SCHEMA).fit(table)
    meta, arrays = encoder.state()
    copy = Encoder.from_state(meta, load(save(arrays)))
    np.testing.assert_array_equal(copy.transform(table).codes, encoder.transform(table).codes)
    assert copy.scenario_names == ("b", "ä")
