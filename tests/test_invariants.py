"""What must hold for every model, whatever its options (derivations 11)."""

from copy import copy

import numpy as np
import pytest
from small import (
    SMALL_MODELS,
    arrays_in,
    assert_close,
    named_model,
    partners,
    small_batch,
    small_model,
)
from strategies import generator
from systems import SYSTEMS

from midpg_np.batch import Batch
from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import ModelOutput, model_name
from midpg_np.ops import ACTIVATIONS
from midpg_np.training.step import rows_read, training_step
from midpg_np.tree import tree_add, tree_flatten, tree_map

CROSS_ENTROPY = CROSS_ENTROPIES["full"]


def setting(name, n_rows=9, seed=3):
    """Model, parameters away from their start, batch and draws."""
    model, rng = named_model(name), generator(seed)
    params, batch = perturbed_params(model, rng), small_batch(rng, n_rows)
    return model, params, batch, {"partner": partners(rng, n_rows)}


def rows_of(batch, rows):
    return Batch(*(part[rows] for part in batch))


def gradient(model, params, batch, draws, d_logit, d_mi):
    output, cache = model.forward(params, batch, draws=draws)
    d_auxiliary = {name: d_mi for name in output.auxiliary}
    grads = model.backward(ModelOutput(d_logit, d_auxiliary), cache)
    return output, dense_gradients(grads)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_embedding_table_gets_a_row_gradient_in_the_dtype_of_the_parameters(name):
    model, params, batch, draws = setting(name)
    for dtype in (np.float32, np.float64):
        leaves = tree_map(lambda leaf, dtype=dtype: leaf.astype(dtype), params)
        batch = batch._replace(label=batch.label.astype(dtype))
        step = training_step(model, CROSS_ENTROPY, leaves, batch, draws)
        rows = step.grads["embedding"]["table"]
        assert isinstance(rows, RowGradient)
        assert (np.diff(rows.ids) > 0).all()
        assert rows.n_rows == len(params["embedding"]["table"])
        assert {array.dtype for array in arrays_in(dense_gradients(step.grads))} == {
            np.dtype(dtype)
        }
        assert {np.asarray(loss).dtype for loss in step.losses.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_rows_of_every_table_are_named_before_they_are_read(name):
    """A table that nobody names is right too, but each step then costs the whole table."""
    model, params, batch, draws = setting(name)
    step = training_step(model, CROSS_ENTROPY, params, batch, draws)
    rows = rows_read(model, batch)
    tables = {k: g for k, g in tree_flatten(step.grads).items() if k.split(".")[-1] == "table"}
    assert rows.keys() == tables.keys()
    for path, gradient in tables.items():
        assert np.array_equal(np.unique(rows[path]), gradient.ids), path


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_corner_of_a_relu_is_among_the_kinks(name, monkeypatch):
    """A corner that the checks do not know of is one that they may step across."""
    model, params, batch, draws = setting(name)
    relu, seen = ACTIVATIONS["relu"], []
    recording = relu._replace(forward=lambda x: seen.append(x) or relu.forward(x))
    monkeypatch.setitem(ACTIVATIONS, "relu", recording)
    kinks = model.kinks(model.forward(params, batch, draws=draws)[1]).values()
    known = np.concatenate([np.zeros(0), *(kink.reshape(-1) for kink in kinks)])
    for x in seen:
        assert np.isin(x, known).all(), x.shape


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_permuting_the_batch_permutes_the_outputs(name):
    model, params, batch, draws = setting(name)
    order = generator(4).permutation(batch.n_rows)
    position = np.argsort(order)  # where each old row has gone
    moved = {"partner": position[draws["partner"][order]]}
    d_logit = generator(5).normal(size=batch.n_rows)
    output, grads = gradient(model, params, batch, draws, d_logit, 0.7)
    output_moved, grads_moved = gradient(
        model, params, rows_of(batch, order), moved, d_logit[order], 0.7
    )
    assert_close({"logit": output_moved.logit[position]}, {"logit": output.logit})
    assert_close(output_moved.auxiliary, output.auxiliary)
    assert_close(tree_flatten(grads_moved), tree_flatten(grads))


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_prediction_does_not_depend_on_its_companions(name):
    model, params, batch, draws = setting(name)
    together = model.forward(params, batch)[0].logit
    alone = [model.forward(params, rows_of(batch, [i]))[0].logit[0] for i in range(batch.n_rows)]
    subset = model.forward(params, rows_of(batch, [7, 2, 2]))[0].logit
    assert_close({"alone": np.array(alone)}, {"alone": together})
    assert_close({"subset": subset}, {"subset": together[[7, 2, 2]]})
    training = model.forward(params, batch, draws=draws)[0].logit
    if SYSTEMS[SMALL_MODELS[name][0]].training_differs(model):
        assert not np.allclose(training, together)
    else:
        assert_close({"training": training}, {"training": together}, tol=0.0)


def cycle_within(parts, n_rows):
    """Partners that stay inside their part: a cycle over the rows of each."""
    partner = np.arange(n_rows)
    for rows in parts:
        partner[rows] = np.roll(rows, 1)
    return partner


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_gradient_of_a_sum_is_the_sum_over_the_parts(name):
    """The cut leaves scenarios whole: statistics of a batch are taken inside each of them."""
    model, params, batch, _ = setting(name)
    parts = [np.flatnonzero(batch.scenario == 1), np.flatnonzero(batch.scenario != 1)]
    partner = cycle_within(parts, batch.n_rows)
    d_logit = generator(6).normal(size=batch.n_rows)
    is_mean = not SYSTEMS[SMALL_MODELS[name][0]].not_additive(model)
    _, whole = gradient(model, params, batch, {"partner": partner}, d_logit, 9.0 * is_mean)
    summands = [
        gradient(
            model,
            params,
            rows_of(batch, rows),
            {"partner": np.searchsorted(rows, partner[rows])},
            d_logit[rows],
            float(len(rows)) * is_mean,  # an auxiliary term is a mean over the batch
        )[1]
        for rows in parts
    ]
    assert_close(tree_flatten(tree_add(*summands)), tree_flatten(whole))


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_code_that_is_absent_gets_no_gradient(name):
    model, params, batch, draws = setting(name)
    codes = batch.codes.copy()
    codes[:, 0] = np.minimum(codes[:, 0], 1)  # code 2 of field 0 does not occur
    _, grads = gradient(model, params, batch._replace(codes=codes), draws, np.ones(9), 1.0)
    assert not grads["embedding"]["table"][2].any()


def owned_by_scenario(model, grads):
    """Gradients of the parameters whose first axis is the scenario."""
    beginnings = SYSTEMS[model_name(model)].owned(model)
    leaves = tree_flatten(grads)
    for beginning in beginnings:
        assert any(path.startswith(beginning) for path in leaves), f"no parameter {beginning}"
    return {path: g for path, g in leaves.items() if path.startswith(beginnings)}


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_scenario_that_is_absent_does_not_learn(name):
    """Scenario 2 has no rows: what it owns has gradient exactly zero, and 0 and 1 learn."""
    model, params, batch, draws = setting(name)
    d_logit = generator(5).normal(size=batch.n_rows)
    _, grads = gradient(model, params, batch, draws, d_logit, 1.0)
    owned = owned_by_scenario(model, grads)
    for path, g in owned.items():
        assert len(g) == model.n_scenarios, path
        assert not g[2].any(), path
        assert g[0].any() and g[1].any(), path
    if getattr(model, "routes_by_scenario", False):
        assert owned
    else:  # the id is not read at all
        relabelled = batch._replace(scenario=np.zeros(9, dtype=int))
        same = gradient(model, params, relabelled, draws, d_logit, 1.0)[1]
        assert_close(tree_flatten(same), tree_flatten(grads), tol=0.0)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_parameter_moves(name):
    model, rng = named_model(name), generator(7)
    params, batch = model.init(rng), small_batch(rng, n_rows=60)
    batch = batch._replace(scenario=np.arange(60) % model.n_scenarios)
    draws = model.draw(rng, batch)
    step = training_step(model, CROSS_ENTROPY, params, batch, draws)
    grads = tree_flatten(dense_gradients(step.grads))
    buffers, system = set(getattr(model, "buffers", ())), SYSTEMS[SMALL_MODELS[name][0]]
    assert grads.keys() == tree_flatten(params).keys() - buffers
    still = {path for path, g in grads.items() if not g.any()}
    assert still == system.structural_zeros(model)
    for path, g in owned_by_scenario(model, step.grads).items():
        g = g.dense() if hasattr(g, "dense") else g
        assert path in still or g.reshape(model.n_scenarios, -1).any(axis=1).all(), path


@pytest.mark.parametrize(
    ("options", "learners"),
    [
        ({"mi_grad_to": "disc"}, {"discriminators"}),
        ({"mi_grad_to": "disc+gen"}, {"discriminators", "weighting"}),
        ({"mi_grad_to": "disc+gen", "disc_input": "factors"}, {"discriminators", "weighting"}),
        ({"mi_grad_to": "disc+gen", "disc_scope": "concat"}, {"discriminators", "weighting"}),
    ],
)
def test_no_gradient_behind_a_stop_gradient(options, learners):
    """Zero by construction, not small: with the cross-entropy off, only the learners move."""
    model, rng = small_model("midpg", **options), generator(8)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    draws = {"partner": partners(rng, 9)}
    _, grads = gradient(model, params, batch, draws, np.zeros(9), 1.0)
    moved = {path for path, g in tree_flatten(grads).items() if g.any()}
    assert {part for path in moved for part in path.split(".") if part in learners} == learners
    assert all(learners & set(path.split(".")) for path in moved)


def test_a_detached_hidden_state_stops_the_generator_of_the_next_layer():
    """Layer 1's W learns from the regulariser of layer 2 only through U = [E_aw, H]."""
    reached = {}
    for detach in (False, True):
        model, rng = small_model("midpg", dwm_detach_h=detach), generator(9)
        params, batch = perturbed_params(model, rng), small_batch(rng)
        draws = {"partner": partners(rng, 9)}
        _, grads = gradient(model, params, batch, draws, np.zeros(9), 1.0)
        reached[detach] = grads["layer_1"]["W"].any()
    assert reached == {False: True, True: False}


def test_a_detached_context_leaves_the_discriminators_as_they_are():
    results = []
    for detach in (False, True):
        model, rng = small_model("midpg", mi_detach_context=detach), generator(10)
        params, batch = perturbed_params(model, rng), small_batch(rng)
        draws = {"partner": partners(rng, 9)}
        results.append(gradient(model, params, batch, draws, np.zeros(9), 1.0)[1])
    attached, detached = map(tree_flatten, results)
    differ = {path for path in attached if not np.array_equal(attached[path], detached[path])}
    assert differ == {"embedding.table"}


@pytest.mark.parametrize("variant", ["r", "c", "rc", "non"])
def test_gain_2_with_silent_generators_is_a_plain_network(variant):
    """derivations 11: the last generator layer zero and gain 2 give S = 1, the DNN's network."""
    model, rng = small_model("dpg", variant=variant, gain=2.0), generator(11)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    for name in ("layer_1", "layer_2"):
        for generator_params in params[name]["weighting"].values():
            if isinstance(generator_params, dict):
                last = generator_params["layer_2"]
                last["W"], last["b"] = 0.0 * last["W"], 0.0 * last["b"]
    mlp = {
        key: {"W": params[name]["W"], "b": params[name]["b"]}
        for key, name in zip(
            ("layer_1", "layer_2", "layer_3"), ("layer_1", "layer_2", "head"), strict=True
        )
    }
    dnn = small_model("dnn")
    want = dnn.forward({"embedding": params["embedding"], "mlp": mlp}, batch)[0].logit
    assert_close({"logit": model.forward(params, batch)[0].logit}, {"logit": want})


def test_dpg_is_the_serving_path_of_midpg():
    midpg, dpg = small_model("midpg"), small_model("dpg")
    params, plain = midpg.init(generator(12)), dpg.init(generator(12))
    discriminators = copy(params).pop("discriminators")
    assert discriminators.keys() == {"layer_1", "layer_2"}
    batch = small_batch(generator(13))
    for path, leaf in tree_flatten(plain).items():
        assert np.array_equal(tree_flatten(params)[path], leaf)
    want = dpg.forward(plain, batch)[0].logit
    assert np.array_equal(midpg.forward(params, batch)[0].logit, want)
