"""Categories of too few training rows share code 0."""

import json
import warnings
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from midpg_np.commands.sources import load_splits
from midpg_np.data import (
    Encoder,
    Schema,
    UnknownCategoryWarning,
    encode_splits,
    load_dataset,
    load_table,
    read_table,
)

SCHEMA = Schema("y", "s", aware=("s",), agnostic=("item", "shop", "x"), numeric=("x",))


def columns(**changes):
    table = {
        "y": np.array([0, 1, 0, 1, 0, 1]),
        "s": np.array(list("aaaaab")),
        "item": np.array([5, 7, 5, 9, 7, 5]),
        "shop": np.array(["x", "x", "x", "y", "z", None], dtype=object),
        "x": np.arange(6.0),
    }
    return table | changes


def test_rare_categories_get_code_0_by_hand():
    encoder = Encoder(replace(SCHEMA, min_count=2)).fit(columns())
    codes = encoder.transform(columns()).codes
    assert codes[:, 1].tolist() == [1, 2, 1, 0, 2, 1]
    assert codes[:, 2].tolist() == [1, 1, 1, 0, 0, 0]
    assert encoder.vocab_sizes == (3, 3, 2, 7)
    assert encoder.rare_counts == {"item": (1, 3), "shop": (2, 3)}
    three = Encoder(SCHEMA, min_count=3).fit(columns())
    assert three.transform(columns()).codes[:, 1].tolist() == [1, 0, 1, 0, 0, 1]
    assert three.schema.min_count == 3


def test_one_row_is_enough_by_default():
    encoder = Encoder(SCHEMA).fit(columns())
    assert encoder.vocab_sizes == (3, 4, 4, 7) and encoder.rare_counts == {}


def test_a_number_spares_the_field_of_the_scenario_and_numbers():
    data = Encoder(SCHEMA, min_count=6).fit(columns()).transform(columns())
    assert data.vocab_sizes == (3, 1, 1, 7)
    assert data.codes[:, 0].tolist() == [1, 1, 1, 1, 1, 2]
    assert data.scenario.tolist() == [0, 0, 0, 0, 0, 1]
    assert not data.codes[:, 1:3].any()


def test_fields_by_name():
    encoder = Encoder(replace(SCHEMA, min_count={"item": 3, "s": 2})).fit(columns())
    data = encoder.transform(columns())
    assert data.vocab_sizes == (2, 2, 4, 7)
    assert data.codes[:, 0].tolist() == [1, 1, 1, 1, 1, 0]
    assert data.n_scenarios == 2 and data.scenario.tolist() == [0, 0, 0, 0, 0, 1]


def test_code_0_was_trained_and_new_categories_are_no_surprise():
    encoder = Encoder(SCHEMA, min_count={"item": 2}).fit(columns())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoder.transform(columns()).unknown_counts == {}
        later = encoder.transform(columns(item=np.array([9, 100, 5, 5, 5, 5])))
    assert later.codes[:, 1].tolist() == [0, 0, 1, 1, 1, 1]
    assert later.unknown_counts == {}
    with pytest.warns(UnknownCategoryWarning, match="unknown: shop 6"):
        encoder.transform(columns(shop=np.array(["new"] * 6)))


@pytest.mark.parametrize("form", [dict, pl.DataFrame])
def test_every_kind_of_table_counts_alike(form):
    codes = Encoder(SCHEMA, min_count=2).fit(form(columns())).transform(columns()).codes
    want = Encoder(SCHEMA, min_count=2).fit(columns()).transform(columns()).codes
    assert np.array_equal(codes, want)


def test_only_training_rows_count_and_a_note_says_what_was_cut():
    tables = {
        "train": columns(),
        "valid": columns(item=np.full(6, 9)),
        "test": columns(item=np.full(6, 9)),
    }
    data = encode_splits(replace(SCHEMA, min_count=2), tables, name="mine")
    assert not data.valid.codes[:, 1].any() and not data.test.codes[:, 1].any()
    assert data.notes == ("Categories too rare for a code of their own: item 1 of 3, shop 2 of 3.",)


def test_it_is_saved_with_the_encoder():
    encoder = Encoder(SCHEMA, min_count={"item": 2, "shop": 3}).fit(columns())
    meta, arrays = encoder.state()
    restored = Encoder.from_state(json.loads(json.dumps(meta)), arrays)
    assert restored.schema == encoder.schema
    assert restored.rare_counts == encoder.rare_counts
    table = columns(item=np.array([9, 5, 7, 100, 5, 5]))
    first, second = (e.transform(table) for e in (encoder, restored))
    assert np.array_equal(first.codes, second.codes)
    assert first.unknown_counts == second.unknown_counts == {}


def test_encoders_saved_before_there_was_a_cut_off_are_read():
    meta, arrays = Encoder(SCHEMA).fit(columns()).state()
    del meta["schema"]["min_count"]
    for field in (meta["scenario"], *meta["fields"].values()):
        field.pop("n_rare", None)
    restored = Encoder.from_state(meta, arrays)
    assert restored.schema == SCHEMA and restored.vocab_sizes == (3, 4, 4, 7)


def test_schema_by_toml_and_by_dictionary(tmp_path):
    path = tmp_path / "roles.toml"
    roles = 'label = "y"\nscenario = "s"\naware = ["s"]\nagnostic = ["item", "shop"]\n'
    path.write_text(roles + "min_count = 5\n")
    assert Schema.from_toml(path).min_count == 5
    path.write_text(roles + "[min_count]\nitem = 5\n")
    schema = Schema.from_toml(path)
    assert schema.min_count == {"item": 5}
    assert [schema.least_count(name) for name in schema.fields] == [1, 5, 1]
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.without("item").min_count == {}
    assert isinstance(hash(schema), int)


@pytest.mark.parametrize(
    ("min_count", "message"),
    [
        (0, "min_count must be a whole number of at least 1; got 0"),
        (True, "min_count must be a whole number of at least 1; got True"),
        ("5", "min_count must be a whole number of at least 1; got '5'"),
        ({"item": 0}, "min_count of 'item' must be a whole number of at least 1; got 0"),
        ({"itm": 2}, "min_count names 'itm', which is no field of categories; these are s, item"),
        ({"x": 2}, "min_count names 'x', which is no field of categories"),
    ],
)
def test_bad_cut_offs(min_count, message):
    with pytest.raises(ValueError, match=message):
        replace(SCHEMA, min_count=min_count)


def test_a_table_of_ones_own(tmp_path, write_csv):
    rows = [["y", "s", "item"], *[[i % 2, "ab"[i % 3 == 0], i // 7] for i in range(60)]]
    path, roles = write_csv(rows), tmp_path / "roles.toml"
    roles.write_text(
        'label = "y"\nscenario = "s"\naware = ["s"]\nagnostic = ["item"]\nmin_count = 2\n'
    )
    schema = Schema.from_toml(roles)
    assert load_table(path, schema).encoder.schema.min_count == 2
    whole = load_table(path, schema, min_count=1)
    cut = load_splits(str(path), None, roles, 0, {"min_count": {"item": 6}})
    assert cut.train.vocab_sizes[1] < whole.train.vocab_sizes[1]
    counts = np.bincount(whole.train.codes[:, 1], minlength=10)[1:]
    assert cut.train.vocab_sizes[1] == (counts >= 6).sum() + 1


def test_marketbias_extract(shared):
    folder = shared("marketbias-electronics")
    data = load_dataset("marketbias", folder, min_count={"user_id": 2})
    train = read_table(folder / "real_subset.csv.gz").filter(pl.col("split") == 0)
    counts = train["user_id"].value_counts()["count"].to_numpy()
    field = data.train.field_names.index("user_id")
    assert data.train.vocab_sizes[field] == (counts >= 2).sum() + 1
    assert (data.train.codes[:, field] == 0).sum() == (counts < 2).sum()


@pytest.mark.parametrize(
    ("name", "folder"),
    [("iaac", "iaac"), pytest.param("kuairand", "kuairand-pure", marks=pytest.mark.slow)],
)
def test_other_data_sets_take_the_option(shared, name, folder):
    whole, cut = (load_dataset(name, shared(folder), min_count=n) for n in (1, 20))
    sizes = zip(cut.train.vocab_sizes, whole.train.vocab_sizes, strict=True)
    assert all(few <= all_ for few, all_ in sizes)
    assert sum(cut.train.vocab_sizes) < 0.7 * sum(whole.train.vocab_sizes)
    assert cut.train.n_scenarios == whole.train.n_scenarios
