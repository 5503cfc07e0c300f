"""PEPNet: reductions, relations to other models, what its stop-gradients hold back, sizes."""

import numpy as np
import pytest
from small import assert_close, numbered, small_batch, small_model
from strategies import generator

from midpg_np.checks import dense_gradients, expect_close, perturbed_params
from midpg_np.models import ModelOutput, make_model
from midpg_np.tree import tree_copy, tree_flatten, tree_map, tree_unflatten

GATE_AT = ("hidden_output", "layer_input")
EVERY_FORM = [
    {"gate_at": gate_at, "towers": towers, "ep_input": ep_input}
    for gate_at in GATE_AT
    for towers in ("shared", "per_scenario")
    for ep_input in ("all", "agnostic")
]
# derivations 12: 2 aware and 14 agnostic fields of width 8, hidden 128, 64, 32.
SPECIFIED = {"vocab_sizes": (10,) * 16, "n_aware": 2, "n_scenarios": 10}
PRIOR = {"prior_fields": (2, 3, 4, 5)}


def setting(n_rows=9, seed=1, **options):
    model, rng = small_model("pepnet", **options), generator(seed)
    return model, perturbed_params(model, rng), small_batch(rng, n_rows)


def gradient(model, params, batch, d_logit):
    _, cache = model.forward(params, batch)
    return tree_flatten(dense_gradients(model.backward(ModelOutput(d_logit, {}), cache)))


def silenced(params, *beginnings):
    """Parameters with the second layer of some gates zero, so that those gates are gamma / 2."""
    leaves = tree_flatten(params)
    for path, leaf in leaves.items():
        if path.startswith(beginnings) and ".layer_2." in path:
            leaves[path] = 0.0 * leaf
    return tree_unflatten(leaves)


# --- derivations 11: reductions -----------------------------------------------------------------


@pytest.mark.parametrize("options", EVERY_FORM, ids=str)
def test_with_silent_gates_it_is_a_dnn(options):
    """The second layer of every gate zero: delta = gamma / 2 = 1, exactly."""
    model, params, batch = setting(**options)
    params = silenced(params, "epnet", "ppnet.gate")
    mlp = {name: params["ppnet"][name] for name in model.ppnet.layer_names}
    logit = model.forward(params, batch)[0].logit
    for d in range(model.n_scenarios):
        rows = batch.scenario == d
        own = tree_map(lambda leaf, d=d: leaf[d], mlp) if model.routes_by_scenario else mlp
        weights = {"embedding": params["embedding"], "mlp": own}
        want, _ = small_model("dnn").forward(weights, batch)
        if model.routes_by_scenario:
            assert_close({"z": logit[rows]}, {"z": want.logit[rows]}, tol=1e-14)
        else:
            assert np.array_equal(logit, want.logit)


@pytest.mark.parametrize("gate_at", GATE_AT)
def test_one_scenario_makes_a_tower_per_scenario_the_shared_one(gate_at):
    shared = small_model("pepnet", n_scenarios=1, gate_at=gate_at)
    single = small_model("pepnet", n_scenarios=1, gate_at=gate_at, towers="per_scenario")
    params, batch = perturbed_params(shared, generator(2)), small_batch(generator(3))
    batch = batch._replace(scenario=0 * batch.scenario)
    leaves = tree_flatten(params)
    owned = tree_flatten(single.init(generator(4)))
    stacked = {k: x[None] if owned[k].ndim > x.ndim else x for k, x in leaves.items()}
    z, z_single = (
        m.forward(p, batch)[0].logit
        for m, p in ((shared, params), (single, tree_unflatten(stacked)))
    )
    assert_close({"z": z_single}, {"z": z}, tol=1e-14)
    d_logit = generator(5).normal(size=9)
    want = gradient(shared, params, batch, d_logit)
    got = gradient(single, tree_unflatten(stacked), batch, d_logit)
    assert_close({k: g.reshape(want[k].shape) for k, g in got.items()}, want, tol=1e-13)


@pytest.mark.parametrize("gate_at", GATE_AT)
def test_equal_towers_are_one_and_their_gradients_add_up_to_its(gate_at):
    shared, params, batch = setting(gate_at=gate_at)
    several = small_model("pepnet", gate_at=gate_at, towers="per_scenario")
    owned = tree_flatten(several.init(generator(4)))
    copies = {
        k: np.stack([x] * 4) if owned[k].ndim > x.ndim else x
        for k, x in tree_flatten(params).items()
    }
    d_logit = generator(5).normal(size=9)
    want = gradient(shared, params, batch, d_logit)
    got = gradient(several, tree_unflatten(copies), batch, d_logit)
    summed = {k: g.sum(axis=0) if g.ndim > want[k].ndim else g for k, g in got.items()}
    assert_close(summed, want, tol=1e-13)


def test_the_two_positions_of_the_gates_differ_by_the_gate_on_the_embeddings():
    model, params, batch = setting(gate_at="layer_input")
    other = small_model("pepnet")
    want = other.forward(params, batch)[0].logit
    silent = silenced(params, "ppnet.gate_0")
    assert np.array_equal(model.forward(silent, batch)[0].logit, want)
    assert not np.allclose(model.forward(params, batch)[0].logit, want)


def same_as_dpg(gate, gate_at, variant, row_divisor, col_divisor):
    """PEPNet with one gate, and the DPG whose core it is; both read [E_aw, X]."""
    shape = {"hidden": (12,)}
    model = small_model("pepnet", prior_fields=(0, 1), gate_at=gate_at, **shape)
    params = perturbed_params(model, generator(6))
    others = {"epnet", *(f"ppnet.{name}" for name in model.ppnet.gates)} - {f"ppnet.{gate}"}
    params = silenced(params, *others)
    dpg = small_model(
        "dpg",
        variant=variant,
        row_divisor=row_divisor,
        col_divisor=col_divisor,
        d_k=1,
        generator_hidden=(3,),
        gain=2.0,
        modulate_bias=gate == "gate_1",
        **shape,
    )
    generator_name = {"r": "row_generator", "c": "column_generator"}[variant]
    share = {"r": "C_share", "c": "R_share"}[variant]
    weighting = {generator_name: params["ppnet"][gate], share: np.ones((1, 1))}
    weights = {
        "embedding": params["embedding"],
        "layer_1": params["ppnet"]["layer_1"] | {"weighting": weighting},
        "head": params["ppnet"]["layer_2"],
    }
    batch = small_batch(generator(7))
    got, want = model.forward(params, batch)[0].logit, dpg.forward(weights, batch)[0].logit
    assert_close({"z": got}, {"z": want})


def test_a_gate_on_the_outputs_is_a_core_of_one_row():
    """derivations 11: d_r = d_k = 1, d_c = d_n, with ReLU and a modulated bias."""
    same_as_dpg("gate_1", "hidden_output", "c", row_divisor=6, col_divisor=1)


def test_a_gate_on_the_inputs_is_a_core_of_one_column():
    """derivations 11: d_c = d_k = 1, d_r = d_m."""
    same_as_dpg("gate_0", "layer_input", "r", row_divisor=1, col_divisor=12)


# --- what the gates read, and who learns from them -----------------------------------------------


@pytest.mark.parametrize(
    ("options", "prior"),
    [
        ({}, [4, 5]),
        ({"prior_fields": (2, 0)}, [4, 5, 0, 1]),
        ({"prior_scenario": True}, [4, 5, 0, 1, 2, 3]),
        ({"prior_fields": (1, 2), "prior_scenario": True}, [2, 3, 4, 5, 0, 1]),
    ],
)
def test_the_gates_of_the_tower_read_the_prior_and_then_the_embeddings(options, prior):
    model, params, batch = setting(gate_at="layer_input", **options)
    c = model.forward(params, batch)[1].network
    want = np.concatenate([c.X[:, prior], c.O], axis=1)
    assert np.array_equal(c.E_prior, c.X[:, prior])
    for gate in ("gate_0", "gate_1", "gate_2"):
        assert np.array_equal(c.ppnet.gates[gate].layer_1.x, want)


def test_what_is_gated_first():
    """All embeddings by default; the agnostic ones only, and the others as they are."""
    model, params, batch = setting()
    c = model.forward(params, batch)[1].network
    assert np.array_equal(c.epnet.layer_1.x, np.concatenate([c.X[:, :4], c.X], axis=1))
    assert np.array_equal(c.O, c.epnet.delta * c.X)
    model, params, batch = setting(ep_input="agnostic")
    c = model.forward(params, batch)[1].network
    assert np.array_equal(c.epnet.layer_1.x, c.X)
    assert np.array_equal(c.O[:, :4], c.X[:, :4])
    assert np.array_equal(c.O[:, 4:], c.epnet.delta * c.X[:, 4:])


def fields_that_learn(cut, **options):
    """Fields with a gradient, and fields that move the logit, with some cut off the tower."""
    model, params, batch = setting(**options)
    params = tree_copy(params)
    for field in cut:
        params["ppnet"]["layer_1"]["W"][..., 2 * field : 2 * field + 2, :] = 0.0
    table = gradient(model, params, batch, np.ones(9))["embedding.table"]
    z = model.forward(params, batch)[0].logit
    learn, move = set(), set()
    for field in range(3):
        rows = model.embedding.field_rows(field)
        if table[rows].any():
            learn.add(field)
        other = tree_copy(params)
        other["embedding"]["table"][rows] += 0.1
        if not np.allclose(model.forward(other, batch)[0].logit, z):
            move.add(field)
    return learn, move


@pytest.mark.parametrize("options", EVERY_FORM, ids=str)
def test_behind_a_stop_gradient_the_gradient_is_exactly_zero(options):
    """Field 2 reaches the logit only as sg(E) and sg(O): it moves the gates and learns nothing."""
    learn, move = fields_that_learn((2,), prior_fields=(1,), **options)
    assert (learn, move) == ({0, 1}, {0, 1, 2})


@pytest.mark.parametrize("options", EVERY_FORM, ids=str)
def test_domain_and_prior_learn_through_the_gates_alone(options):
    """No field reaches the tower's first layer, but the gates behind it still read them."""
    learn, move = fields_that_learn((0, 1, 2), prior_fields=(2,), **options)
    assert learn == {2}  # the domain's gate multiplies what nobody reads any more
    assert move == {0, 1, 2}
    learn, _ = fields_that_learn((0, 1), prior_fields=(2,), **options)
    assert learn == {0, 1, 2}  # the domain through the gate on field 2


def test_a_field_that_is_feature_domain_and_prior_gets_the_sum_of_all_three():
    model, params, batch = setting(prior_fields=(0,))
    d_logit = generator(8).normal(size=9)
    cache = model.forward(params, batch)[1].network
    dO, dE_prior, _ = model.ppnet.backward(d_logit[:, None], cache.ppnet)
    dE_dom, _ = model.epnet.backward(dO * cache.E, cache.epnet)
    shares = (dO * cache.epnet.delta)[:, :2], dE_dom[:, :2], dE_prior
    want = np.zeros((3, 2))
    for share in shares:
        assert share.any()
        np.add.at(want, batch.codes[:, 0], share)
    got = gradient(model, params, batch, d_logit)["embedding.table"]
    expect_close(got[model.embedding.field_rows(0)], want)


# --- towers --------------------------------------------------------------------------------------


def test_a_row_meets_its_own_tower_and_blocks_only():
    """What scenario 0 owns does not move the rows of others."""
    model, params, batch = setting(towers="per_scenario")
    z = model.forward(params, batch)[0].logit
    leaves = tree_flatten(params)
    owned = {path for path in leaves if path.startswith("ppnet.layer_")}
    owned |= {f"ppnet.gate_{i}.layer_2.{key}" for i in (1, 2) for key in ("W", "b")}
    for path in owned:
        assert len(leaves[path]) == 4, path
        changed = leaves[path].copy()
        changed[0] += 0.3
        moved = model.forward(tree_unflatten(leaves | {path: changed}), batch)[0].logit != z
        assert not moved[batch.scenario != 0].any(), path
        assert moved[batch.scenario == 0].any(), path


def test_only_towers_per_scenario_read_the_scenario():
    shared, params, batch = setting()
    unknown = batch._replace(scenario=batch.scenario + 100)
    assert not shared.routes_by_scenario
    assert np.array_equal(*(shared.forward(params, b)[0].logit for b in (batch, unknown)))
    several, params, batch = setting(towers="per_scenario")
    assert several.routes_by_scenario
    with pytest.raises(ValueError, match=r"scenario must lie in \[0, 4\)"):
        several.forward(params, unknown)


# --- start and sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize("towers", ["shared", "per_scenario"])
def test_at_the_start_every_gate_is_near_one(towers):
    """Embeddings near zero and biases zero: the sigmoid starts in its middle."""
    model = make_model("pepnet", **SPECIFIED, towers=towers)
    params, rng = model.init(generator(9)), generator(10)
    batch = small_batch(rng)
    codes = rng.integers(0, 10, size=(9, 16))
    c = model.forward(params, batch._replace(codes=codes))[1].network
    for gate in (c.epnet, *c.ppnet.gates.values()):
        assert np.abs(gate.delta - 1.0).max() < 0.1
        assert np.ptp(gate.delta) > 0.0


@pytest.mark.parametrize(
    ("options", "serving", "multiply_adds"),
    [
        (PRIOR, 58_593, 57_888),
        (PRIOR | {"gate_at": "layer_input"}, 67_969, 67_104),
        ({}, 66_273, 65_568),
        (PRIOR | {"prior_scenario": True}, 60_129, 59_424),
        (PRIOR | {"ep_input": "agnostic"}, 57_553, 56_864),
        (PRIOR | {"towers": "per_scenario"}, 367_050, 57_888),
        (PRIOR | {"gate_hidden": None}, 119_745, 118_816),
    ],
)
def test_parameter_counts_of_the_specification(options, serving, multiply_adds):
    count = make_model("pepnet", **SPECIFIED, **options).count_params()
    assert count == (serving, 0, 16 * 10 * 8, multiply_adds, 0)


@pytest.mark.parametrize("options", EVERY_FORM, ids=str)
def test_the_formula_for_the_number_of_parameters(options):
    """derivations 7.4."""
    model = small_model("pepnet", **options)
    d_0, d_dom, d_prior, u, n = 6, 4, 2, 3, (12, 6)
    T = 4 if options["towers"] == "per_scenario" else 1
    d_E = d_0 if options["ep_input"] == "all" else d_0 - d_dom
    gated = n if options["gate_at"] == "hidden_output" else (d_0, *n)
    epnet = (d_dom + d_E + 1) * u + (u + 1) * d_E
    ppnet = sum((d_prior + d_0 + 1) * u + (u + 1) * T * n_l for n_l in gated)
    backbone = small_model("dnn").count_params().serving
    assert model.count_params().serving == epnet + ppnet + T * backbone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate_at": "output"}, r"gate_at must be one of .*; got 'output'"),
        ({"towers": "two"}, r"towers must be one of .*; got 'two'"),
        ({"ep_input": "aware"}, r"ep_input must be one of .*; got 'aware'"),
        ({"activation": "rellu"}, "activation must be one of"),
        ({"prior_fields": (3,)}, r"prior_fields must be distinct fields in \[0, 3\); got \(3,\)"),
        ({"prior_fields": (-1,)}, "prior_fields must be distinct fields"),
        ({"prior_fields": (2, 2)}, "prior_fields must be distinct fields"),
        ({"n_aware": 0}, r"n_aware must lie in \[1, 3\], the number of fields; got 0"),
        ({"n_aware": 4}, r"n_aware must lie in \[1, 3\]"),
        ({"n_aware": 3}, "n_aware = 3 leaves no agnostic field"),
        ({"n_aware": 3, "prior_fields": (0,), "ep_input": "agnostic"}, "leaves no agnostic field"),
        ({"gamma": 0.0}, r"gamma must be above 0; got 0\.0"),
        ({"gate_hidden": 0}, "gate_hidden must be None or at least 1; got 0"),
        ({"hidden": ()}, "hidden must hold at least one width"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        small_model("pepnet", **options)


def test_without_agnostic_fields_the_prior_must_be_named():
    model = small_model("pepnet", n_aware=3, prior_fields=(0,))
    params, batch = model.init(generator(11)), small_batch(generator(12))
    assert model.forward(params, batch)[0].logit.shape == (9,)
    assert small_model("pepnet", n_aware=3, prior_scenario=True).priors == (0, 1, 2)


def test_rows_of_one_batch_may_all_be_of_one_scenario():
    model, params, batch = setting(towers="per_scenario")
    z = model.forward(params, batch)[0].logit
    for d in (0, 1, 3):
        rows = np.flatnonzero(batch.scenario == d)
        part = type(batch)(*(x[rows] for x in batch))
        got = model.forward(params, part)[0].logit
        assert_close(numbered(got), numbered(z[rows]), tol=1e-13)
