"""Auxiliary network: values by hand, and what its normalisation leaves alone."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed
from midpg_np.layers.auxiliary_network import AuxiliaryNetwork
from midpg_np.layers.groups import group_rows
from midpg_np.layers.partitioned_norm import PartitionedNorm
from midpg_np.tree import tree_flatten

GROUPS = group_rows(np.array([0, 2, 2]), 3)


def test_a_linear_network_by_hand():
    """z = 2 e_dom + 3 X + 1 with e_dom = 10 for scenario 0 and 30 for scenario 2."""
    layer = AuxiliaryNetwork(3, 1, dim_domain=1, hidden=())
    params = {
        "domain": {"table": np.array([[10.0], [20.0], [30.0]])},
        "mlp": {"layer_1": {"W": np.array([[2.0], [3.0]]), "b": np.array([1.0])}},
    }
    X = np.array([[1.0], [2.0], [4.0]])
    z, cache = layer.forward(params, X, GROUPS, is_training=True)
    assert z[:, 0].tolist() == [24.0, 67.0, 73.0]
    dX, grads = layer.backward(np.array([[1.0], [1.0], [-3.0]]), cache)
    assert dX[:, 0].tolist() == [3.0, 3.0, -9.0]
    grads = tree_flatten(dense_gradients(grads))
    assert grads["domain.table"][:, 0].tolist() == [2.0, 0.0, -4.0]
    assert grads["mlp.layer_1.W"][:, 0].tolist() == [10 + 30 - 90, 1 + 2 - 12]
    assert grads["mlp.layer_1.b"].tolist() == [-1.0]


def test_the_normalisation_leaves_the_embedding_of_the_scenario_alone():
    """Inside a scenario e_dom is constant; normalised, it would be zero and could not learn."""
    norm = PartitionedNorm(3, 4, initial_variance=4.0)
    layer, rng = AuxiliaryNetwork(3, 4, dim_domain=2, hidden=(5,), norm=norm), generator(1)
    params = perturbed(layer.init(rng), rng, 0.3)
    X = rng.normal(size=(3, 4))
    z, cache = layer.forward(params, X, GROUPS, is_training=True)
    V, _ = norm.forward(params["norm"], X, GROUPS, is_training=True)
    plain = AuxiliaryNetwork(3, 4, dim_domain=2, hidden=(5,))
    np.testing.assert_array_equal(plain.forward(params, V, GROUPS, is_training=True)[0], z)
    _, grads = layer.backward(np.ones((3, 1)), cache)
    assert grads["domain"]["table"].dense()[[0, 2]].all()


def test_without_a_normalisation_nothing_moves():
    layer = AuxiliaryNetwork(3, 4)
    params = layer.init(generator(2))
    _, cache = layer.forward(params, np.ones((3, 4)), GROUPS, is_training=True)
    assert layer.advance(params, cache) is params


def test_sizes():
    layer = AuxiliaryNetwork(10, 128)
    params = layer.init(generator(3))
    assert params["domain"]["table"].shape == (10, 16)
    assert layer.mlp.dims == (144, 32, 1)
    assert layer.multiply_adds == 144 * 32 + 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim_domain": 0}, "dim_domain must be at least 1; got 0"),
        ({"hidden": (0,)}, "dims must be at least 2 widths of at least 1"),
        ({"activation": "rellu"}, "activation must be one of"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AuxiliaryNetwork(3, 4, **options)
