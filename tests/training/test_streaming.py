"""Predictions of files, piece by piece: the same bits, rows and errors as of a whole table."""

import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from midpg_np import perturbed
from midpg_np.data import Encoder, Schema, UnknownCategoryWarning, read_table
from midpg_np.models import make_model
from midpg_np.ops import sigmoid
from midpg_np.training import by_context, evaluate, streaming
from midpg_np.training.blas import blas_threads
from midpg_np.training.checkpoint import LoadedModel
from midpg_np.training.evaluate import predict_logits, rows_per_batch
from midpg_np.training.streaming import in_order, stream_probabilities
from midpg_np.tree import tree_astype

N_ROWS = 1500
SCHEMA = Schema("bought", "shop", ("shop", "device"), ("item", "price"), numeric=("price",))


def make_rows(n_rows=N_ROWS, **columns):
    rng = np.random.default_rng(3)
    table = {
        "shop": rng.choice(["app", "web", "mail"], n_rows).tolist(),
        "device": rng.choice(["phone", "desk"], n_rows).tolist(),
        "item": [None if i == 7 else int(i) for i in rng.integers(0, 40, n_rows)],
        "price": np.round(rng.lognormal(size=n_rows), 2).tolist(),
        "bought": (np.arange(n_rows) % 2).tolist(),
    }
    return pl.DataFrame(table | columns, strict=False)


@pytest.fixture(scope="module")
def loaded():
    encoder = Encoder(SCHEMA).fit(make_rows())
    sizes = {name: getattr(encoder, name) for name in ("vocab_sizes", "n_scenarios")}
    model = make_model("midpg", **sizes, n_aware=2, hidden=(16, 8))
    rng = np.random.default_rng(0)
    params = tree_astype(perturbed(model.init(rng), rng), np.float32)
    return LoadedModel(model, params, encoder, {})


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Batches of 16 rows, so that a short file holds many."""
    monkeypatch.setattr(streaming, "rows_per_batch", lambda *_: 16)


def write(tmp_path, frame, suffix="csv"):
    path = tmp_path / f"rows.{suffix}"
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("chunk_rows", "n_threads"), [(1, 1), (16, 3), (100, 2), (10**6, 2)])
def test_pieces_and_threads_do_not_change_a_bit(loaded, tmp_path, suffix, chunk_rows, n_threads):
    path = write(tmp_path, make_rows().drop("bought"), suffix)
    rows = loaded.encoder.transform(read_table(path), require_label=False)
    with blas_threads(1):
        logits = predict_logits(loaded.model, loaded.params, rows, batch_size=16)
    pieces = list(stream_probabilities(loaded, path, chunk_rows=chunk_rows, n_threads=n_threads))
    n_pieces = -(-N_ROWS // (-(-chunk_rows // 16) * 16))
    assert len(pieces) == n_pieces
    got = np.concatenate(pieces)
    assert got.tobytes() == sigmoid(logits.astype(np.float64))[0].tobytes()
    assert np.ptp(got) > 0.01


@pytest.mark.parametrize(("chunk_rows", "n_threads"), [(1, 1), (300, 3), (10**6, 2)])
def test_blocks_of_contexts_do_not_change_a_bit_either(
    loaded, tmp_path, monkeypatch, chunk_rows, n_threads
):
    """7 blocks of 208 rows hold 35 rows per context, the last one 7: too few to group them."""
    monkeypatch.setattr(by_context, "BLOCK_ROWS", 208)
    by_context_only = replace(loaded.model, dwm_inputs="aw_only")
    params = perturbed(by_context_only.init(np.random.default_rng(0)), np.random.default_rng(1))
    loaded = loaded._replace(model=by_context_only, params=tree_astype(params, np.float32))
    path = write(tmp_path, make_rows().drop("bought"))
    rows = loaded.encoder.transform(read_table(path), require_label=False)
    with blas_threads(1):
        logits = predict_logits(loaded.model, loaded.params, rows, batch_size=16)
    pieces = list(stream_probabilities(loaded, path, chunk_rows=chunk_rows, n_threads=n_threads))
    assert len(pieces) == -(-N_ROWS // (-(-chunk_rows // 208) * 208))
    got = np.concatenate(pieces)
    assert got.tobytes() == sigmoid(logits.astype(np.float64))[0].tobytes()
    row_by_row = loaded.model.forward(loaded.params, rows.batch())[0].logit
    np.testing.assert_allclose(logits, row_by_row, rtol=0, atol=1e-5 * np.abs(row_by_row).max())


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("price", "cheap", r"numeric column 'price' must hold .* got 'cheap' at row 1201\. Corr"),
        ("shop", "kiosk", r"scenario column 'shop' holds 'kiosk' at row 1201, which no training"),
        ("shop", None, r"scenario column 'shop' has no value at row 1201, which no training"),
    ],
)
def test_errors_name_the_row_of_the_file(loaded, tmp_path, column, value, message, n_threads):
    values = [*make_rows()[column].cast(pl.String)]
    values[1201] = value
    values[1402] = value  # the first one counts
    path = write(tmp_path, make_rows(**{column: values}))
    pieces = stream_probabilities(loaded, path, chunk_rows=160, n_threads=n_threads)
    with pytest.raises(ValueError, match=message):
        list(pieces)


def test_a_long_identifier_as_a_float_and_an_unknown_scenario_of_a_routing_model(loaded, tmp_path):
    item = make_rows()["item"].cast(pl.Float64).to_list()
    item[700] = 2.0**60
    path = write(tmp_path, make_rows(item=item), "parquet")
    with pytest.raises(ValueError, match=r"column 'item' holds .* at row 700 as a float, which"):
        list(stream_probabilities(loaded, path, chunk_rows=32))
    sizes = {name: getattr(loaded.model, name) for name in ("vocab_sizes", "n_scenarios")}
    model = make_model("star", **sizes, n_aware=2, hidden=(8,))
    routing = loaded._replace(model=model, params=model.init(np.random.default_rng(0)))
    shop = make_rows()["shop"].to_list()
    shop[900] = "kiosk"
    path = write(tmp_path, make_rows(shop=shop))
    with pytest.raises(ValueError, match="the scenario of row 900 was not seen in training"):
        list(stream_probabilities(routing, path, chunk_rows=32, unknown_scenario="shared"))


def test_one_warning_for_all_pieces(loaded, tmp_path):
    rows = make_rows()
    item, device = rows["item"].to_list(), rows["device"].to_list()
    for row in (3, 500, 1499):
        item[row] = 1000 + row
    device[700] = None
    path = write(tmp_path, make_rows(item=item, device=device))
    with pytest.warns(UnknownCategoryWarning) as caught:
        list(stream_probabilities(loaded, path, chunk_rows=64, n_threads=2))
    assert [str(warning.message) for warning in caught] == [
        "categories that no training row had get code 0 (1500 rows; unknown: device 1, item 3)."
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(stream_probabilities(loaded, write(tmp_path, rows), chunk_rows=64))


@pytest.mark.parametrize("chunk_rows", [1, 30, 100_000])
def test_rows_are_counted_until_there_are_enough(chunk_rows):
    """So the size of the pieces does not decide whether compiled loops predict a file."""
    sizes = [min(chunk_rows, 75 - i) for i in range(0, 75, chunk_rows)]
    for enough in (1, 75, 76):
        n_rows, pieces = streaming.counted((SimpleNamespace(height=n) for n in sizes), enough)
        assert (n_rows >= enough) == (enough <= 75)
        assert [piece.height for piece in pieces] == sizes


def test_few_pieces_are_held_at_a_time(loaded, tmp_path, monkeypatch):
    """Read ahead: one piece at work in each thread, one that waits, one whose result is due."""
    taken, heights = 0, []
    read_chunks = streaming.read_chunks

    def counted(*arguments):
        nonlocal taken
        for piece in read_chunks(*arguments):
            taken += 1
            heights.append(piece.height)
            yield piece

    monkeypatch.setattr(streaming, "read_chunks", counted)
    monkeypatch.setattr(streaming, "ROWS_FOR_LOOPS", 1)  # are found in the first piece
    path = write(tmp_path, make_rows())
    for n_threads in (1, 2, 3):
        taken = 0
        pieces = stream_probabilities(loaded, path, chunk_rows=20, n_threads=n_threads)
        for n_given, _ in enumerate(pieces, start=1):
            assert taken <= n_given + n_threads
        assert taken == -(-N_ROWS // 32)
    assert max(heights) == 32


def test_results_come_in_order_and_from_several_threads():
    together = threading.Barrier(3, timeout=10)  # three calls must be at work at the same time

    def call(i):
        together.wait()
        return i, threading.get_ident()

    results = list(in_order(call, range(9), 3))
    assert [i for i, _ in results] == list(range(9))
    assert len({thread for _, thread in results}) == 3


def test_an_error_ends_the_work_after_the_results_before_it():
    called = []

    def call(i):
        called.append(i)
        if i >= 5:
            raise ValueError(f"item {i}")
        return i

    for n_threads in (1, 4):
        called.clear()
        results = []
        with pytest.raises(ValueError, match="item 5"):
            for result in in_order(call, range(1000), n_threads):
                results.append(result)
        assert results == [0, 1, 2, 3, 4]
        assert max(called) <= 5 + n_threads


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dnn", {}, 4096),  # 584 float32 numbers per row
        ("midpg", {"dim_embedding": 16}, None),
        ("ple", {}, None),
        ("midpg", {"form": "textbook"}, 256),  # 38,600: every row has its own S
    ],
)
def test_a_batch_is_as_large_as_its_intermediates_allow(name, options, expected):
    model = make_model(name, vocab_sizes=(50,) * 8, n_aware=2, n_scenarios=4, **options)
    params = tree_astype(model.init(np.random.default_rng(0)), np.float32)
    n_rows = rows_per_batch(model, params)
    batch = evaluate._probe(model, n_rows)
    taken = sum(evaluate._array_sizes(model.forward(params, batch)[1], set()))
    # Parameters and the like come on top of what rows take.
    assert taken <= 1.1 * 2**24 or n_rows == 256
    assert 2 * taken > 2**24 or n_rows == 4096
    assert expected in (None, n_rows)
    assert n_rows & (n_rows - 1) == 0
