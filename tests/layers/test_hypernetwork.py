"""Hypernetwork: offsets, values by hand, low rank, and what it generates at the start."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import expect_close
from midpg_np.layers.hypernetwork import Hypernetwork, TowerShape
from midpg_np.tree import tree_flatten


def test_offsets_by_hand():
    shape = TowerShape(2, 3)
    assert shape.n_theta == 13
    tower = shape.unpack(np.arange(13))
    assert tower["layer_1"]["W"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tower["layer_1"]["b"].tolist() == [6, 7, 8]
    assert tower["layer_2"]["W"].tolist() == [[9], [10], [11]]
    assert tower["layer_2"]["b"].tolist() == [12]


@pytest.mark.parametrize("lead", [(), (1,), (5,)])
@pytest.mark.parametrize("sizes", [(2, 3), (1, 1), (4, 1), (1, 3)])
def test_pack_undoes_unpack_and_is_its_adjoint(lead, sizes):
    shape, rng = TowerShape(*sizes), generator(1)
    theta = rng.normal(size=(*lead, shape.n_theta))
    tower = shape.unpack(theta)
    assert np.array_equal(shape.pack(tower), theta)
    other = shape.unpack(rng.normal(size=theta.shape))
    inner = sum(
        (x * y).sum()
        for x, y in zip(tree_flatten(tower).values(), tree_flatten(other).values(), strict=True)
    )
    expect_close(inner, (theta * shape.pack(other)).sum())


def by_hand():
    """Tower 1 -> 1 -> 1: theta has the four entries W_1, b_1, W_2, b_2."""
    shape = TowerShape(1, 1)
    omega_0 = shape.unpack(np.array([10.0, 20.0, 30.0, 40.0]))
    return Hypernetwork(1, shape), {"Omega": np.array([[1.0, 2.0, 3.0, 4.0]]), "omega_0": omega_0}


def test_values_by_hand():
    layer, params = by_hand()
    theta, cache = layer.forward(params, np.array([[2.0], [-1.0]]))
    assert theta.tolist() == [[12.0, 24.0, 36.0, 48.0], [9.0, 18.0, 27.0, 36.0]]
    d_theta = np.array([[1.0, 0.0, 0.0, 5.0], [0.0, 1.0, 0.0, 5.0]])
    dZ, grads = layer.backward(d_theta, cache)
    assert dZ.tolist() == [[21.0], [22.0]]
    assert grads["Omega"].tolist() == [[2.0, -1.0, 0.0, 5.0]]
    assert layer.tower.pack(grads["omega_0"]).tolist() == [1.0, 1.0, 0.0, 10.0]


def test_basis_and_coefficients_by_hand():
    """The last tower is omega_0, and every code takes all of it."""
    layer, params = by_hand()
    towers, u, _ = layer.basis(params, np.array([[2.0], [-1.0]]))
    assert layer.tower.pack(towers).tolist() == [[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]]
    assert u.tolist() == [[2.0, 1.0], [-1.0, 1.0]]


def test_low_rank_is_full_with_the_product():
    shape, rng = TowerShape(3, 2), generator(2)
    low, full = Hypernetwork(4, shape, "low_rank", rank=2), Hypernetwork(4, shape)
    params = low.init(rng)
    product = {
        "Omega": params["Omega_in"] @ params["Omega_out"],
        "omega_0": params["omega_0"],
    }
    Z, d_theta = rng.normal(size=(3, 4)), rng.normal(size=(3, shape.n_theta))
    theta, c_low = low.forward(params, Z)
    want, c_full = full.forward(product, Z)
    expect_close(theta, want)
    dZ, g_low = low.backward(d_theta, c_low)
    want_dZ, g_full = full.backward(d_theta, c_full)
    expect_close(dZ, want_dZ)
    expect_close(g_low["Omega_in"], g_full["Omega"] @ params["Omega_out"].T)
    expect_close(g_low["Omega_out"], params["Omega_in"].T @ g_full["Omega"])


@pytest.mark.parametrize("hyper", ["full", "low_rank"])
def test_a_normal_code_generates_glorot_kernels_and_zero_biases(hyper):
    """Variance 2 / (inputs + outputs), as if each scenario's tower were drawn by itself."""
    layer, rng = Hypernetwork(16, TowerShape(24, 12), hyper, rank=4), generator(3)
    variances, last = [], []
    for _ in range(200):
        theta, _ = layer.forward(layer.init(rng), rng.normal(size=(10, 16)))
        tower = layer.tower.unpack(theta)
        variances.append(tower["layer_1"]["W"].var())
        last.append(tower["layer_2"]["W"].var())
        assert not tower["layer_1"]["b"].any() and not tower["layer_2"]["b"].any()
    assert np.mean(variances) == pytest.approx(2 / (24 + 12), rel=0.06)
    assert np.mean(last) == pytest.approx(2 / (12 + 1), rel=0.08)


def test_a_code_near_zero_starts_at_a_shared_tower():
    layer, rng = Hypernetwork(16, TowerShape(24, 12), starts_shared=True), generator(4)
    theta, _ = layer.forward(layer.init(rng), rng.normal(0.0, 0.01, size=(10, 16)))
    W_1 = layer.tower.unpack(theta)["layer_1"]["W"]
    assert W_1.var() == pytest.approx(2 / (24 + 12), rel=0.15)
    assert np.abs(W_1 - W_1[0]).max() < 0.2 * W_1.std()


def test_wrong_options():
    with pytest.raises(ValueError, match=r"hyper must be one of .*'low_rank'.*; got 'lowrank'"):
        Hypernetwork(2, TowerShape(1, 1), "lowrank")
