"""Steps in tiles, and from recordings, of the comparison models that offer halves."""

import numpy as np
import pytest
from small import small_batch, small_model
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.kernels import compiled_loops
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import DNN, AdaSparse
from midpg_np.training import tiles as tiles_module
from midpg_np.training.step import training_step
from midpg_np.training.tiles import Tiles, takes_tiles, threads_of_blas
from midpg_np.tree import tree_flatten

N_ROWS = 13
SCHEDULE = {"schedule_steps": 3, "lambda_end": 0.5}  # alpha and lambda_hat differ step by step
OPTIONS = {
    "dnn": [{}]
    + [{"activation": name} for name in ("leaky_relu", "tanh", "softplus", "silu", "identity")],
    "adasparse": [{"ratio": ratio} | SCHEDULE for ratio in ("batch", "per_sample")]
    + [{"prune": "binarization", "binarize_grad": how} for how in ("ste", "soft", "zero")]
    + [{"prune": "scaling"}, {"fusion_grad": "ste"}, {"prune_input": "agnostic_only"}]
    + [{"prune_input": "none"}, {"lambda_detach": True}, {"sparsity_weight": 0.0}],
    "apg": [{"condition": condition} for condition in ("group", "self", "mix")]
    + [{"over_rank": None}, {"generator_hidden": (3,)}, {"generate_bias": True}]
    + [{"form": "textbook"}, {"activation": "tanh"}],
    "ple": [{"n_specific": 2}, {"n_shared": 0}, {"shared_gate_scope": "own"}]
    + [{"expert_layers": (n,)} for n in (1, 2)]
    + [{}, {"gate_bias": False}, {"activation": "tanh"}],
    "star": [{}, {"pn": "none"}, {"aux": False}, {"aux_norm": True}, {"specific_init": "glorot"}],
    "pepnet": [{"towers": towers} for towers in ("shared", "per_scenario")]
    + [{"gate_at": "layer_input"}, {"ep_input": "agnostic"}]
    + [{"prior_scenario": True}, {"gate_hidden": None}],
    "optmsm": [{"combine": combine} for combine in ("attention", "select")]
    + [{"combine": "select", "orth_weight": 0.0}, {"orth_on": "gram"}]
    + [{"hyper": "low_rank"}, {"hyper_input": "aware"}],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


def steps(model, tiles, n=5):
    """What steps on new rows give, and the buffers after them; parameters change in place."""
    rng = generator(2)
    params, found = perturbed_params(model, rng), []
    for _ in range(n):
        batch = small_batch(rng, N_ROWS)
        result = training_step(model, CROSS_ENTROPIES["full"], params, batch, {}, tiles=tiles)
        grads = {k: x.copy() for k, x in tree_flatten(dense_gradients(result.grads)).items()}
        found.append(grads | {"z": result.output.logit.copy()} | result.losses)
        leaves = tree_flatten(params)
        for path, g in grads.items():
            leaves[path] -= 0.1 * g / (1.0 + np.abs(g).max())  # APG's are large
        if hasattr(model, "advance"):  # its buffers are other arrays in every step
            params = model.advance(params, result.cache)
            leaves = tree_flatten(params)
            found[-1] |= {path: leaves[path].copy() for path in model.buffers}
        del result
    return found


def passes(tiles):
    """What the memories of ``tiles`` have recorded, one list per shape of a tile."""
    return [p for memory in tiles._memories for p in memory._passes.values()]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_bits_are_those_of_the_pass_itself(monkeypatch, name, options):
    """Of a batch as a whole, whatever the tiles; buffers are other arrays in every step."""
    pytest.importorskip("numba", reason="without compiled loops nothing is recorded")
    model, tiles = small_model(name, **options), Tiles(5)
    with compiled_loops("compiled"):
        got = steps(model, tiles)
        monkeypatch.setattr(tiles_module, "_fixed", lambda *_: [])
        want = steps(model, Tiles(5))
    for g, w in zip(got, want, strict=True):
        assert g.keys() == w.keys()
        for key in g:
            np.testing.assert_array_equal(g[key], w[key], err_msg=key)
    (taken,) = passes(tiles)
    assert taken.is_recordable and taken._recordings[0].is_proven


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_a_whole_batch_is_never_cut(name, options):
    """With threads it is one tile too, and in the memory that the step before has used."""
    model, tiles = small_model(name, **options), Tiles(4, 3)
    for got, want in zip(steps(model, tiles), steps(model, None), strict=True):
        assert got.keys() == want.keys()
        for key in got:
            np.testing.assert_array_equal(got[key], want[key], err_msg=key)
    assert threads_of_blas(model, 6) == 6


@pytest.mark.parametrize("name", ["ple", "star"])
def test_a_batch_of_as_many_scenarios_as_rows(name):
    """Where the rows of a scenario begin is one number more than there are rows."""
    model, rng = small_model(name), generator(3)
    params, batch = perturbed_params(model, rng), small_batch(rng, model.n_scenarios)
    batch = batch._replace(scenario=np.arange(model.n_scenarios)[::-1])
    step = model, CROSS_ENTROPIES["full"], params, batch, {}
    got, want = (training_step(*step, tiles=tiles) for tiles in (Tiles(), None))
    assert np.array_equal(got.output.logit, want.output.logit)
    grads = tree_flatten(dense_gradients(want.grads))
    for path, gradient in tree_flatten(dense_gradients(got.grads)).items():
        np.testing.assert_array_equal(gradient, grads[path], err_msg=path)


def test_many_rows_are_not_recorded(monkeypatch):
    pytest.importorskip("numba", reason="without compiled loops nothing is recorded")
    monkeypatch.setattr(tiles_module, "MOST_RECORDED", N_ROWS - 1)
    tiles = Tiles()
    with compiled_loops("compiled"):
        steps(small_model("dnn"), tiles)
    assert not passes(tiles)


def test_a_class_with_passes_of_its_own_is_not_cut():
    """Its ``forward`` would not be called, or its ``advance`` would be given no cache."""

    class Doubled(DNN):
        def forward(self, params, batch, **options):
            output, cache = super().forward(params, batch, **options)
            return output._replace(logit=2.0 * output.logit), cache

    class Counting(DNN):
        def advance(self, params, cache):
            return params

    class Renamed(AdaSparse):
        pass

    sizes = {"vocab_sizes": (3, 5, 4), "n_aware": 2, "n_scenarios": 4}
    assert not takes_tiles(Doubled(**sizes)) and not takes_tiles(Counting(**sizes))
    assert takes_tiles(Renamed(**sizes))
    got, want = (steps(Doubled(**sizes), tiles) for tiles in (Tiles(4), None))
    np.testing.assert_array_equal(got[0]["z"], want[0]["z"])


def test_the_shapes_that_come_most_are_recorded():
    """Batches that miss scenarios come first; those that have all of them take their place."""
    pytest.importorskip("numba", reason="without compiled loops nothing is recorded")
    model, tiles, rng = small_model("star"), Tiles(), generator(5)
    params, batch = perturbed_params(model, rng), small_batch(rng, N_ROWS)

    def step_on(*present):
        scenario = np.array(present)[np.arange(N_ROWS) % len(present)]
        some = batch._replace(scenario=scenario)
        training_step(model, CROSS_ENTROPIES["full"], params, some, {}, tiles=tiles)
        recorded = (shape for memory in tiles._memories for shape in memory._passes)
        return sorted(shape[4][0] for shape in recorded)  # behind rows, X, order, place: ids (M,)

    with compiled_loops("compiled"):
        assert step_on(0) == [1] and step_on(0, 1) == [1, 2]
        assert step_on(0, 1, 2) == step_on(0, 1, 2) == [1, 2]
        assert step_on(0, 1, 2) == [2, 3]
