"""Stacks of affine maps and of experts: values by hand, and who passes what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds

from midpg_np.checks import dense_gradients, expect_close, perturbed
from midpg_np.layers.experts import (
    Experts,
    routed_affine,
    routed_affine_backward,
    stacked_affine,
    stacked_affine_backward,
)
from midpg_np.layers.groups import group_rows
from midpg_np.layers.mlp import MLP
from midpg_np.tree import tree_flatten, tree_map

SCENARIO = np.array([0, 0, 0, 1, 3])  # sorted; 0 three times, 1 and 3 once, 2 never


def test_one_input_for_two_maps_by_hand():
    H, W = np.array([[[1.0, 2.0]]]), np.array([[[1.0], [10.0]], [[2.0], [-1.0]]])
    A, cache = stacked_affine(H, W, np.array([[0.5], [-0.5]]))
    assert A.tolist() == [[[21.5]], [[-0.5]]]
    dH, dW, db = stacked_affine_backward(np.array([[[1.0]], [[3.0]]]), cache)
    assert dH.tolist() == [[[7.0, 7.0]]]  # 1 (1, 10) + 3 (2, -1): both maps send back
    assert dW.tolist() == [[[1.0], [2.0]], [[3.0], [6.0]]]
    assert db.tolist() == [[1.0], [3.0]]


def test_an_input_of_its_own_for_each_map_by_hand():
    H, W = np.array([[[1.0]], [[5.0]]]), np.array([[[2.0]], [[3.0]]])
    A, cache = stacked_affine(H, W, np.zeros((2, 1)))
    assert A.tolist() == [[[2.0]], [[15.0]]]
    dH, dW, _ = stacked_affine_backward(np.array([[[1.0]], [[10.0]]]), cache)
    assert dH.tolist() == [[[2.0]], [[30.0]]]
    assert dW.tolist() == [[[1.0]], [[50.0]]]


def test_rows_by_scenario_by_hand():
    """Two experts for scenario 1 (two rows) and for scenario 4 (one row)."""
    groups = group_rows(np.array([1, 1, 4]), 5)
    H = np.array([[[1.0], [2.0], [3.0]]])
    W = np.array([[[[1.0]], [[10.0]]], [[[2.0]], [[-1.0]]]])
    A, cache = routed_affine(H, W, np.array([[[0.0], [1.0]], [[0.0], [2.0]]]), groups)
    assert A[:, :, 0].tolist() == [[1.0, 2.0, 6.0], [11.0, 21.0, -1.0]]
    dA = np.array([[[1.0], [1.0], [1.0]], [[1.0], [2.0], [3.0]]])
    dH, dW, db = routed_affine_backward(dA, cache)
    assert dH[0, :, 0].tolist() == [11.0, 21.0, -1.0]
    assert dW[:, :, 0, 0].tolist() == [[3.0, 5.0], [3.0, 9.0]]
    assert db[:, :, 0].tolist() == [[2.0, 3.0], [1.0, 3.0]]


def test_an_activation_follows_the_last_layer_too():
    experts, groups = Experts(2, (3, 4)), group_rows(SCENARIO, 4)
    params = perturbed(experts.init(generator(1)), generator(2))
    H = generator(3).normal(size=(1, 5, 3))
    E, cache = experts.forward(params, H, groups)
    assert E.shape == (2, 5, 4)
    assert (E >= 0).all() and (E == 0).any()
    expect_close(E, np.maximum(cache.A[0], 0.0), tol=0.0)


def as_mlp(params, place):
    return tree_map(lambda leaf: leaf[place], params)


@pytest.mark.parametrize("rows", ["all", "own"])
def test_each_expert_is_an_mlp(rows):
    """With an identity behind its last layer, an expert is the MLP of its slice of the weights."""
    experts = Experts(2, (3, 4, 2), 4, "identity", rows)
    params = perturbed(experts.init(generator(4)), generator(5))
    groups, H = group_rows(SCENARIO, 4), generator(6).normal(size=(4, 1, 5, 3))
    own = H[0] if rows == "own" else H
    E, _ = experts.forward(params, own, groups)
    for k in range(4):
        for e in range(2):
            mine = SCENARIO == k if rows == "own" else np.full(5, True)
            x = H[0, 0, mine] if rows == "own" else H[k, 0]
            want, _ = MLP((3, 4, 2), "identity").forward(as_mlp(params, (k, e)), x)
            expect_close(E[e, mine] if rows == "own" else E[k, e], want, tol=1e-13)


@given(n_experts=st.integers(1, 3), n_rows=st.integers(1, 6), seed=seeds)
def test_own_rows_of_all_rows_are_own_rows(n_experts, n_rows, seed):
    """Values and gradients: routed experts against all rows through all of them."""
    rng = generator(seed)
    scenario = np.sort(rng.integers(0, 4, size=n_rows))
    groups, H = group_rows(scenario, 4), rng.normal(size=(n_rows, 3))
    every, own = (Experts(n_experts, (3, 5, 2), 4, rows=rows) for rows in ("all", "own"))
    params = perturbed(every.init(rng), rng)
    E, cache = own.forward(params, H[None], groups)
    E_all, c_all = every.forward(params, np.broadcast_to(H, (4, 1, n_rows, 3)), groups)
    rows = np.arange(n_rows)
    expect_close(E, E_all[scenario, :, rows].swapaxes(0, 1), tol=1e-12)
    dE, dE_all = rng.normal(size=E.shape), np.zeros(E_all.shape)
    dE_all[scenario, :, rows] = dE.swapaxes(0, 1)
    dH, grads = own.backward(dE, cache)
    dH_all, grads_all = every.backward(dE_all, c_all)
    expect_close(dH[0], dH_all.sum(axis=0)[0], tol=1e-12)
    for path, g in tree_flatten(dense_gradients(grads)).items():
        expect_close(g, tree_flatten(grads_all)[path], tol=1e-12)


def test_gradients_hold_the_scenarios_of_the_batch_only():
    experts, groups = Experts(2, (3, 4), 1000, rows="own"), group_rows(SCENARIO, 1000)
    E, cache = experts.forward(experts.init(generator(7)), np.ones((1, 5, 3)), groups)
    _, grads = experts.backward(E, cache)
    assert grads["layer_1"]["W"].ids.tolist() == [0, 1, 3]
    assert grads["layer_1"]["W"].rows.shape == (3, 2, 3, 4)


def test_no_two_experts_start_alike():
    """Equal kernels would get equal gradients up to the gate's weight, for ever."""
    W = Experts(3, (4, 5), 2).init(generator(8))["layer_1"]["W"].reshape(6, -1)
    assert len(np.unique(W, axis=0)) == 6
    assert np.abs(W).max() <= np.sqrt(6.0 / 9.0)


def test_wrong_options():
    with pytest.raises(ValueError, match="n_experts must be at least 1; got 0"):
        Experts(0, (3, 4))
    with pytest.raises(ValueError, match=r"dims must be at least 2 widths .*; got \(3,\)"):
        Experts(1, (3,))
    with pytest.raises(ValueError, match=r"rows must be one of .*; got 'mine'"):
        Experts(1, (3, 4), 2, rows="mine")
    with pytest.raises(ValueError, match="rows='own' needs experts by scenario"):
        Experts(1, (3, 4), rows="own")
    with pytest.raises(ValueError, match=r"activation must be one of .*; got 'swish'"):
        Experts(1, (3, 4), activation="swish")
