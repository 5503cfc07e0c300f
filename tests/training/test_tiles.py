"""Steps in tiles: the same losses and gradients, whatever the tiles and the threads."""

import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import numpy as np
import pytest
from small import assert_close, partners, small_batch, small_model
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import MODELS
from midpg_np.training.step import first_non_finite, training_step
from midpg_np.training.tiles import Tiles, takes_tiles
from midpg_np.tree import tree_flatten

N_ROWS = 13
OPTIONS = {
    "dpg": [{"variant": variant} for variant in ("r", "c", "rc", "non")]
    + [{"dwm_detach_h": True}, {"dwm_inputs": "aw_only"}, {"modulate_output": True}],
    "midpg": [{"variant": variant} for variant in ("r", "c", "rc", "non")]
    + [{"disc_scope": "concat"}, {"disc_input": "full"}, {"disc_input": "factors"}]
    + [{"disc": "bilinear"}, {"mi_detach_context": True}, {"form": "textbook"}]
    + [{"mi_grad_to": to} for to in ("disc+gen", "disc")]
    + [{"negatives": kind} for kind in ("derangement", "other_scenario")],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


def step(model, tiles, loss_reduce="mean", seed=1, spoil=None):
    rng = generator(seed)
    params, batch = perturbed_params(model, rng), small_batch(rng, N_ROWS)
    if spoil is not None:
        spoil(params)
    draws = {"partner": partners(rng, N_ROWS)}
    if getattr(model, "negatives", "") == "other_scenario":
        draws = model.draw(rng, batch)
    loss = CROSS_ENTROPIES["full"]
    return training_step(model, loss, params, batch, draws, loss_reduce, tiles), params


def assert_same(got, want):
    assert_close(got.losses, want.losses)
    assert_close({"logit": got.output.logit}, {"logit": want.output.logit})
    got, want = dense_gradients(got.grads), dense_gradients(want.grads)
    assert_close(tree_flatten(got), tree_flatten(want))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("rows", [1, 4, 13, 100])
def test_tiles_add_up_to_the_batch(name, options, rows):
    """Four rows at a time leave one over; a negative pair's partner may sit in any tile."""
    model = small_model(name, **options)
    assert_same(step(model, Tiles(rows))[0], step(model, None)[0])


@pytest.mark.parametrize("rows", [4, 100])
def test_weights_of_rows_are_those_of_the_whole_batch(rows):
    model = small_model("midpg")
    got, _ = step(model, Tiles(rows), "scenario_mean")
    assert_same(got, step(model, None, "scenario_mean")[0])
    assert not np.allclose(got.losses["ce"], step(model, None)[0].losses["ce"])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads):
    model, alone, together = small_model("midpg"), Tiles(4), Tiles(4, threads)
    for seed in range(5):  # the workspaces are used again
        want, got = step(model, alone, seed=seed)[0], step(model, together, seed=seed)[0]
        want_grads = tree_flatten(dense_gradients(want.grads))
        for path, g in tree_flatten(dense_gradients(got.grads)).items():
            assert np.array_equal(g, want_grads[path]), path
        assert {k: float(v) for k, v in got.losses.items()} == want.losses


class Result:
    """What a tile gives, for as long as somebody holds it."""

    def __init__(self, number):
        self.number = number


def watched(pace, last):
    """Work on tiles of one row; ``last``: by memory a reference to its last result."""

    def work(rows, memory):
        assert last.get(memory, dead)() is None, "the last result in this memory is still held"
        sleep(pace(rows.start))
        result = Result(rows.start)
        last[memory] = weakref.ref(result)
        return result

    return work


def dead():
    return None


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("slow", range(5))
def test_no_memory_is_used_while_its_result_is_held(threads, slow):
    """However slow a tile is: those behind it wait, and come in order."""
    last, found = {}, []
    work = watched(lambda i: 0.02 * (i % 5 == slow), last)
    for result in Tiles(1, threads).map(work, 11):
        found.append(result.number)
        sleep(0.002)
        del result
    assert found == list(range(11))
    assert len(last) == threads


def test_a_thread_that_holds_its_task_holds_no_result():
    """As it does for a moment after it has finished."""
    kept = []

    class Pool(ThreadPoolExecutor):
        def submit(self, task, *args):
            kept.append((task, args))
            return super().submit(task, *args)

    tiles, last = Tiles(1, 2), {}
    tiles._pool = Pool(2)
    for result in tiles.map(watched(lambda i: 0.0, last), 9):
        del result
    assert len(kept) == 8 and len(last) == 2  # the first tile needs no thread


@pytest.mark.parametrize("bad", [0, 1, 4])
def test_nobody_works_on_after_an_error(bad):
    """The next batch finds all memories idle."""
    at_work = Counter()

    def work(rows, memory):
        at_work[memory] += 1
        if rows.start == bad:
            at_work[memory] -= 1
            raise FloatingPointError("a tile went wrong")
        sleep(0.02)
        at_work[memory] -= 1

    with pytest.raises(FloatingPointError):
        list(Tiles(1, 3).map(work, 9))
    assert len(at_work) == 3
    assert not any(at_work.values())


def test_results_of_a_step_survive_the_next():
    model, tiles = small_model("midpg"), Tiles(4)
    first, _ = step(model, tiles)
    before = {path: g.copy() for path, g in tree_flatten(dense_gradients(first.grads)).items()}
    logit = first.output.logit.copy()
    step(model, tiles, seed=2)
    assert np.array_equal(first.output.logit, logit)
    after = tree_flatten(dense_gradients(first.grads))
    assert all(np.array_equal(after[path], g) for path, g in before.items())


@pytest.mark.parametrize("rows", [4, 100])
def test_what_overflows_is_still_named(rows):
    def spoil(params):
        params["layer_1"]["weighting"]["row_generator"]["layer_2"]["b"][0] = np.inf
        params["layer_1"]["weighting"]["C_share"][0, 0] = 0.0  # inf times 0

    with np.errstate(all="ignore"):
        result, params = step(small_model("midpg"), Tiles(rows), spoil=spoil)
    params["layer_1"]["weighting"]["row_generator"]["layer_2"]["b"][0] = 0.0
    assert not np.isfinite(result.losses["loss"])
    assert "layer_1" in first_non_finite(params, result)


WHOLE = [name for name, kind in MODELS.items() if getattr(kind, "takes_whole_batches", False)]


@pytest.mark.parametrize("name", WHOLE)
def test_models_whose_rows_meet_take_whole_batches(name):
    model = small_model(name)
    got, want = step(model, Tiles(4))[0], step(model, None)[0]
    assert takes_tiles(model)
    assert np.array_equal(got.output.logit, want.output.logit)
    assert (got.cache is not None) == hasattr(model, "read_by_advance")


class WithoutHalves:
    """The two passes of a model, and no more than a step needs."""

    def __init__(self, model):
        self.init, self.forward, self.backward = model.init, model.forward, model.backward
        self.auxiliary_weights, self.buffers = (
            model.auxiliary_weights,
            getattr(model, "buffers", ()),
        )


@pytest.mark.parametrize("name", MODELS)
def test_models_without_halves_take_whole_batches(name):
    model = WithoutHalves(small_model(name))
    got, want = step(model, Tiles(4))[0], step(model, None)[0]
    assert not takes_tiles(model)
    assert np.array_equal(got.output.logit, want.output.logit)
    assert got.cache is not None


def test_memory_does_not_grow_with_the_number_of_tiles():
    """One workspace serves all tiles, so three tiles hold no more than one."""
    model, held = small_model("dpg", form="row"), []
    for rows in (N_ROWS, 5):
        tiles = Tiles(rows)
        step(model, tiles)
        workspace = tiles._memories[0].workspace
        held.append(workspace.n_bytes)
    assert held[1] < held[0]
