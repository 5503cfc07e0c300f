"""Multi-layer perceptron and initial values."""

import numpy as np
from strategies import generator

from midpg_np.layers.initial import glorot_uniform, init_affine
from midpg_np.layers.mlp import MLP

PARAMS = {
    "layer_1": {"W": np.array([[1.0, -1.0]]), "b": np.array([0.0, 1.0])},
    "layer_2": {"W": np.array([[2.0], [3.0]]), "b": np.array([-10.0])},
}


def test_two_layers_by_hand():
    """x = 2: A = (2, -1), ReLU gives (2, 0), y = 4 - 10; no ReLU after the last layer."""
    layer = MLP((1, 2, 1))
    y, cache = layer.forward(PARAMS, np.array([[2.0]]))
    assert y.tolist() == [[-6.0]]
    assert cache.A[0].tolist() == [[2.0, -1.0]]
    dx, grads = layer.backward(np.array([[1.0]]), cache)
    assert dx.tolist() == [[2.0]]
    assert grads["layer_1"]["W"].tolist() == [[4.0, 0.0]]
    assert grads["layer_1"]["b"].tolist() == [2.0, 0.0]
    assert grads["layer_2"]["W"].tolist() == [[2.0], [0.0]]
    assert list(grads) == ["layer_1", "layer_2"]


def test_two_widths_are_one_affine_map():
    layer = MLP((3, 2))
    params = layer.init(generator(1))
    x = generator(2).normal(size=(4, 3))
    y, cache = layer.forward(params, x)
    np.testing.assert_allclose(y, x @ params["layer_1"]["W"])
    assert cache.A == ()
    assert layer.kinks(cache) == {}


def test_glorot_stays_inside_its_bound_and_fills_it():
    W = glorot_uniform(generator(3), 60, 90)
    bound = np.sqrt(6.0 / 150.0)
    assert W.shape == (60, 90)
    assert 0.99 * bound < np.abs(W).max() <= bound
    assert abs(W.var() - bound**2 / 3) < 0.03 * bound**2
    assert not init_affine(generator(4), 3, 2)["b"].any()
