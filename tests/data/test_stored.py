"""Rows on disk: they train as rows in memory do, with as little in memory as the blocks read."""

import numpy as np
import pytest

from midpg_np.data import Dataset, Encoder, Schema, load_dataset
from midpg_np.data import stored as module
from midpg_np.data.errors import RowError
from midpg_np.data.pieces import first_rows, fit_in_pieces
from midpg_np.data.stored import store
from midpg_np.experiments.comparison import build_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import evaluate
from midpg_np.training.loop import fit
from midpg_np.tree import tree_items

SCHEMA = Schema(label="y", scenario="s", aware=("s",), agnostic=("item", "word"))


def table(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    words = np.array(["a", "b", "c", None, "7"], dtype=object)
    return {
        "s": rng.integers(0, 3, n_rows),
        "item": rng.integers(0, 40, n_rows),
        "word": words[rng.integers(0, 5, n_rows)],
        "y": rng.integers(0, 2, n_rows),
    }


def pieces_of(columns, *sizes):
    start = 0
    for size in sizes:
        yield {name: values[start : start + size] for name, values in columns.items()}
        start += size


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    monkeypatch.setattr(module, "MIXED", 4)


@pytest.fixture
def both(small_blocks):
    """The same 1,000 rows in memory and on disk."""
    columns = table(1000)
    encoder = Encoder(SCHEMA).fit(columns)
    return encoder.transform(columns), store(encoder, pieces_of(columns, 300, 1, 699))


def same_batch(a, b):
    for name in ("codes", "scenario", "label"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_batches_are_those_of_the_rows_in_memory(both):
    memory, disk = both
    rng = np.random.default_rng(1)
    flags = np.zeros(1000, dtype=bool)
    flags[[3, 500]] = True
    choices = (np.arange(64), slice(990, None), slice(None), flags, np.array([], dtype=np.int64))
    for rows in (*choices, *disk.positions(48, rng), *(rng.integers(0, 1000, 50) for _ in "123")):
        same_batch(memory.batch(rows), disk.batch(rows))
    same_batch(memory.take(flags).batch(), disk.take(flags).batch())
    same_batch(disk.first(100).batch(), memory.batch(slice(100)))
    with pytest.raises(IndexError, match=r"rows must lie in \[0, 1000\); got -1, 1000"):
        disk.batch(np.array([-1, 1000]))


def test_every_row_comes_once_and_is_mixed_with_few_blocks(both):
    _, disk = both
    batches = list(disk.positions(48, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [48] * 20 + [40]
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert max(len(np.unique(batch // 16)) for batch in batches) <= 8
    # Neighbours in the file are not neighbours in a batch.
    assert np.mean(np.abs(np.diff(np.concatenate(batches))) == 1) < 0.05
    again = list(disk.positions(48, np.random.default_rng(0)))
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(again))
    alone = [len(batch) for batch in disk.first(97).positions(48, np.random.default_rng(0))]
    assert alone == [48, 49]


def test_a_pass_reads_every_block_once(both, monkeypatch):
    _, disk = both
    reads, read = [], np.fromfile

    def count(*args, **options):
        reads.append(options["offset"])
        return read(*args, **options)

    monkeypatch.setattr(np, "fromfile", count)
    for rows in disk.positions(48, np.random.default_rng(0)):
        disk.batch(rows)
    assert len(reads) == len(set(reads)) == -(-1000 // 16)


class InOrderOf(Dataset):
    """Rows in memory, in the order of those on disk."""

    def positions(self, batch_size, rng):
        return module.StoredDataset.positions(self, batch_size, rng)


def test_training_has_the_bits_of_training_in_memory(both):
    memory, disk = both
    memory = InOrderOf(**{name: getattr(memory, name) for name in Dataset.__dataclass_fields__})
    model = build_model("midpg", disk, {"hidden": (8, 4), "row_divisor": 2, "col_divisor": 2})
    config = TrainConfig(epochs=2, batch_size=48, kernels="numpy")
    results = [fit(model, data, memory.take(np.arange(200)), config) for data in (memory, disk)]
    assert same_bits(results[0].params, results[1].params)


def same_bits(a, b):
    leaves = dict(tree_items(b))
    return all(leaf.tobytes() == leaves[path].tobytes() for path, leaf in tree_items(a))


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 17, 21, 30])
def test_an_interrupted_run_goes_on_with_the_same_bits(both, tmp_path, stop_at):
    _, disk = both
    model = build_model("midpg", disk, {"hidden": (8, 4), "row_divisor": 2, "col_divisor": 2})
    config = TrainConfig(epochs=2, batch_size=48, checkpoint_every=5, kernels="numpy")
    valid = disk.take(np.arange(200))

    def interrupt(progress):
        if progress.step == stop_at:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fit(model, disk, valid, config, run_dir=tmp_path, progress=interrupt)
    # The next process writes the files anew.
    columns = table(1000)
    again = store(Encoder(SCHEMA).fit(columns), pieces_of(columns, 1000))
    resumed = fit(model, again, valid, config, run_dir=tmp_path, resume=True)
    straight = fit(model, disk, valid, config)
    assert same_bits(resumed.params, straight.params)


def test_other_rows_are_refused_when_a_run_is_resumed(both, tmp_path):
    _, disk = both
    model = build_model("dnn", disk, {"hidden": (4,)})
    config = TrainConfig(epochs=1, batch_size=48)
    fit(model, disk, None, config, run_dir=tmp_path)
    columns = table(1000)
    encoder = Encoder(SCHEMA).fit(columns)
    columns["y"] = 1 - columns["y"]
    other = store(encoder, pieces_of(columns, 1000))
    with pytest.raises(ValueError, match="the checkpoint was made with training rows = "):
        fit(model, other, None, config, run_dir=tmp_path, resume=True)


def test_the_files_go_with_the_data_set(small_blocks, tmp_path):
    columns = table(100)
    encoder = Encoder(SCHEMA).fit(columns)
    kept = store(encoder, pieces_of(columns, 100), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes", "label", "scenario"]
    assert (tmp_path / "codes").stat().st_size == 100 * 3 * 4
    disk = store(encoder, pieces_of(columns, 100))
    folder = disk.folder.path
    assert folder.is_dir()
    part = disk.first(10)
    del disk
    assert folder.is_dir()
    same_batch(part.batch(), kept.batch(slice(10)))
    del part
    assert not folder.exists()


@pytest.mark.parametrize("min_count", [1, 30, {"item": 24}])
def test_an_encoder_fitted_in_pieces_is_the_same(min_count):
    columns = table(1000)
    schema = Schema.from_dict(SCHEMA.to_dict() | {"min_count": min_count})
    whole = Encoder(schema).fit(columns)
    pieces = fit_in_pieces(schema, pieces_of(columns, 10, 500, 1, 489))
    (meta, arrays), (meta_too, arrays_too) = whole.state(), pieces.state()
    assert meta == meta_too
    assert arrays.keys() == arrays_too.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, arrays_too[name])


def test_first_rows():
    columns = table(100)
    found = list(first_rows(pieces_of(columns, 40, 40, 20), 60, ["item"]))
    np.testing.assert_array_equal(np.concatenate([c["item"] for c in found]), columns["item"][:60])


def test_what_cannot_be_stored_or_fitted():
    columns = table(100)
    encoder = Encoder(SCHEMA).fit(columns)
    wrong = columns | {"y": np.where(np.arange(100) == 70, 2, columns["y"])}
    with pytest.raises(RowError, match="must hold 0 or 1; got 2 at row 70"):
        store(encoder, pieces_of(wrong, 50, 50))
    with pytest.raises(ValueError, match="no rows; there is nothing to encode"):
        store(encoder, [])
    numeric = Schema(label="y", scenario="s", aware=("s",), agnostic=("item",), numeric=("item",))
    with pytest.raises(ValueError, match=r"numeric fields \(item\) cannot be cut into bins piece"):
        fit_in_pieces(numeric, pieces_of(columns, 100))
    with pytest.raises(ValueError, match="label column 'y' does not hold both 0 and 1"):
        fit_in_pieces(SCHEMA, [columns | {"y": np.zeros(100, dtype=int)}])
    scenario = np.array([None, *[1] * 99], dtype=object)
    with pytest.raises(ValueError, match="scenario column 's' lacks values"):
        fit_in_pieces(SCHEMA, [columns | {"s": scenario}])


@pytest.mark.slow
def test_a_model_learns_from_disk():
    data = load_dataset("industrial", fraction=0.0006)
    model = build_model("midpg", data.train, {"hidden": (16, 8)})
    config = TrainConfig(epochs=1, batch_size=512, lr=0.005)
    result = fit(model, data.train, data.valid, config)
    assert evaluate(model, result.params, data.test).auc > 0.58
