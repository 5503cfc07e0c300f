"""Gate NU: values by hand, its limits, what is live of its input, and its blocks."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import dense_gradients, expect_close, perturbed
from midpg_np.kernels import compiled_loops
from midpg_np.layers.gate import Gate
from midpg_np.layers.groups import group_rows
from midpg_np.ops import scaled_sigmoid, scaled_sigmoid_backward

LOG3 = np.log(3.0)  # sigmoid(log 3) = 3 / 4
PARAMS = {
    "layer_1": {"W": np.array([[1.0, -1.0]]), "b": np.array([0.0, 1.0])},
    "layer_2": {"W": np.array([[LOG3 / 2], [5.0]]), "b": np.array([0.0])},
}


def test_scaled_sigmoid_by_hand():
    delta, cache = scaled_sigmoid(np.array([0.0, LOG3, -LOG3]), 4.0)
    expect_close(delta, np.array([2.0, 3.0, 1.0]), tol=1e-15)
    dx = scaled_sigmoid_backward(np.ones(3), cache)
    expect_close(dx, np.array([1.0, 0.75, 0.75]), tol=1e-15)


@pytest.mark.parametrize("n_towers", [None, 3])
@pytest.mark.parametrize("loops", ["numpy", "compiled"])
def test_a_gated_vector_is_its_gate_times_it(loops, n_towers):
    """``times`` and its backward, one kernel where loops are on, against the passes they join."""
    if loops == "compiled":
        pytest.importorskip("numba", reason="the kernel of a CPU needs Numba")
    rng, gate = generator(4), Gate(5, 3, 4, gamma=1.5, n_towers=n_towers, dim_live=2)
    params = perturbed(gate.init(rng), rng, scale=0.5)
    U, x, dy = (rng.normal(size=(7, width)) for width in (5, 3, 3))
    groups = None if n_towers is None else group_rows(np.arange(7) % 3, 3)
    delta, cache = gate.forward(params, U, groups)
    dU, grads = gate.backward(dy * x, cache)
    want = delta * x, delta, dy * delta, dU, *dense_gradients(grads).values()
    with compiled_loops(loops):
        y, cache = gate.times(params, U, x, groups)
        dx, dU, grads = gate.times_backward(dy.copy(), x, cache)
        got = y, cache.delta, dx, dU, *dense_gradients(grads).values()
    for g, w in zip(got, want, strict=True):
        if isinstance(w, dict):
            assert g.keys() == w.keys()
            for key in w:
                expect_close(g[key], w[key], tol=1e-14)
        else:
            expect_close(g, w, tol=1e-14)


def test_by_hand():
    """U = 2: A = (2, -1), ReLU gives (2, 0), the second layer log 3: delta = 2 * 3/4."""
    gate = Gate(1, 1, hidden=2)
    delta, cache = gate.forward(PARAMS, np.array([[2.0]]))
    expect_close(delta, np.array([[1.5]]), tol=1e-15)
    assert cache.A.tolist() == [[2.0, -1.0]]
    dU, grads = gate.backward(np.array([[8.0]]), cache)
    dA_2 = 8.0 * 1.5 * 0.25  # = 3
    expect_close(dU, np.array([[dA_2 * LOG3 / 2]]), tol=1e-15)
    expect_close(grads["layer_1"]["W"], np.array([[dA_2 * LOG3, 0.0]]), tol=1e-15)
    expect_close(grads["layer_1"]["b"], np.array([dA_2 * LOG3 / 2, 0.0]), tol=1e-15)
    expect_close(grads["layer_2"]["W"], np.array([[2.0 * dA_2], [0.0]]), tol=1e-15)
    expect_close(grads["layer_2"]["b"], np.array([dA_2]), tol=1e-15)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
def test_the_gate_lies_between_zero_and_gamma(gamma):
    """gamma stands outside the sigmoid: it is the limit, and gamma / 2 the middle."""
    gate = Gate(1, 3, hidden=1, gamma=gamma)
    params = {
        "layer_1": {"W": np.ones((1, 1)), "b": np.zeros(1)},
        "layer_2": {"W": np.array([[60.0, 0.0, -60.0]]), "b": np.zeros(3)},
    }
    delta, _ = gate.forward(params, np.ones((1, 1)))
    expect_close(delta, np.array([[gamma, gamma / 2, 0.0]]))


def test_a_silent_second_layer_leaves_everything_as_it_is():
    gate = Gate(4, 3)
    params = perturbed(gate.init(generator(1)), generator(2))
    params["layer_2"] = {key: 0.0 * leaf for key, leaf in params["layer_2"].items()}
    delta, _ = gate.forward(params, generator(3).normal(size=(5, 4)))
    assert (delta == 1.0).all()


def test_the_live_columns_get_what_they_would_get_anyway():
    options = {"hidden": 6}
    whole, part = Gate(5, 3, **options), Gate(5, 3, **options, dim_live=2)
    params = perturbed(whole.init(generator(4)), generator(5))
    U, d_delta = generator(6).normal(size=(7, 5)), generator(7).normal(size=(7, 3))
    dU, grads = whole.backward(d_delta, whole.forward(params, U)[1])
    dU_live, grads_live = part.backward(d_delta, part.forward(params, U)[1])
    expect_close(dU_live, dU[:, :2], tol=1e-15)
    for name in grads:
        for key in grads[name]:
            assert np.array_equal(grads[name][key], grads_live[name][key])


@pytest.mark.parametrize("form", ["grouped", "textbook"])
def test_each_block_is_a_gate_of_its_own_on_a_shared_hidden_layer(form):
    scenario = np.array([3, 0, 0, 1, 0])
    gate, one = Gate(4, 3, 6, n_towers=5, form=form), Gate(4, 3, 6)
    params = perturbed(gate.init(generator(8)), generator(9))
    U, d_delta = generator(10).normal(size=(5, 4)), generator(11).normal(size=(5, 3))
    groups = group_rows(scenario, 5)
    delta, cache = gate.forward(params, U[groups.order], groups)
    dU, grads = gate.backward(d_delta[groups.order], cache)
    grads = dense_gradients(grads)
    first = np.zeros_like(grads["layer_1"]["W"])
    for d in range(5):
        rows = np.flatnonzero(scenario == d)
        own = params | {"layer_2": {key: leaf[d] for key, leaf in params["layer_2"].items()}}
        want, c = one.forward(own, U[rows])
        want_dU, want_grads = one.backward(d_delta[rows], c)
        expect_close(delta[groups.place][rows], want, tol=1e-14)
        expect_close(dU[groups.place][rows], want_dU, tol=1e-14)
        for key in ("W", "b"):
            got = grads["layer_2"][key][d]
            assert got.any() == bool(rows.size)
            expect_close(got, want_grads["layer_2"][key], tol=1e-14)
        first += want_grads["layer_1"]["W"]
    expect_close(grads["layer_1"]["W"], first, tol=1e-14)


def test_blocks_start_differently_and_at_their_own_width():
    """Glorot's bound is that of one block, (u, n), not that of all of them side by side."""
    W = Gate(4, 30, 20, n_towers=50).init(generator(12))["layer_2"]["W"]
    assert not np.array_equal(W[0], W[1])
    bound = np.sqrt(6.0 / 50.0)
    assert 0.99 * bound < np.abs(W).max() <= bound


def test_hidden_width():
    assert Gate(5, 7).init(generator(13))["layer_1"]["W"].shape == (5, 32)
    assert Gate(5, 7, hidden=None).init(generator(13))["layer_1"]["W"].shape == (5, 7)
    assert Gate(5, 7, hidden=3).multiply_adds == 5 * 3 + 3 * 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "fast"}, r"form must be one of .*; got 'fast'"),
        ({"gamma": 0.0}, r"gamma must be above 0; got 0\.0"),
        ({"gamma": float("nan")}, "gamma must be above 0; got nan"),
        ({"hidden": 0}, "gate_hidden must be None or at least 1; got 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Gate(3, 2, **options)
