"""STAR: what it becomes at special settings, sizes and options (derivations 6, 11, 12)."""

from dataclasses import asdict

import numpy as np
import pytest
from small import assert_close, small_batch, small_model, training_case
from strategies import generator
from systems import SYSTEMS

from midpg_np.checks import check_gradients, dense_gradients, perturbed_params
from midpg_np.models import make_model
from midpg_np.tree import tree_copy, tree_flatten

FULL = {"vocab_sizes": (10,) * 16, "n_aware": 2, "n_scenarios": 10}


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
    """At its initial values it is the shared network on inputs scaled to variance 1."""
    star, dnn, rng = small_model("star", aux=False, eps=1e-30), small_model("dnn"), generator(2)
    params, batch = star.init(rng), small_batch(rng)
    shared = {name: layer["shared"] for name, layer in params["star"].items()}
    scaled = {"table": params["embedding"]["table"] / 0.01}
    want = dnn.forward({"embedding": scaled, "mlp": shared}, batch)[0]
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
    assert (cache.network.z_main == -10.0).all()
    assert (z == -20.0).all()


def test_scales_multiply_and_shifts_add():
    """gamma = 2 and gamma_d = 3 are six, beta = 2 and beta_d = 3 are five."""
    model, rng = small_model("star"), generator(5)
    params, batch = model.init(rng), small_batch(rng)
    norm = params["norm"]
    norm["gamma"][...], norm["scenario_gamma"][...] = 2.0, 3.0
    norm["beta"][...], norm["scenario_beta"][...] = 2.0, 3.0
    _, cache = train(model, params, batch)
    c = cache.network
    assert_close({"V": c.V}, {"V": 6.0 * c.norm.X_hat + 5.0}, tol=1e-14)


def test_gradients_at_the_default_eps():
    """Differences would feel the bend of 1 / sqrt(nu + 1e-5); the complex step does not."""
    case = training_case(small_model("star", eps=1e-5, aux_norm=True), generator(6))
    check_gradients(case, generator(7), differences=False).raise_if_wrong()


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
    """derivations 6.4, at sizes that are all different."""
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
    for key in ("gamma", "scenario_gamma"):
        assert (norm[key] == 1.0).all()
    assert (norm["variance"] == 0.01**2).all()  # of freshly drawn embeddings
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
