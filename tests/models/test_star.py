"""STAR: what it becomes at special settings, moving statistics, sizes (equations.md 6, 11, 12)."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from small import assert_close, small_batch, small_model, training_case
from strategies import generator
from systems import SYSTEMS
from wrong_kinds import small_copy
from wrong_systems.star import WRONG_ADVANCES

from midpg_np.checks import check_gradients, dense_gradients, perturbed_params
from midpg_np.data.batches import Dataset
from midpg_np.models import make_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit
from midpg_np.training.optim import Adam
from midpg_np.training.step import rows_read
from midpg_np.tree import tree_astype, tree_copy, tree_flatten

torch = pytest.importorskip("torch", reason="the independent reference needs PyTorch")

from torch_reference import star as reference  # noqa: E402
from torch_reference.comparison import (  # noqa: E402
    as_tensors,
    deviation,
    moved,
    random_batch,
    reference_step,
)

FULL = {"vocab_sizes": (10,) * 16, "n_aware": 2, "n_scenarios": 10}
# Of 4 scenarios: 0 has five rows, 1 three, 3 one and 2 none.
SCENARIO = np.array([0, 1, 0, 0, 1, 3, 0, 1, 0])
BATCHES = (SCENARIO, np.array([3, 1, 3, 0]), np.arange(4))


def train(model, params, batch):
    """Logits of a training step, and its cache."""
    output, cache = model.forward(params, batch, draws={})
    return output.logit, cache


def silenced(params):
    """Parameters with the last layer of the auxiliary network at zero."""
    params = tree_copy(params)
    last = list(params["aux"]["mlp"].values())[-1]
    last["W"][...], last["b"][...] = 0.0, 0.0
    return params


# --- special settings ----------------------------------------------------------------------------


@pytest.mark.parametrize("aux", [True, False])
def test_star_becomes_dnn(aux):
    """W_d = 1, b_d = 0, no normalisation, auxiliary head zero: values and shared gradients."""
    star, dnn, rng = small_model("star", pn="none", aux=aux), small_model("dnn"), generator(1)
    params, batch = perturbed_params(star, rng), small_batch(rng)
    for layer in params["star"].values():
        layer["scenario"]["W"][...], layer["scenario"]["b"][...] = 1.0, 0.0
    params = silenced(params) if aux else params
    shared = {name: layer["shared"] for name, layer in params["star"].items()}
    plain = {"embedding": params["embedding"], "mlp": shared}
    for draws in (None, {}):
        output, cache = star.forward(params, batch, draws=draws)
        want, c_dnn = dnn.forward(plain, batch)
        assert_close({"z": output.logit}, {"z": want.logit}, tol=1e-14)
        grads = dense_gradients(star.backward(output, cache))
        g_dnn = dense_gradients(dnn.backward(want, c_dnn))
        got = {name: layer["shared"] for name, layer in grads["star"].items()}
        assert_close(tree_flatten(got), tree_flatten(g_dnn["mlp"]))
        assert_close(grads["embedding"], g_dnn["embedding"])


def test_a_scenario_never_trained_is_predicted_by_the_shared_network():
    """At its initial values (factors 1, moving mean 0 and variance 1) it adds nothing."""
    star, dnn, rng = small_model("star", aux=False, eps=1e-30), small_model("dnn"), generator(2)
    params, batch = star.init(rng), small_batch(rng)
    shared = {name: layer["shared"] for name, layer in params["star"].items()}
    want = dnn.forward({"embedding": params["embedding"], "mlp": shared}, batch)[0]
    got = star.forward(params, batch)[0]
    assert_close({"z": got.logit}, {"z": want.logit}, tol=1e-14)


def test_without_memory_prediction_repeats_the_training_step():
    """Momentum 0 keeps the last batch's statistics, so the same batch gets the same logits."""
    model, rng = small_model("star", momentum=0.0, aux_norm=True), generator(3)
    batch = small_batch(rng)._replace(scenario=np.array([0, 1, 0, 0, 1, 3, 0, 3, 0]))
    params = perturbed_params(model, rng)
    z, cache = train(model, params, batch)
    assert not np.allclose(model.forward(params, batch)[0].logit, z)
    params = model.advance(params, cache)
    assert_close({"z": model.forward(params, batch)[0].logit}, {"z": z}, tol=1e-14)


def test_logits_are_summed_and_the_main_one_has_no_activation():
    """Both driven to -10 give -20; a sum of probabilities would give about -9.3."""
    model, rng = small_model("star"), generator(4)
    params, batch = silenced(model.init(rng)), small_batch(rng)
    params["aux"]["mlp"]["layer_2"]["b"][...] = -10.0
    last = params["star"]["layer_3"]
    last["shared"]["W"][...], last["shared"]["b"][...] = 0.0, -10.0
    z, cache = train(model, params, batch)
    assert (cache.z_main == -10.0).all()
    assert (z == -20.0).all()


def test_scales_multiply_and_shifts_add():
    """gamma = 2 and gamma_d = 3 are six, beta = 2 and beta_d = 3 are five."""
    model, rng = small_model("star"), generator(5)
    params, batch = model.init(rng), small_batch(rng)
    norm = params["norm"]
    norm["gamma"][...], norm["scenario_gamma"][...] = 2.0, 3.0
    norm["beta"][...], norm["scenario_beta"][...] = 2.0, 3.0
    _, cache = train(model, params, batch)
    assert_close({"V": cache.V}, {"V": 6.0 * cache.norm.X_hat + 5.0}, tol=1e-14)


def test_gradients_at_the_default_eps():
    """Differences would feel the bend of 1 / sqrt(nu + 1e-5); the complex step does not."""
    case = training_case(small_model("star", eps=1e-5, aux_norm=True), generator(6))
    check_gradients(case, generator(7), differences=False).raise_if_wrong()


# --- moving statistics ---------------------------------------------------------------------------


def advance_deviation(model, options, seed):
    """Largest deviation of the moving statistics from the reference after some steps."""
    rng = np.random.default_rng(seed)
    params = moved(model, rng)
    leaves = tree_flatten(as_tensors(params))
    worst = 0.0
    for scenario in BATCHES:
        batch = random_batch(rng, model, scenario)
        expected = reference_step("star", options, as_tensors(params), batch, {"partner": scenario})
        params = model.advance(params, train(model, params, batch)[1])
        new = reference.advance(leaves, expected.intermediates, options)
        assert new.keys() == set(model.buffers)
        leaves |= {path: leaf.detach() for path, leaf in new.items()}
        ours = tree_flatten(params)
        worst = max([worst, *(deviation(ours[path], leaf) for path, leaf in new.items())])
    return worst


@pytest.mark.parametrize("options", [{}, {"aux_norm": True}, {"momentum": 0.5}])
def test_moving_statistics_agree_with_the_reference(options):
    model = small_model("star", **options)
    for seed in range(20):
        assert advance_deviation(model, SimpleNamespace(**asdict(model)), seed) <= 1e-12


@pytest.mark.parametrize("name", WRONG_ADVANCES)
def test_wrong_moving_statistics_are_rejected_in_every_draw(name):
    model = small_copy(WRONG_ADVANCES[name], {})
    for seed in range(20):
        assert advance_deviation(model, SimpleNamespace(**asdict(model)), seed) > 1e-6, seed


def test_forward_moves_nothing_and_advance_only_the_statistics():
    model, rng = small_model("star", aux_norm=True), generator(8)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    before = tree_flatten(tree_copy(params))
    first = model.forward(params, batch)[0].logit
    _, cache = train(model, params, batch)
    assert np.array_equal(model.forward(params, batch)[0].logit, first)
    after = tree_flatten(model.advance(params, cache))
    for path, leaf in tree_flatten(params).items():
        assert np.array_equal(leaf, before[path]), path
    changed = {path for path, leaf in after.items() if not np.array_equal(leaf, before[path])}
    assert changed == set(model.buffers)
    for path in changed:  # scenario 2 is absent, 3 has one row
        assert np.array_equal(after[path][2:], before[path][2:])


# --- training ------------------------------------------------------------------------------------


def steps(model, table_mode, dtype=np.float32):
    """Parameters after eight steps on batches that lack some codes and scenarios."""
    rng, adam = generator(9), Adam(lr=1e-2, table_mode=table_mode)
    params = tree_astype(model.init(rng), dtype)
    state = adam.init(params, model.buffers)
    for n_rows in (9, 2, 3, 9, 1, 4, 2, 9):
        batch = small_batch(rng, n_rows, dtype)
        adam.prepare(params, state, rows_read(model, batch))
        output, cache = model.forward(params, batch, draws={})
        adam.update(params, model.backward(output, cache), state)
        params = model.advance(params, cache)
    adam.settle(params, state)
    return tree_flatten(params), state


@pytest.mark.parametrize("options", [{}, {"aux": False}])
def test_rows_of_both_tables_may_wait(options):
    """``rows_read`` names what forward reads; the deferred steps then have the same bits."""
    model = small_model("star", **options)
    by_table, by_rows = (steps(model, mode)[0] for mode in ("table", "rows"))
    for path, leaf in by_table.items():
        assert np.array_equal(by_rows[path], leaf), path
        assert leaf.dtype == np.float32


def test_the_optimiser_holds_every_parameter_of_every_scenario():
    model = small_model("star", aux_norm=True)
    _, state = steps(model, "table")
    assert state.layout.keys() | state.tables.keys() == (
        tree_flatten(model.init(generator(1))).keys() - set(model.buffers)
    )
    assert state.tables.keys() == {"embedding.table", "aux.domain.table"}


def dataset(n_rows, seed):
    """Three scenarios in which the same field pulls in other directions."""
    rng = generator(seed)
    codes = rng.integers(0, (3, 5, 4), size=(n_rows, 3))
    scenario = codes[:, 0].copy()
    logit = 1.5 * (codes[:, 1] - 2) * (scenario - 1.0)
    label = (rng.random(n_rows) < 1 / (1 + np.exp(-logit))).astype(float)
    return Dataset(
        codes, scenario, label, (3, 5, 4), 1, 3, ("shop", "hour", "item"), ("a", "b", "c")
    )


@pytest.mark.parametrize("table_mode", ["table", "rows"])
def test_a_run_that_is_interrupted_has_the_same_bits(tmp_path, table_mode):
    model = make_model(
        "star", vocab_sizes=(3, 5, 4), n_aware=1, n_scenarios=3, dim_embedding=4, hidden=(8,)
    )
    config = TrainConfig(epochs=3, batch_size=50, checkpoint_every=2, table_mode=table_mode)
    data = dataset(400, 1), dataset(200, 2)

    def interrupt(progress):
        if progress.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, *data, config, run_dir=tmp_path, progress=interrupt)
    resumed = fit(model, *data, config, run_dir=tmp_path, resume=True)
    straight = fit(model, *data, config)
    want = tree_flatten(straight.params)
    for path, leaf in tree_flatten(resumed.params).items():
        assert leaf.tobytes() == want[path].tobytes(), path
    assert (want["norm.variance"] != 1.0).all()


# --- sizes and options ---------------------------------------------------------------------------

AUXILIARY = 10 * 16 + (16 + 128 + 1) * 32 + 33


@pytest.mark.parametrize(
    ("options", "serving", "state", "multiply_adds"),
    [
        ({}, 303_340, 2560, 31_296),
        ({"aux_norm": True}, 303_340 + 2 * 128 * 11, 5120, 31_296),
        ({"pn": "none"}, 303_340 - 2 * 128 * 11, 0, 31_296),
        ({"aux": False}, 303_340 - AUXILIARY, 2560, 26_656),
        ({"pn": "none", "aux": False}, 11 * 26_881, 0, 26_656),
        ({"dim_domain": 4}, 303_340 - 12 * 42, 2560, 31_296 - 12 * 32),
        ({"aux_hidden": ()}, 303_340 - AUXILIARY + 160 + 145, 2560, 26_656 + 144),
    ],
)
def test_parameter_counts(options, serving, state, multiply_adds):
    count = make_model("star", **FULL, **options).count_params()
    assert count == (serving, 0, 16 * 10 * 8, multiply_adds, state)


def test_the_formula_of_the_parameter_count():
    """equations.md 6.4, at sizes that are all different."""
    D, d_0, d_e, a, n = 3, 15, 2, 7, (6, 4)
    model = make_model(
        "star",
        vocab_sizes=(4,) * 5,
        n_aware=1,
        n_scenarios=D,
        dim_embedding=3,
        hidden=n,
        dim_domain=d_e,
        aux_hidden=(a,),
    )
    backbone = (d_0 + 1) * n[0] + (n[0] + 1) * n[1] + n[1] + 1
    auxiliary = D * d_e + (d_e + d_0 + 1) * a + a + 1
    count = model.count_params()
    assert count.serving == 2 * d_0 * (1 + D) + (1 + D) * backbone + auxiliary
    assert count.state == 2 * D * d_0


def test_initial_values():
    model = make_model("star", **FULL)
    params = model.init(generator(1))
    norm = params["norm"]
    for key in ("gamma", "scenario_gamma", "variance"):
        assert (norm[key] == 1.0).all()
    for key in ("beta", "scenario_beta", "mean"):
        assert not norm[key].any()
    assert abs(params["aux"]["domain"]["table"].std() - 0.01) < 0.002
    assert model.buffers == ("norm.mean", "norm.variance")
    assert (model.eps, model.momentum, model.dim_domain) == (1e-5, 0.9, 16)
    both = make_model("star", **FULL, aux_norm=True)
    assert both.buffers == (*model.buffers, "aux.norm.mean", "aux.norm.variance")
    assert make_model("star", **FULL, pn="none", aux=False, aux_norm=True).buffers == ()


def test_a_batch_may_lack_any_scenario():
    model, rng = small_model("star"), generator(10)
    params = perturbed_params(model, rng)
    for scenario in ([2], [0, 0], [3, 1, 2, 0]):
        batch = small_batch(rng, len(scenario))._replace(scenario=np.array(scenario))
        output, cache = model.forward(params, batch, draws={})
        leaves = tree_flatten(dense_gradients(model.backward(output, cache)))
        leaves |= tree_flatten(model.advance(params, cache))
        assert all(np.isfinite(leaf).all() for leaf in leaves.values())


def test_an_unknown_scenario_is_refused():
    model, rng = small_model("star"), generator(11)
    batch = small_batch(rng)._replace(scenario=np.full(9, 4))
    assert model.routes_by_scenario
    with pytest.raises(ValueError, match=r"scenario must lie in \[0, 4\); row 0 .* has 4"):
        model.forward(model.init(rng), batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pn": "batch"}, r"pn must be one of \('partitioned', 'none'\); got 'batch'"),
        ({"specific_init": "zeros"}, "specific_init must be one of .*; got 'zeros'"),
        ({"eps": 0.0}, "eps must be positive; got 0.0"),
        ({"momentum": 2.0}, "momentum must lie in"),
        ({"dim_domain": 0}, "dim_domain must be at least 1; got 0"),
        ({"aux_hidden": (0,)}, "dims must be at least 2 widths"),
        ({"activation": "rellu"}, "activation must be one of"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        small_model("star", **options)


def test_the_options_of_the_tests_are_those_of_the_model():
    walked = SYSTEMS["star"].options.keys() | {"hidden", "dim_embedding"}
    assert asdict(small_model("star")).keys() - walked == {"vocab_sizes", "n_aware", "n_scenarios"}
