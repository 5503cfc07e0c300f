"""Weights by scenario: values by hand, and what an absent scenario costs."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed
from midpg_np.layers.groups import group_rows
from midpg_np.layers.mlp import MLP
from midpg_np.layers.scenario_mlp import AFFINE_FORMS, ScenarioMLP

SCENARIO = np.array([3, 0, 0, 1, 0])


@pytest.mark.parametrize("form", AFFINE_FORMS)
def test_affine_by_hand(form):
    groups = group_rows(np.array([1, 1, 4]), 5)
    H = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]])
    W = np.array([[[1.0], [10.0]], [[2.0], [-1.0]]])  # of scenario 1 and of scenario 4
    b = np.array([[0.5], [-0.5]])
    A, cache = AFFINE_FORMS[form].forward(H, W, b, groups)
    assert A.tolist() == [[21.5], [10.5], [4.5]]
    dH, dW, db = AFFINE_FORMS[form].backward(np.array([[1.0], [2.0], [3.0]]), cache)
    assert dH.tolist() == [[1.0, 10.0], [2.0, 20.0], [6.0, -3.0]]
    assert dW.tolist() == [[[1.0], [4.0]], [[9.0], [3.0]]]
    assert db.tolist() == [[3.0], [3.0]]


@pytest.mark.parametrize("form", AFFINE_FORMS)
def test_each_scenario_is_an_mlp_of_its_own(form):
    layer = ScenarioMLP(5, (4, 3, 2), form=form)
    params = perturbed(layer.init(generator(1)), generator(2))
    H, dy = generator(3).normal(size=(5, 4)), generator(4).normal(size=(5, 2))
    groups = group_rows(SCENARIO, 5)
    y, cache = layer.forward(params, H[groups.order], groups)
    dH, grads = layer.backward(dy[groups.order], cache)
    grads = dense_gradients(grads)
    for d in range(5):
        rows = np.flatnonzero(SCENARIO == d)
        own = {name: {key: leaf[d] for key, leaf in p.items()} for name, p in params.items()}
        mlp = MLP((4, 3, 2))
        want, c = mlp.forward(own, H[rows])
        want_dH, want_grads = mlp.backward(dy[rows], c)
        np.testing.assert_allclose(y[groups.place][rows], want, rtol=0, atol=1e-14)
        np.testing.assert_allclose(dH[groups.place][rows], want_dH, rtol=0, atol=1e-14)
        for name, g in want_grads.items():
            np.testing.assert_allclose(grads[name]["W"][d], g["W"], rtol=0, atol=1e-14)
            np.testing.assert_allclose(grads[name]["b"][d], g["b"], rtol=0, atol=1e-14)


def test_gradients_hold_the_scenarios_of_the_batch_only():
    layer = ScenarioMLP(1000, (4, 3, 1))
    params, groups = layer.init(generator(5)), group_rows(SCENARIO, 1000)
    y, cache = layer.forward(params, generator(6).normal(size=(5, 4)), groups)
    _, grads = layer.backward(y, cache)
    gradient = grads["layer_1"]["W"]
    assert gradient.ids.tolist() == [0, 1, 3]
    assert gradient.rows.shape == (3, 4, 3)
    assert gradient.dense().shape == params["layer_1"]["W"].shape


def test_scenarios_start_differently():
    W = ScenarioMLP(3, (4, 3)).init(generator(7))["layer_1"]["W"]
    assert not np.array_equal(W[0], W[1])


def test_wrong_options():
    with pytest.raises(ValueError, match=r"form must be one of .*; got 'fast'"):
        ScenarioMLP(3, (4, 3), form="fast")
    with pytest.raises(ValueError, match="dims must be at least 2 widths"):
        ScenarioMLP(3, (4,))
