"""Gated tower: values by hand for both positions of the gates, and one tower per scenario."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import dense_gradients, expect_close, perturbed
from midpg_np.layers.gated_tower import GatedTower
from midpg_np.layers.groups import group_rows
from midpg_np.layers.mlp import MLP
from midpg_np.tree import tree_flatten, tree_map

LOG3 = np.log(3.0)


def constant_gate(*delta):
    """A gate that always is ``delta`` (up to 2), whatever it reads; its hidden unit is always 1."""
    logits = np.array([0.0 if d == 1.0 else np.log(d / (2.0 - d)) for d in delta])
    return {
        "layer_1": {"W": np.zeros((1, 1)), "b": np.ones(1)},
        "layer_2": {"W": np.zeros((1, len(delta))), "b": logits},
    }


# O = (1, 2) -> A = (4, -3) -> R = (4, 0) -> gate (1.5, 0.5): H = (6, 0) -> y = 6 * 2 + 1.
PARAMS = {
    "layer_1": {"W": np.array([[2.0, 1.0], [1.0, -2.0]]), "b": np.zeros(2)},
    "layer_2": {"W": np.array([[2.0], [3.0]]), "b": np.ones(1)},
    "gate_0": constant_gate(0.5, 1.5),
    "gate_1": constant_gate(1.5, 0.5),
}
INPUTS = np.array([[1.0, 2.0]]), np.array([[7.0]])  # O and U


def test_gates_at_the_hidden_output_by_hand():
    tower = GatedTower((2, 2, 1), 1, gate_hidden=1)
    assert list(tower.gates) == ["gate_1"]
    y, cache = tower.forward(PARAMS, *INPUTS)
    expect_close(y, np.array([[13.0]]), tol=1e-14)
    dO, dU, grads = tower.backward(np.ones((1, 1)), cache)
    # dH = (2, 3), d_delta = dH R = (8, 0), dR = dH delta = (3, 1.5), dA = (3, 0)
    expect_close(grads["layer_2"]["W"], np.array([[6.0], [0.0]]), tol=1e-14)
    expect_close(grads["layer_1"]["W"], np.array([[3.0, 0.0], [6.0, 0.0]]), tol=1e-14)
    expect_close(dO, np.array([[6.0, 3.0]]), tol=1e-14)
    gate = grads["gate_1"]["layer_2"]["b"]
    expect_close(gate, np.array([8.0 * 1.5 * 0.25, 0.0]), tol=1e-14)
    assert dU.tolist() == [[0.0]]


def test_gates_at_the_layer_input_by_hand():
    """delta^0 O = (0.5, 3): A = (4, -5.5), R = (4, 0), and on as before."""
    tower = GatedTower((2, 2, 1), 1, "layer_input", gate_hidden=1)
    assert list(tower.gates) == ["gate_0", "gate_1"]
    y, cache = tower.forward(PARAMS, *INPUTS)
    expect_close(cache.A[0], np.array([[4.0, -5.5]]), tol=1e-14)
    expect_close(y, np.array([[13.0]]), tol=1e-14)
    dO, _, grads = tower.backward(np.ones((1, 1)), cache)
    # dH~ = dA W^T = (6, 3); dW = H~^T dA with H~ = (0.5, 3)
    expect_close(grads["layer_1"]["W"], np.array([[1.5, 0.0], [9.0, 0.0]]), tol=1e-14)
    expect_close(dO, np.array([[3.0, 4.5]]), tol=1e-14)
    gate = grads["gate_0"]["layer_2"]["b"]
    expect_close(gate, np.array([6.0 * 0.5 * 0.75, 3.0 * 2.0 * 1.5 * 0.25]), tol=1e-14)


def test_the_two_positions_differ_by_the_gate_on_the_input():
    rng = generator(1)
    tower = GatedTower((5, 4, 3, 1), 6, "layer_input", gate_hidden=2)
    params = perturbed(tower.init(rng), rng)
    silent = tree_map(lambda leaf: 0.0 * leaf, params["gate_0"])
    x, u = rng.normal(size=(7, 5)), rng.normal(size=(7, 6))
    other = GatedTower((5, 4, 3, 1), 6, gate_hidden=2)
    assert params.keys() - other.init(rng).keys() == {"gate_0"}
    want, _ = other.forward(params, x, u)
    assert np.array_equal(tower.forward(params | {"gate_0": silent}, x, u)[0], want)
    assert not np.allclose(tower.forward(params, x, u)[0], want)


@pytest.mark.parametrize("gate_at", ["hidden_output", "layer_input"])
@pytest.mark.parametrize("n_towers", [None, 4])
def test_silent_gates_leave_an_mlp(gate_at, n_towers):
    rng = generator(2)
    tower = GatedTower((5, 4, 3, 1), 6, gate_at, n_towers, activation="tanh", gate_hidden=2)
    params = perturbed(tower.init(rng), rng)
    for name in tower.gates:
        params[name] = tree_map(lambda leaf: 0.0 * leaf, params[name])
    x, u, scenario = rng.normal(size=(7, 5)), rng.normal(size=(7, 6)), np.arange(7) % 3
    groups = group_rows(scenario, 4) if n_towers else None
    order, place = (groups.order, groups.place) if groups else (slice(None), slice(None))
    y = tower.forward(params, x[order], u[order], groups)[0][place]
    for d in range(4) if n_towers else [slice(None)]:
        rows = scenario == d if n_towers else d
        own = {name: {k: p[d] for k, p in params[name].items()} for name in tower.layer_names}
        want, _ = MLP((5, 4, 3, 1), "tanh").forward(own, x[rows])
        expect_close(y[rows], want, tol=1e-14)


@pytest.mark.parametrize("gate_at", ["hidden_output", "layer_input"])
def test_each_scenario_has_a_tower_of_its_own(gate_at):
    """And only the hidden layers of the gates are shared: their gradients add up."""
    rng, scenario = generator(3), np.array([3, 0, 0, 1, 0])
    options = {"gate_at": gate_at, "gate_hidden": 2}
    towers, one = (
        GatedTower((5, 4, 1), 6, n_towers=5, **options),
        GatedTower((5, 4, 1), 6, **options),
    )
    params = perturbed(towers.init(rng), rng)
    x, u, dy = rng.normal(size=(5, 5)), rng.normal(size=(5, 6)), rng.normal(size=(5, 1))
    groups = group_rows(scenario, 5)
    y, cache = towers.forward(params, x[groups.order], u[groups.order], groups)
    dO, dU, grads = towers.backward(dy[groups.order], cache)
    got, summed = tree_flatten(dense_gradients(grads)), {}
    for d in range(5):
        rows = scenario == d
        own = {name: {k: p[d] for k, p in params[name].items()} for name in towers.layer_names}
        for name in towers.gates:
            second = {k: p[d] for k, p in params[name]["layer_2"].items()}
            own[name] = params[name] | {"layer_2": second}
        want, c = one.forward(own, x[rows], u[rows])
        want_dO, want_dU, want_grads = one.backward(dy[rows], c)
        expect_close(y[groups.place][rows], want, tol=1e-14)
        expect_close(dO[groups.place][rows], want_dO, tol=1e-14)
        expect_close(dU[groups.place][rows], want_dU, tol=1e-14)
        for path, g in tree_flatten(want_grads).items():
            if ".layer_1." in path:
                summed[path] = summed.get(path, 0.0) + g
            else:
                expect_close(got[path][d], g, tol=1e-14)
                assert rows.any() or not got[path][d].any()
    for path, g in summed.items():
        expect_close(got[path], g, tol=1e-14)


def test_towers_start_differently():
    W = GatedTower((4, 3, 1), 2, n_towers=3).init(generator(4))["layer_1"]["W"]
    assert W.shape == (3, 4, 3)
    assert not np.array_equal(W[0], W[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate_at": "input"}, r"gate_at must be one of .*; got 'input'"),
        ({"dims": (3, 1)}, "hidden must hold at least one width"),
        ({"activation": "rellu"}, "activation must be one of"),
        ({"form": "fast"}, r"form must be one of .*; got 'fast'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        GatedTower(**({"dims": (3, 2, 1), "dim_context": 4} | options))


def test_without_hidden_layers_the_input_can_still_be_gated():
    tower = GatedTower((3, 1), 2, "layer_input")
    y, _ = tower.forward(tower.init(generator(5)), np.ones((4, 3)), np.ones((4, 2)))
    assert y.shape == (4, 1)
