"""AdaSparse: reductions to other models, the schedule, what pruned neurons learn, counts."""

import numpy as np
import pytest
from small import assert_close, small_batch, small_model
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import ModelOutput, make_model
from midpg_np.training.checkpoint import load_model, save_model
from midpg_np.training.step import training_step
from midpg_np.tree import tree_flatten, tree_map, tree_set

CROSS_ENTROPY = CROSS_ENTROPIES["full"]
SIXTEEN_FIELDS = {"vocab_sizes": (5,) * 16, "n_aware": 2, "n_scenarios": 10}


def setting(seed=1, **options):
    model, rng = small_model("adasparse", **options), generator(seed)
    return model, perturbed_params(model, rng), small_batch(rng)


def gradients(model, params, batch, d_logit, d_sparsity):
    output, cache = model.forward(params, batch, draws={})
    d_auxiliary = {name: d_sparsity for name in output.auxiliary}
    return tree_flatten(dense_gradients(model.backward(ModelOutput(d_logit, d_auxiliary), cache)))


# --- other models --------------------------------------------------------------------------------


@pytest.mark.parametrize("prune_input", ["all", "agnostic_only", "none"])
@pytest.mark.parametrize("prune", ["scaling", "fusion"])
def test_silent_pruners_make_a_plain_network(prune, prune_input):
    """derivations 11: Q = q = 0 and beta 2 give pi = 1, the DNN's network, to the bit."""
    model, params, batch = setting(prune=prune, beta=2.0, prune_input=prune_input)
    for name in model.layers:
        params[name]["pruner"] = tree_map(np.zeros_like, params[name]["pruner"])
    names = dict(zip(("layer_1", "layer_2", "layer_3"), model.shapes, strict=True))
    mlp = {key: {part: params[name][part] for part in "Wb"} for key, name in names.items()}
    dnn = small_model("dnn")
    want, cache = dnn.forward({"embedding": params["embedding"], "mlp": mlp}, batch)
    assert np.array_equal(model.forward(params, batch)[0].logit, want.logit)
    d_logit = generator(2).normal(size=9)
    expected = tree_flatten(dense_gradients(dnn.backward(ModelOutput(d_logit, {}), cache)))
    found = gradients(model, params, batch, d_logit, 0.0)
    for key, name in names.items():
        for part in "Wb":
            assert np.array_equal(found[f"{name}.{part}"], expected[f"mlp.{key}.{part}"])
    assert np.array_equal(found["embedding.table"], expected["embedding.table"])


def test_scaling_is_an_input_gate_of_dpg():
    """derivations 11: d_c = d_k = 1, d_r = d_m, linear generators, beta = rho."""
    shape = {"hidden": (12,), "prune": "scaling", "beta": 1.7}
    model, params, batch = setting(**shape)
    dpg = small_model(
        "dpg",
        hidden=(12,),
        modulate_output=True,
        row_divisor=1,
        col_divisor=12,
        d_k=1,
        generator_hidden=(),
        gain=1.7,
    )
    theirs = {"embedding": params["embedding"]}
    for name in ("layer_1", "head"):
        weighting = {
            "row_generator": {"layer_1": params[name]["pruner"]},
            "C_share": np.ones((1, 1)),
        }
        theirs[name] = {part: params[name][part] for part in "Wb"} | {"weighting": weighting}
    want = dpg.forward(theirs, batch)[0].logit
    assert_close({"logit": model.forward(params, batch)[0].logit}, {"logit": want})


# --- the schedule --------------------------------------------------------------------------------


def alpha_of(model, params, batch, **options):
    return float(
        model.forward(params, batch, **options)[1].network.layers["layer_1"].pruner.alpha[0]
    )


def test_alpha_rises_by_a_step_of_training_and_not_by_predictions():
    model = small_model("adasparse", alpha_start=0.1, alpha_end=5.0, schedule_steps=4)
    params, batch = model.init(generator(3)), small_batch(generator(3))
    for want in (0.1, 1.325, 2.55, 3.775, 5.0, 5.0):
        assert alpha_of(model, params, batch) == pytest.approx(want)
        assert alpha_of(model, params, batch) == pytest.approx(want)
        step = training_step(model, CROSS_ENTROPY, params, batch, {})
        assert step.cache.network.layers["head"].pruner.alpha[0] == pytest.approx(want)
        params = model.advance(params, step.cache)


def test_advance_leaves_the_given_tree_alone():
    model, params, _ = setting()
    before = params["schedule"]["step"].copy()
    after = model.advance(params, None)
    assert np.array_equal(params["schedule"]["step"], before)
    assert np.array_equal(after["schedule"]["step"], before + 1.0)
    assert after["layer_1"] is params["layer_1"]


def test_lambda_hat_follows_its_own_line():
    options = {"r_min": 1.1, "r_max": 1.3, "lambda_start": 0.5, "lambda_end": 2.0}
    model, params, batch = setting(prune="scaling", schedule_steps=2, **options)
    values = []
    for _ in range(4):
        values.append(model.forward(params, batch, draws={})[0].auxiliary["sparsity"])
        params = tree_set(params, "schedule.step", np.array([len(values) * 1.0]))
    np.testing.assert_allclose(values[1:] / values[3], [1.25 / 2.0, 1.0, 1.0])


def test_a_prediction_uses_the_saved_alpha(tmp_path):
    model, params, batch = setting()
    before = model.forward(params, batch)[0].logit
    params = model.advance(params, None)
    want = model.forward(params, batch)[0].logit
    assert not np.allclose(before, want)
    save_model(tmp_path / "model.safetensors", model, params)
    saved = load_model(tmp_path / "model.safetensors")
    assert saved.model == model
    assert np.array_equal(saved.params["schedule"]["step"], params["schedule"]["step"])
    assert np.array_equal(model.forward(saved.params, batch)[0].logit, want)


@pytest.mark.parametrize("prune", ["fusion", "binarization"])
def test_backward_belongs_to_the_alpha_and_the_mask_of_its_forward(prune):
    """Even if the counter is overwritten in place before it runs."""
    model, params, batch = setting(prune=prune)
    want = gradients(model, params, batch, np.ones(9), 1.0)
    _, cache = model.forward(params, batch, draws={})
    params["schedule"]["step"][:] = 1000.0
    grads = model.backward(ModelOutput(np.ones(9), {"sparsity": 1.0}), cache)
    assert_close(tree_flatten(dense_gradients(grads)), want, tol=0.0)


# --- what pruned neurons learn -------------------------------------------------------------------


def with_unit_removed(params):
    """Unit 0 of layer 2's input is pruned in every row."""
    bias = params["layer_2"]["pruner"]["b"].copy()
    bias[0] = -8.0
    return tree_set(params, "layer_2.pruner.b", bias)


@pytest.mark.parametrize(
    ("options", "learns"),
    [
        ({"fusion_grad": "exact"}, False),
        ({"fusion_grad": "ste"}, True),
        ({"prune": "binarization"}, True),
        ({"prune": "binarization", "binarize_grad": "zero"}, False),
    ],
)
def test_a_unit_pruned_in_every_row_recovers_only_straight_through(options, learns):
    """From either term of the loss.  With tanh no unit is zero for another reason."""
    model, params, batch = setting(**options, r_min=-0.9, r_max=-0.8, activation="tanh")
    params = with_unit_removed(params)
    for d_logit, d_sparsity in ((np.ones(9), 0.0), (np.zeros(9), 1.0)):
        found = gradients(model, params, batch, d_logit, d_sparsity)
        assert found["layer_2.pruner.W"][:, 0].any() == learns
        assert bool(found["layer_2.pruner.b"][0]) == learns


def test_the_true_derivative_of_a_threshold_teaches_pruners_nothing():
    model, params, batch = setting(prune="binarization", binarize_grad="zero")
    found = gradients(model, params, batch, np.ones(9), 1.0)
    pruners = [path for path in found if ".pruner." in path]
    assert len(pruners) == 6
    assert not any(found[path].any() for path in pruners)
    assert found["layer_1.W"].any()


@pytest.mark.parametrize("options", [{}, {"prune": "scaling"}, {"prune": "binarization"}])
@pytest.mark.parametrize(("interval", "goes"), [((1.1, 1.3), "up"), ((-1.9, -1.5), "down")])
def test_the_regulariser_alone_moves_r_towards_its_interval(options, interval, goes):
    model, params, batch = setting(**options, r_min=interval[0], r_max=interval[1])
    found = gradients(model, params, batch, np.zeros(9), 1.0)
    for name in model.layers:  # a rising bias raises the factors, and lowers r
        d_bias = found[f"{name}.pruner.b"]
        assert (d_bias >= 0).all() if goes == "up" else (d_bias <= 0).all()
        assert d_bias.any()


def test_inside_the_interval_nothing_learns_from_the_regulariser():
    model, params, batch = setting(r_min=-1.0, r_max=1.0)
    output, _ = model.forward(params, batch, draws={})
    assert output.auxiliary["sparsity"] == 0.0
    found = gradients(model, params, batch, np.zeros(9), 1.0)
    assert not any(g.any() for g in found.values())


# --- loss, initial values, options ---------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_regulariser_is_part_of_the_loss(weight):
    model, params, batch = setting(sparsity_weight=weight)
    losses = training_step(model, CROSS_ENTROPY, params, batch, {}).losses
    assert ("sparsity" in losses) == (weight > 0)
    assert losses["loss"] == losses["ce"] + weight * losses.get("sparsity", 0.0)
    assert model.forward(params, batch)[0].auxiliary == {}


def test_training_starts_near_the_plain_network():
    """alpha = 0.1 and small inputs: every factor is near beta / 2 = 1, and none is pruned."""
    model = make_model("adasparse", **SIXTEEN_FIELDS)
    params = model.init(generator(4))
    codes = generator(4).integers(0, 5, size=(50, 16))
    batch = small_batch(generator(4), 50)._replace(codes=codes)
    _, cache = model.forward(params, batch, draws={})
    for c in cache.network.layers.values():
        assert c.pruner.alpha == pytest.approx(0.1)
        assert np.abs(c.pi - 1.0).max() < 0.02
        assert c.pruner.is_kept.all()
    assert params["schedule"]["step"].tolist() == [0.0]
    assert not params["layer_1"]["pruner"]["b"].any()
    assert params["layer_1"]["pruner"]["W"].shape == (16 + 128, 128)


@pytest.mark.parametrize(
    ("options", "serving", "multiply_adds"),
    [
        ({}, 70753, 70176),
        ({"prune": "binarization"}, 70753, 70176),
        ({"prune_input": "agnostic_only"}, 68433, 67872),
        ({"prune_input": "none"}, 52193, 51744),
    ],
)
def test_parameter_counts(options, serving, multiply_adds):
    count = make_model("adasparse", **SIXTEEN_FIELDS, **options).count_params()
    assert count == (serving, 0, 5 * 16 * 8, multiply_adds, 1)


def test_without_pruners_on_the_input_x_is_left_alone():
    model, params, batch = setting(prune_input="none")
    assert list(model.layers) == ["layer_2", "head"]
    _, cache = model.forward(params, batch, draws={})
    want = cache.network.X @ params["layer_1"]["W"] + params["layer_1"]["b"]
    assert np.array_equal(cache.network.layers["layer_1"].A, want)
    assert list(cache.network.sparsity) == ["layer_2", "head"]


def test_only_agnostic_inputs_are_pruned():
    model, params, batch = setting(prune_input="agnostic_only")
    _, cache = model.forward(params, batch)
    c = cache.network.layers["layer_1"]
    assert c.pi.shape == (9, 2)
    assert np.array_equal(c.affine.x[:, :4], cache.network.E_aw)
    assert np.array_equal(c.affine.x[:, 4:], cache.network.X[:, 4:] * c.pi)
    assert cache.network.layers["layer_2"].pi.shape == (9, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": "sign"}, "prune must be one of"),
        ({"prune_input": "aware"}, "prune_input must be one of"),
        ({"epsilon": 1.3}, r"epsilon must lie in \(0, 1.3\)"),
        ({"ratio": "row"}, "ratio must be one of"),
        ({"r_min": 0.5}, "r_min must not be above r_max"),
        ({"alpha_start": 0.0}, "alpha_start and alpha_end must be positive"),
        ({"lambda_end": -1.0}, "lambda_end must not be negative"),
        ({"sparsity_weight": -1.0}, "sparsity_weight must not be negative"),
        ({"schedule_steps": 0}, "schedule_steps must lie in"),
        ({"hidden": (), "prune_input": "none"}, "leaves nothing to prune"),
        ({"n_aware": 3, "prune_input": "agnostic_only"}, "leaves nothing to prune"),
        ({"n_aware": 0}, r"n_aware must lie in \[1, 3\]"),
        ({"hidden": (4, 0)}, "hidden must hold widths of at least 1"),
        ({"activation": "step"}, "activation must be one of"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        small_model("adasparse", **options)
