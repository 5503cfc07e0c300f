"""Nothing of the test rows reaches training or tuning, and what can be learned is learned."""

import importlib

import numpy as np
import polars as pl
import pytest

from midpg_np.data import Encoder, Schema, encode_splits, load_dataset, read_table
from midpg_np.experiments.jobs import attempt_job, load_job_data
from midpg_np.experiments.table1 import SYSTEMS, Table1, run_table1
from midpg_np.experiments.tuning import Task, settings_of

SCHEMA = Schema(
    label="bought", scenario="channel", aware=("channel",), agnostic=("item", "price"),
    numeric=("price",),
)  # fmt: skip


def rows(n_rows, seed, items=20, scale=1.0):
    rng = np.random.default_rng(seed)
    price = scale * rng.lognormal(size=n_rows)
    return {
        "channel": rng.choice(["app", "web"], n_rows),
        "item": rng.integers(0, items, n_rows),
        "price": price,
        "bought": (rng.random(n_rows) < 1 / (1 + price / scale)).astype(int),
    }


def assert_same_encoder(one, other):
    (meta, arrays), (other_meta, other_arrays) = one.state(), other.state()
    assert meta == other_meta
    assert arrays.keys() == other_arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, other_arrays[name])


def assert_same_rows(one, other):
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.scenario, other.scenario)
    np.testing.assert_array_equal(one.label, other.label)


def test_vocabularies_and_bins_see_the_training_rows_only():
    train = rows(200, 0)
    usual = {"train": train, "valid": rows(50, 1), "test": rows(50, 2)}
    strange = {"train": train, "valid": rows(80, 3, 999, 50.0), "test": rows(90, 4, 999, 99.0)}
    one, other = (encode_splits(SCHEMA, tables, name="x") for tables in (usual, strange))
    assert_same_encoder(one.encoder, other.encoder)
    assert_same_rows(one.train, other.train)
    # The strange rows are strange: most of their items were never seen, their prices are high.
    assert (other.test.codes[:, 1] == 0).mean() > 0.9
    assert other.test.codes[:, 2].mean() > one.test.codes[:, 2].mean() + 5


@pytest.fixture
def marketbias(shared, tmp_path):
    """Folder for a changed copy of the real rows: ``marketbias(name, **columns)``."""
    path = shared("marketbias-electronics")
    frame = read_table(path / "real_subset.csv.gz")

    def changed(name, **columns):
        (tmp_path / name).mkdir()
        frame.with_columns(**columns).write_csv(tmp_path / name / "real_subset.csv")
        return tmp_path / name

    return changed


@pytest.mark.slow
def test_real_vocabularies_see_the_training_rows_only(marketbias):
    later = pl.col("split") > 0
    shifted = {
        name: pl.when(later).then(pl.col(name) + 10_000_000).otherwise(pl.col(name))
        for name in ("item_id", "user_id")
    }
    brand = pl.when(later).then(pl.lit("a brand nobody knows")).otherwise(pl.col("brand"))
    rating = pl.when(later).then(6 - pl.col("rating")).otherwise(pl.col("rating"))
    one = load_dataset("marketbias", marketbias("as published"))
    other = load_dataset("marketbias", marketbias("later", brand=brand, rating=rating, **shifted))
    assert_same_encoder(one.encoder, other.encoder)
    assert_same_rows(one.train, other.train)
    item = one.train.field_names.index("item_id")
    assert (other.test.codes[:, item] == 0).all()
    assert not np.array_equal(one.test.label, other.test.label)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("marketbias", "marketbias-electronics"),
        ("iaac", "iaac"),
        ("kuairand", "kuairand-pure"),
        ("online-shoppers", "online-shoppers"),
        ("synthetic", None),
    ],
)
def test_every_data_set_fits_its_encoder_on_the_training_rows(data, folder, shared, monkeypatch):
    seen = []

    def fit(encoder, columns, original=Encoder.fit):
        fitted = original(encoder, columns)
        seen.append(fitted.transform(columns, warn=False))
        return fitted

    monkeypatch.setattr(Encoder, "fit", fit)
    splits = load_dataset(data, None if folder is None else shared(folder))
    (fitted_on,) = seen
    assert_same_rows(fitted_on, splits.train)


@pytest.mark.slow
def test_bins_of_a_random_division_see_the_training_rows_only(shared, tmp_path, monkeypatch):
    module = importlib.import_module("midpg_np.data.online_shoppers")
    divided = []

    def recorded(*arguments, original=module.split_by_fraction):
        divided.append(original(*arguments))
        return divided[-1]

    monkeypatch.setattr(module, "split_by_fraction", recorded)
    path = shared("online-shoppers") / "online_shoppers_intention.csv.gz"
    one = load_dataset("online-shoppers", path)
    later = pl.Series(~np.isin(np.arange(sum(map(len, divided[0]))), divided[0][0]))
    columns = {
        name: pl.when(later).then(1e6).otherwise(pl.col(name).cast(pl.Float64))
        for name in ("PageValues", "BounceRates", "ProductRelated_Duration")
    }
    read_table(path).with_columns(**columns).write_csv(tmp_path / "online_shoppers_intention.csv")
    other = load_dataset("online-shoppers", tmp_path)
    assert_same_encoder(one.encoder, other.encoder)
    assert_same_rows(one.train, other.train)
    assert not np.array_equal(one.test.codes, other.test.codes)


def test_all_trials_have_the_same_division(tmp_path):
    pl.DataFrame(rows(300, 0)).write_csv(tmp_path / "rows.csv")
    write_roles(tmp_path / "roles.toml")
    task = Task(str(tmp_path / "rows.csv"), schema=str(tmp_path / "roles.toml"))
    first = settings_of("dnn", task)[0]
    one, other = (load_job_data(task.job("dnn", first, seed)) for seed in (0, 7))
    for part in ("train", "valid", "test"):
        assert_same_rows(one.parts[part], other.parts[part])


def write_roles(path):
    roles = 'label = "bought"\nscenario = "channel"\naware = ["channel"]\n'
    roles += 'agnostic = ["item", "price"]\nnumeric = ["price"]\n'
    path.write_text(roles, encoding="utf-8")


def write_divided(path, test_seed):
    """Write a table of one's own; only its test rows depend on the seed."""
    parts = {"train": rows(300, 0), "valid": rows(100, 1), "test": rows(100, test_seed, 999, 20.0)}
    frames = [pl.DataFrame(t | {"part": [part] * len(t["item"])}) for part, t in parts.items()]
    pl.concat(frames).write_csv(path)


def test_tuning_is_the_same_whatever_the_test_rows_are(tmp_path):
    write_roles(tmp_path / "roles.toml")
    outcomes = []
    for test_seed in (2, 3):
        path = tmp_path / f"rows-{test_seed}.csv"
        write_divided(path, test_seed)
        training = {"epochs": 2, "batch_size": 64, "l2_embedding": 0.1, "embedding_dropout": 0.1}
        task = Task(str(path), None, {"split": "part"}, training, str(tmp_path / "roles.toml"))
        table = Table1(task, systems=("dnn", "midpg"), seeds=(0,), tuning_seeds=(0,))
        outcomes.append(run_table1(table, lambda jobs: list(map(attempt_job, jobs))))
    one, other = outcomes
    assert one["failed"] == other["failed"] == []
    for system in ("dnn", "midpg"):
        grids = [o["tuning"]["systems"][system] for o in outcomes]
        assert grids[0]["grid"] == grids[1]["grid"] and len(grids[0]["grid"]) == 4
        assert grids[0]["chosen"] == grids[1]["chosen"]
        aucs = [o["systems"][system]["metrics"]["auc"]["values"] for o in outcomes]
        assert aucs[0] != aucs[1]  # the test rows did change


def aucs_of(path, **training):
    """Test AUC of every system, trained by the settings that its grid starts with."""
    task = Task("marketbias", str(path), training=training)
    jobs = [task.job(name, settings_of(name, task)[0], 0, ("test",)) for name in SYSTEMS]
    results = dict(zip(SYSTEMS, map(attempt_job, jobs), strict=True))
    assert not [result["error"] for result in results.values() if "error" in result]
    return {name: result["metrics"]["test"]["auc"] for name, result in results.items()}


@pytest.mark.slow
def test_shuffled_labels_cannot_be_predicted(marketbias):
    short = {"epochs": 1, "valid_every": None}
    # One AUC on these test rows has a standard error of 0.008; the mean of four, half of that.
    aucs = [
        aucs_of(marketbias(f"shuffled {seed}", rating=pl.col("rating").shuffle(seed)), **short)
        for seed in range(4)
    ]
    means = {name: float(np.mean([of_one[name] for of_one in aucs])) for name in SYSTEMS}
    assert means == pytest.approx(dict.fromkeys(SYSTEMS, 0.5), abs=0.02)


@pytest.mark.slow
def test_the_label_among_the_features_is_found(marketbias):
    label = pl.when(pl.col("rating") >= 4).then(pl.lit("yes")).otherwise(pl.lit("no"))
    aucs = aucs_of(marketbias("label", brand=label), epochs=1)
    assert aucs == pytest.approx(dict.fromkeys(SYSTEMS, 1.0), abs=1e-4)
