"""Networks with one input: as one product what they are one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from midpg_np.layers.mlp import MLP
from midpg_np.layers.side_by_side import OneByOne, SideBySide
from midpg_np.ops import batch_last
from midpg_np.tree import tree_flatten


def networks(hidden, dim_in=4, activation="relu"):
    """One network per tuple of hidden widths, outputs of different widths."""
    return {f"net_{n}": MLP((dim_in, *w, n + 2), activation) for n, w in enumerate(hidden)}


@given(
    hidden=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3),
    activation=st.sampled_from(["relu", "tanh"]),
    stored_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_side_by_side_is_one_by_one(hidden, activation, stored_last, seed):
    rng = np.random.default_rng(seed)
    mlps = networks(hidden, activation=activation)
    params = {name: mlp.init(rng) for name, mlp in mlps.items()}
    x = rng.normal(size=(5, 4))
    x = batch_last(x) if stored_last else x
    results = []
    for kind in (OneByOne, SideBySide):
        layer, dys = kind(mlps), np.random.default_rng(seed + 1)
        outputs, cache = layer.forward(params, x)
        d_outputs = {name: dys.normal(size=y.shape) for name, y in outputs.items()}
        dx, grads = layer.backward(d_outputs, cache)
        results.append((outputs, layer.kinks(cache), tree_flatten(grads), {"x": dx}))
    for alone, together in zip(*results, strict=True):
        assert list(alone) == list(together)
        for name, want in alone.items():
            assert_allclose(together[name], want, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", [OneByOne, SideBySide])
def test_by_hand(kind):
    mlps = {"a": MLP((2, 1, 1)), "b": MLP((2, 1, 1))}
    params = {
        "a": {
            "layer_1": {"W": np.array([[1.0], [2.0]]), "b": np.array([1.0])},
            "layer_2": {"W": np.array([[3.0]]), "b": np.array([0.5])},
        },
        "b": {
            "layer_1": {"W": np.array([[-1.0], [1.0]]), "b": np.array([-5.0])},
            "layer_2": {"W": np.array([[7.0]]), "b": np.array([0.0])},
        },
    }
    layer, x = kind(mlps), np.array([[1.0, 1.0], [-1.0, 6.0]])
    outputs, cache = layer.forward(params, x)
    # a: 1 + 2 + 1 = 4 and -1 + 12 + 1 = 12; b: -5 (off) and 1 + 6 - 5 = 2.
    assert outputs["a"].tolist() == [[12.5], [36.5]]
    assert outputs["b"].tolist() == [[0.0], [14.0]]
    dx, grads = layer.backward({"a": np.ones((2, 1)), "b": np.ones((2, 1))}, cache)
    assert dx.tolist() == [[3.0, 6.0], [3.0 - 7.0, 6.0 + 7.0]]
    assert grads["a"]["layer_1"]["W"].tolist() == [[0.0], [21.0]]
    assert grads["b"]["layer_1"]["W"].tolist() == [[-7.0], [42.0]]
    assert grads["b"]["layer_1"]["b"].tolist() == [7.0]
    assert grads["a"]["layer_2"]["W"].tolist() == [[16.0]]


def test_the_order_of_a_tree_does_not_matter():
    rng = np.random.default_rng(0)
    mlps = networks([(2, 3), (2,)])
    params = {name: mlp.init(rng) for name, mlp in mlps.items()}
    turned = {name: dict(reversed(tree.items())) for name, tree in params.items()}
    x, layer = rng.normal(size=(3, 4)), SideBySide(mlps)
    for name, y in layer.forward(params, x)[0].items():
        np.testing.assert_array_equal(layer.forward(turned, x)[0][name], y)
