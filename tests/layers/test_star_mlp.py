"""Star topology: values by hand, both forms equal, initial values."""

import numpy as np
import pytest
from hypothesis import given
from small import assert_close, run
from strategies import generator, seeds, sizes

from midpg_np.checks.catalogue import CASES
from midpg_np.layers.groups import group_rows
from midpg_np.layers.initial import glorot_uniform
from midpg_np.layers.mlp import MLP
from midpg_np.layers.star_mlp import StarMLP, star_affine, star_affine_backward

# Rows of scenarios 0, 0 and 2 of three; M = 2.
GROUPS = group_rows(np.array([0, 0, 2]), 3)


def test_a_layer_by_hand():
    """W * W_0 = (2, 6), W * W_2 = (5, -2); b + b_0 = 11, b + b_2 = 31."""
    H = np.array([[1.0, 1.0], [2.0, 0.0], [1.0, 2.0]])
    W, b = np.array([[1.0], [2.0]]), np.array([1.0])
    W_d = np.array([[[2.0], [3.0]], [[5.0], [-1.0]]])
    b_d = np.array([[10.0], [30.0]])
    A, cache = star_affine(H, W, b, W_d, b_d, GROUPS)
    assert A[:, 0].tolist() == [19.0, 15.0, 32.0]
    # Gamma_0 = H_(0)^T (1, 1) = (3, 1), Gamma_2 = H_(2)^T 2 = (2, 4).
    dH, dW, db, dW_d, db_d = star_affine_backward(np.array([[1.0], [1.0], [2.0]]), cache)
    assert dH.tolist() == [[2.0, 6.0], [2.0, 6.0], [10.0, -4.0]]
    assert dW[:, 0].tolist() == [3 * 2 + 2 * 5, 1 * 3 + 4 * -1]
    assert db.tolist() == [4.0]
    assert dW_d[:, :, 0].tolist() == [[3.0, 2.0], [2.0, 8.0]]
    assert db_d.tolist() == [[2.0], [2.0]]


def test_two_layers_by_hand():
    """Scenario 1: A = 2 * 3 + 1 = 7, z = 7 * (-1) + 0; there is no ReLU after the last layer."""
    layer = StarMLP(2, (1, 1, 1))
    ones = np.ones((2, 1, 1))
    params = {
        "layer_1": {
            "shared": {"W": np.array([[1.0]]), "b": np.array([0.5])},
            "scenario": {"W": 3.0 * ones, "b": np.array([[9.0], [0.5]])},
        },
        "layer_2": {
            "shared": {"W": np.array([[-1.0]]), "b": np.array([0.0])},
            "scenario": {"W": ones, "b": np.zeros((2, 1))},
        },
    }
    groups = group_rows(np.array([1]), 2)
    z, cache = layer.forward(params, np.array([[2.0]]), groups)
    assert cache.A[0].tolist() == [[7.0 - 0.0]]
    assert z.tolist() == [[-7.0]]
    assert list(layer.kinks(cache)) == ["layer_1.shared.b"]


@pytest.mark.parametrize("what", ["affine", "mlp"])
@given(sizes=sizes(), seed=seeds)
def test_both_forms_are_equal(what, sizes, seed):
    results = []
    for form in ("grouped", "textbook"):
        case = CASES[f"star_{what} {form}"](sizes, generator(seed))
        outputs, grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"output": outputs[0]})
    assert_close(*results)


def test_with_factors_of_one_all_scenarios_share_one_network():
    star, mlp = StarMLP(3, (4, 5, 2)), MLP((4, 5, 2))
    params = star.init(generator(1))
    H = generator(2).normal(size=(3, 4))
    y, _ = star.forward(params, H, GROUPS)
    shared = {name: layer["shared"] for name, layer in params.items()}
    np.testing.assert_allclose(y, mlp.forward(shared, H)[0], rtol=0, atol=1e-15)


def test_initial_values():
    params = StarMLP(3, (4, 5, 1)).init(generator(3))
    assert list(params) == ["layer_1", "layer_2"]
    assert np.array_equal(params["layer_1"]["shared"]["W"], glorot_uniform(generator(3), 4, 5))
    assert (params["layer_1"]["scenario"]["W"] == np.ones((3, 4, 5))).all()
    for layer in params.values():
        assert not layer["shared"]["b"].any()
        assert not layer["scenario"]["b"].any()
    own = StarMLP(3, (4, 5, 1), specific_init="glorot").init(generator(3))["layer_1"]["scenario"]
    assert own["W"].shape == (3, 4, 5)
    assert not np.allclose(own["W"][0], own["W"][1])
    assert np.abs(own["W"]).max() <= np.sqrt(6 / 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"specific_init": "zeros"}, r"specific_init must be one of .*'glorot'.*; got 'zeros'"),
        ({"form": "fast"}, "form must be one of .*; got 'fast'"),
        ({"activation": "rellu"}, "activation must be one of"),
        ({"dims": (4,)}, "dims must be at least 2 widths"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        StarMLP(**({"n_scenarios": 3, "dims": (4, 1)} | options))
