"""PLE: what it becomes in special cases, who hears whom, both forms, sizes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import WIDTHS, assert_close, small_batch, small_model
from strategies import generator, seeds

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.models import ModelOutput, make_model
from midpg_np.tree import tree_flatten, tree_map

FULL_WIDTH = {"vocab_sizes": (5,) * 16, "n_aware": 2, "n_scenarios": 10}


def logits(model, params, batch):
    return model.forward(params, batch)[0].logit


def gradients(model, params, batch, d_logit):
    _, cache = model.forward(params, batch, draws={})
    grads = model.backward(ModelOutput(d_logit, {}), cache)
    return tree_flatten(dense_gradients(grads))


# --- special cases --------------------------------------------------------------------------------


def layers_of(model):
    """(level or tower, name of the layer in it) for layer_1, layer_2, ... of the same network."""
    places = [
        (name, f"layer_{i}")
        for name, level in model.levels.items()
        for i in range(1, len(level.dims))
    ]
    return places + [("tower", name) for name in model.tower.layer_names]


def with_the_weights_of(dnn_params, model, params):
    """Give every expert and every tower the weights of a DNN; gates keep theirs."""
    leaves = tree_flatten(params)
    for i, (part, name) in enumerate(layers_of(model), start=1):
        for kind in ("tower.",) if part == "tower" else (f"{part}.specific.", f"{part}.shared."):
            for key, leaf in dnn_params["mlp"][f"layer_{i}"].items():
                path = f"{kind}{name}.{key}"
                if path in leaves:
                    leaves[path][...] = leaf
    params["embedding"] = dnn_params["embedding"]
    return params


@pytest.mark.parametrize("form", ["grouped", "textbook"])
@pytest.mark.parametrize("expert_layers", [(1, 1), (2,), (1, 1, 1)])
def test_one_scenario_and_no_shared_expert_is_a_dnn(expert_layers, form):
    """derivations 11: the concatenation of its experts and tower, gradients included."""
    one = {"n_scenarios": 1, "n_shared": 0, "expert_layers": expert_layers, "form": form}
    model, dnn = small_model("ple", **one), small_model("dnn", hidden=(5, 7, 8))
    dnn_params = perturbed_params(dnn, generator(1))
    params = with_the_weights_of(dnn_params, model, perturbed_params(model, generator(2)))
    batch = small_batch(generator(3))
    batch = batch._replace(scenario=np.zeros(9, dtype=int))
    assert_close({"z": logits(model, params, batch)}, {"z": logits(dnn, dnn_params, batch)}, 1e-13)
    d_logit = generator(4).normal(size=9)
    found, want = (gradients(m, p, batch, d_logit) for m, p in ((model, params), (dnn, dnn_params)))
    for i, (part, name) in enumerate(layers_of(model), start=1):
        prefix = "tower" if part == "tower" else f"{part}.specific"
        for key in ("W", "b"):
            expected = want[f"mlp.layer_{i}.{key}"]
            gradient = found[f"{prefix}.{name}.{key}"].reshape(expected.shape)
            assert_close({key: gradient}, {key: expected}, 1e-13)
    table = "embedding.table"
    assert_close({table: found[table]}, {table: want[table]}, 1e-13)


@pytest.mark.parametrize("scope", ["all", "own"])
@pytest.mark.parametrize("form", ["grouped", "textbook"])
def test_equal_experts_are_a_dnn_whatever_the_gates_say(scope, form):
    """A mixture of equal candidates is that candidate: a gate without softmax would show."""
    options = {"shared_gate_scope": scope, "form": form, "n_specific": 3, "n_shared": 2}
    model, dnn = small_model("ple", **options), small_model("dnn", hidden=(5, 7, 8))
    dnn_params = perturbed_params(dnn, generator(5))
    params = with_the_weights_of(dnn_params, model, perturbed_params(model, generator(6)))
    batch = small_batch(generator(7))
    assert_close({"z": logits(model, params, batch)}, {"z": logits(dnn, dnn_params, batch)}, 1e-13)


def test_without_shared_experts_each_scenario_is_a_dnn_of_its_own():
    model, dnn = small_model("ple", n_shared=0), small_model("dnn", hidden=(5, 7, 8))
    params, batch = perturbed_params(model, generator(8)), small_batch(generator(9))
    z = logits(model, params, batch)
    for k in np.unique(batch.scenario):
        mlp = {}
        for i, (part, name) in enumerate(layers_of(model), start=1):
            own = params["tower"] if part == "tower" else params[part]["specific"]
            place = k if part == "tower" else (k, 0)
            mlp[f"layer_{i}"] = {key: leaf[place] for key, leaf in own[name].items()}
        want = logits(dnn, {"embedding": params["embedding"], "mlp": mlp}, batch)
        rows = batch.scenario == k
        assert_close({"z": z[rows]}, {"z": want[rows]}, 1e-13)


@pytest.mark.parametrize("options", [{"expert_layers": (2,)}, {"n_scenarios": 1}])
def test_where_the_scope_of_the_shared_gate_makes_no_difference(options):
    """CGC has no shared gate, and with one scenario all experts are its own."""
    results = []
    for scope in ("all", "own"):
        model = small_model("ple", shared_gate_scope=scope, n_specific=2, **options)
        params, batch = perturbed_params(model, generator(10)), small_batch(generator(11))
        batch = batch._replace(scenario=batch.scenario % model.n_scenarios)
        d_logit = generator(12).normal(size=9)
        grads = gradients(model, params, batch, d_logit)
        results.append(grads | {"z": logits(model, params, batch)})
    assert_close(*results)


# --- both forms -----------------------------------------------------------------------------------


@given(
    expert_layers=st.sampled_from([(1, 1), (2,), (1, 1, 1), (1, 2), (3,)]),
    n_specific=st.integers(1, 3),
    n_shared=st.integers(0, 3),
    scope=st.sampled_from(["all", "own"]),
    gate_bias=st.booleans(),
    n_rows=st.integers(1, 9),
    seed=seeds,
)
def test_both_forms_are_equal(expert_layers, n_specific, n_shared, scope, gate_bias, n_rows, seed):
    """All rows through everything, or each row through what its logit reads."""
    options = {
        "expert_layers": expert_layers,
        "n_specific": n_specific,
        "n_shared": n_shared,
        "shared_gate_scope": scope,
        "gate_bias": gate_bias,
    }
    results = []
    for form in ("grouped", "textbook"):
        model, rng = small_model("ple", form=form, **options), generator(seed)
        params, batch = perturbed_params(model, rng), small_batch(rng, n_rows)
        grads = gradients(model, params, batch, rng.normal(size=n_rows))
        results.append(grads | {"logit": logits(model, params, batch)})
    assert_close(*results)


def test_a_form_is_that_of_every_part():
    """Both forms give the same numbers, so that only this shows which one has run."""
    model, batch = small_model("ple", form="textbook"), small_batch(generator(27))
    cache = model.forward(model.init(generator(28)), batch)[1]
    assert {(level.experts, level.gates) for level in model.levels.values()} == {("all", "all")}
    assert all(len(c.W) == 9 for c in cache.network.tower.affine)  # a matrix for every row


def test_a_form_is_no_parameter():
    models = [small_model("ple", form=form) for form in ("grouped", "textbook")]
    first, second = (tree_flatten(model.init(generator(13))) for model in models)
    assert_close(first, second, tol=0.0)


# --- who hears whom -------------------------------------------------------------------------------


def learns_from(model, path, k, seed=14):
    """Scenarios whose rows alone give the parameters of scenario k at a path a gradient."""
    params, batch = perturbed_params(model, generator(seed)), small_batch(generator(seed), 40)
    batch = batch._replace(scenario=np.arange(40) % model.n_scenarios)
    return {
        d
        for d in range(model.n_scenarios)
        if gradients(model, params, batch, (batch.scenario == d) * 1.0)[path][k].any()
    }


@pytest.mark.parametrize("form", ["grouped", "textbook"])
@pytest.mark.parametrize(
    ("options", "path", "scenarios"),
    [
        ({}, "level_1.specific.layer_1.W", {0, 1, 2, 3}),  # through the shared gate of level 1
        ({}, "level_1.specific_gate.W", {1}),
        ({}, "level_1.shared_gate.specific.W", {0, 1, 2, 3}),
        ({}, "level_2.specific.layer_1.W", {1}),
        ({}, "level_2.specific_gate.W", {1}),
        ({}, "tower.layer_1.W", {1}),
        ({"expert_layers": (1, 1, 1)}, "level_1.specific_gate.W", {0, 1, 2, 3}),
        ({"expert_layers": (1, 1, 1)}, "level_2.specific_gate.W", {1}),
        ({"expert_layers": (1, 1, 1)}, "level_2.specific.layer_1.W", {0, 1, 2, 3}),
        ({"shared_gate_scope": "own"}, "level_1.specific.layer_1.W", {1}),
        ({"shared_gate_scope": "own"}, "level_1.specific_gate.W", {1}),
        ({"shared_gate_scope": "own"}, "level_1.shared_gate.specific.W", {1}),
        ({"expert_layers": (2,)}, "level_1.specific.layer_1.W", {1}),
    ],
)
def test_a_specific_parameter_learns_from(options, path, scenarios, form):
    """Own data only, except below a shared gate that mixes the experts of all scenarios."""
    assert learns_from(small_model("ple", form=form, **options), path, 1) == scenarios


def test_every_specific_expert_learns():
    """Place k m_k + e with m_k != D: another stride would reach some twice and some never."""
    model = small_model("ple", n_specific=3)
    params, batch = perturbed_params(model, generator(15)), small_batch(generator(16), 60)
    batch = batch._replace(scenario=np.arange(60) % 4)
    grads = gradients(model, params, batch, generator(17).normal(size=60))
    for level in ("level_1", "level_2"):
        b = grads[f"{level}.specific.layer_1.b"]
        assert b.any(axis=-1).all() and len(np.unique(b.reshape(12, -1), axis=0)) == 12


# --- sizes, and what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 300157),
        ({"expert_layers": (2,)}, 296158),
        ({"expert_layers": (1, 1, 1)}, None),
        ({"n_specific": 3, "n_shared": 2}, None),
        ({"gate_bias": False}, 300157 - 10 * 2 - 11 - 10 * 2),
        ({"shared_gate_scope": "own"}, 300157),
        ({"form": "textbook"}, 300157),
    ],
)
def test_counts(options, expected):
    """derivations 5.5, and the sum over the tree."""
    model = make_model("ple", **FULL_WIDTH, **options)
    D, m_k, m_s, bias = 10, model.n_specific, model.n_shared, int(model.gate_bias)
    total, J = 0, len(model.levels)
    for j, level in enumerate(model.levels.values(), start=1):
        expert = sum((i + 1) * o for i, o in pairwise(level.dims))
        gates = D * (level.dims[0] + bias) * (m_k + m_s)
        shared_gate = (level.dims[0] + bias) * (D * m_k + m_s) * (j < J)
        total += (D * m_k + m_s) * expert + gates + shared_gate
    dims = model.tower.dims
    total += D * sum((i + 1) * o for i, o in pairwise(dims))
    count = model.count_params()
    assert (count.serving, count.training_only, count.state) == (total, 0, 0)
    assert expected in (None, total)


def test_a_row_costs_the_same_whatever_the_number_of_scenarios_unless_the_scope_is_all():
    def cost(n_scenarios, **options):
        sizes = FULL_WIDTH | {"n_scenarios": n_scenarios} | options
        return make_model("ple", **sizes).count_params().multiply_adds

    assert cost(10, shared_gate_scope="own") == cost(100, shared_gate_scope="own")
    assert cost(10, expert_layers=(2,)) == cost(100, expert_layers=(2,))
    assert cost(100) - cost(10) == 90 * (128 * 128 + 128 + 128)  # expert, gate column, mixture


def test_initial_values():
    model = small_model("ple", n_specific=2, n_shared=2)
    leaves = tree_flatten(model.init(generator(18)))
    for path, leaf in leaves.items():
        assert path.endswith(".W") or path == "embedding.table" or not leaf.any(), path
    expert = leaves["level_1.specific.layer_1.W"]
    assert expert.shape == (4, 2, 6, 5)
    assert np.sqrt(6 / 11) * 0.9 < np.abs(expert).max() <= np.sqrt(6 / 11)
    gate = leaves["level_1.shared_gate.specific.W"]  # one kernel with 4 * 2 + 2 columns
    assert gate.shape == (4, 6, 2)
    assert np.sqrt(6 / 16) * 0.8 < np.abs(gate).max() <= np.sqrt(6 / 16)


def test_a_number_of_rows_of_one_scenario_or_a_single_row():
    model = small_model("ple")
    params, batch = perturbed_params(model, generator(19)), small_batch(generator(20))
    alone = batch._replace(scenario=np.full(9, 2))
    for rows in (slice(None), slice(0, 1)):
        part = type(batch)(*(x[rows] for x in alone))
        grads = gradients(model, params, part, np.ones(part.n_rows))
        assert all(np.isfinite(g).all() for g in grads.values())
        assert not grads["tower.layer_1.W"][[0, 1, 3]].any()


def test_an_unknown_scenario_is_refused():
    model, batch = small_model("ple"), small_batch(generator(21))
    params = model.init(generator(22))
    with pytest.raises(ValueError, match=r"scenario must lie in \[0, 4\)"):
        model.forward(params, batch._replace(scenario=batch.scenario + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert_layers": ()}, r"expert_layers must hold at least one .*; got \(\)"),
        ({"expert_layers": (1, 0)}, "expert_layers must hold at least one"),
        ({"expert_layers": (2, 2)}, r"hidden must hold 4 widths or more.*got \(5, 7, 8\)"),
        ({"n_specific": 0}, "n_specific must be at least 1; got 0"),
        ({"n_shared": -1}, "n_shared must be at least 0; got -1"),
        ({"n_scenarios": 0}, "n_scenarios must be at least 1; got 0"),
        ({"shared_gate_scope": "mine"}, r"shared_gate_scope must be one of .*; got 'mine'"),
        ({"form": "row"}, r"form must be one of .*; got 'row'"),
        ({"activation": "swish"}, r"activation must be one of .*; got 'swish'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        small_model("ple", **options)


def test_options_from_json():
    model = make_model("ple", **WIDTHS | {"hidden": [5, 4, 3], "expert_layers": [2]})
    assert model.expert_layers == (2,)
    assert [level.dims for level in model.levels.values()] == [(6, 5, 4)]
    assert model.tower.dims == (4, 3, 1)


def test_a_model_of_all_experts_is_a_tree_of_arrays():
    """One array for all scenarios: nothing is repeated by reference."""
    leaves = tree_flatten(small_model("ple").init(generator(23)))
    assert len({id(leaf) for leaf in leaves.values()}) == len(leaves)
    copied = tree_map(np.copy, small_model("ple").init(generator(23)))
    assert_close(tree_flatten(copied), leaves, tol=0.0)
