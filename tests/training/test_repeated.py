"""Passes from recordings have the bits of the passes themselves; what cannot be repeated is not."""

import numpy as np
import pytest
from small import partners, small_batch, small_model
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.kernels import compiled_loops
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training import tiles as tiles_module
from midpg_np.training.repeated import MOST_RECORDINGS, RepeatedPass
from midpg_np.training.step import training_step
from midpg_np.training.tiles import MOST_SHAPES, Tiles
from midpg_np.tree import tree_flatten
from midpg_np.workspace import Workspace

pytest.importorskip("numba", reason="without compiled loops nothing is recorded")

N_ROWS = 13
OPTIONS = {
    "dpg": [{"variant": variant} for variant in ("r", "c", "rc", "non")]
    + [{"dwm_detach_h": True}, {"dwm_inputs": "aw_only"}, {"modulate_output": True}]
    + [{"modulate_bias": True}, {"w_layout": "out_in"}, {"repeat_mode": "tile"}, {"gain": 2.0}]
    + [{"activation": name} for name in ("leaky_relu", "tanh", "softplus", "silu", "identity")],
    "midpg": [{"variant": variant} for variant in ("r", "c", "rc", "non")]
    + [{"disc_scope": "concat"}, {"disc_input": "full"}, {"disc_input": "factors"}]
    + [{"disc_hidden": ()}, {"disc_hidden": (4, 3)}, {"mi_detach_context": True}]
    + [{"mi_grad_to": to} for to in ("disc+gen", "disc")],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


@pytest.fixture
def loops():
    with compiled_loops("compiled") as loops:
        yield loops


def steps(model, tiles, n=5, loss="full", loss_reduce="mean"):
    """Losses, logits and gradients of steps on new rows, with parameters that change in place."""
    rng = generator(2)
    params, found = perturbed_params(model, rng), []
    for _ in range(n):
        batch, draws = small_batch(rng, N_ROWS), {"partner": partners(rng, N_ROWS)}
        result = training_step(
            model, CROSS_ENTROPIES[loss], params, batch, draws, loss_reduce, tiles
        )
        grads = tree_flatten(dense_gradients(result.grads))
        found.append({k: np.copy(x) for k, x in grads.items()} | {"z": result.output.logit.copy()})
        found[-1] |= {name: float(value) for name, value in result.losses.items()}
        for path, leaf in tree_flatten(params).items():
            leaf -= 0.1 * grads[path]
        del result, grads
    return found


def passes(tiles):
    """What the memories of ``tiles`` have recorded, one list per shape of a tile."""
    return [p for memory in tiles._memories for p in memory._passes.values()]


def assert_same(got, want):
    for g, w in zip(got, want, strict=True):
        assert g.keys() == w.keys()
        for name in g:
            np.testing.assert_array_equal(g[name], w[name], err_msg=name)


def without_recordings(monkeypatch, *args, **options):
    with monkeypatch.context() as patched:
        patched.setattr(tiles_module, "_fixed", lambda *_: [])
        return steps(*args, **options)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("rows", [5, 100])
def test_bits_are_those_of_the_pass_itself(loops, monkeypatch, name, options, rows):
    model, tiles = small_model(name, **options), Tiles(rows)
    got = steps(model, tiles)
    assert_same(got, without_recordings(monkeypatch, model, Tiles(rows)))
    taken = passes(tiles)
    assert len(taken) == (1 if rows == 100 else 2)  # 13 rows in tiles of 5 leave three over
    assert all(p.is_recordable and p._recordings[0].is_proven for p in taken)


@pytest.mark.parametrize("options", [{"loss": "positive_only"}, {"loss_reduce": "scenario_mean"}])
def test_every_loss_is_recorded(loops, monkeypatch, options):
    model, tiles = small_model("midpg"), Tiles(100)
    got = steps(model, tiles, **options)
    assert_same(got, without_recordings(monkeypatch, model, Tiles(100), **options))
    assert passes(tiles)[0]._recordings[0].is_proven


@pytest.mark.parametrize("options", [{"disc": "bilinear"}, {"form": "row"}])
def test_passes_of_other_work_are_not_recorded(loops, options):
    tiles = Tiles(100)
    steps(small_model("midpg", **options), tiles)
    assert not passes(tiles)


def test_without_loops_nothing_is_recorded():
    tiles = Tiles(100)
    steps(small_model("midpg"), tiles)
    assert not passes(tiles)


def test_other_parameters_are_another_pass(loops):
    """A leaf that was replaced would never be read by the old recording."""
    model, tiles = small_model("dpg"), Tiles(100)
    twice = [steps(model, tiles) for _ in range(2)]
    assert_same(*twice)


def test_shapes_are_few(loops):
    model, tiles, rng = small_model("dpg"), Tiles(100), generator(0)
    params = perturbed_params(model, rng)
    for n_rows in (5, 6, 7, 8):
        training_step(
            model, CROSS_ENTROPIES["full"], params, small_batch(rng, n_rows), {}, tiles=tiles
        )
    assert len(passes(tiles)) == MOST_SHAPES


def test_a_tile_for_each_thread_meets_the_same_recording(loops):
    tiles = Tiles(7, threads=2)
    steps(small_model("dpg"), tiles)
    assert [len(p._recordings) for p in passes(tiles)] == [1, 1]  # of 7 rows, and of 6
    assert [len(memory._passes) for memory in tiles._memories] == [1, 1]


def test_many_tiles_meet_the_same_recordings(loops):
    tiles = Tiles(2, threads=2)  # six tiles of 2 rows and one of 1
    steps(small_model("dpg"), tiles)
    assert [len(p._recordings) for p in passes(tiles)] == [1, 1, 1]


def test_batches_of_one_tile_meet_the_same_recording(loops):
    tiles = Tiles(100, threads=3)
    steps(small_model("dpg"), tiles)
    assert len(passes(tiles)) == 1


def arrays(seed):
    return [generator(seed).normal(size=(3, 2))]


def taken(pass_, n, keep=False):
    """Results of n calls, held or let go of; and the pass."""
    repeated, held, numbers = RepeatedPass(pass_, {"w": np.ones(2)}), [], []
    for seed in range(n):
        result = repeated(arrays(seed), Workspace())
        numbers.append(result["y"].copy())
        if keep:
            held.append(result)
        del result
    return repeated, held, numbers


def doubled(params, arrays, workspace):
    return {"y": 2.0 * arrays[0] * params["w"]}


def test_held_results_are_never_written_over():
    repeated, held, numbers = taken(doubled, 8, keep=True)
    for seed, (result, number) in enumerate(zip(held, numbers, strict=True)):
        np.testing.assert_array_equal(result["y"], 2.0 * arrays(seed)[0])
        np.testing.assert_array_equal(result["y"], number)
    assert len(repeated._recordings) == MOST_RECORDINGS


def test_one_recording_serves_results_that_are_let_go_of():
    repeated, _, _ = taken(doubled, 8)
    assert len(repeated._recordings) == 1


def escaping(params, arrays, workspace):
    """A pass that leaves the recording: its second factor would be that of the first time."""
    return {"y": arrays[0] * np.cos(np.asarray(arrays[0]))}


def branching(params, arrays, workspace):
    return {"y": arrays[0] if arrays[0].sum() > 0 else -arrays[0]}


def counting():
    """A pass with a hidden state."""
    count = [0.0]

    def pass_(params, arrays, workspace):
        count[0] += 1.0
        return {"y": arrays[0] * count[0]}

    return pass_


def selecting(params, arrays, workspace):
    """The number of its results depends on values."""
    return {"y": arrays[0][arrays[0] > 0.0]}


@pytest.mark.parametrize("pass_", [escaping, branching, selecting])
def test_what_cannot_be_repeated_is_taken_as_it_is(pass_):
    repeated, _, numbers = taken(pass_, 6)
    assert not repeated.is_recordable
    for seed, number in enumerate(numbers):
        np.testing.assert_array_equal(number, pass_(repeated.params, arrays(seed), None)["y"])


def test_a_hidden_state_is_found_out():
    repeated, _, _ = taken(counting(), 6)
    assert not repeated.is_recordable
