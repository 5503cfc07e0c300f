"""Pruner: values by hand.  sigmoid(log 3) = 3/4 and its derivative there is 3/16."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from strategies import generator, seeds

from midpg_np.layers.pruner import Pruner

LOG3 = log(3.0)
V_IN = np.array([[LOG3, 0.0, -LOG3]])
PARAMS = {"W": np.eye(3), "b": np.zeros(3)}


def keep(name, x):
    return x


def pruned(v_in=V_IN, alpha=1.0, *, training=True, **options):
    """Factors and the gradient of v_in for adjoints of 1; U = v_in, since W = 1."""
    layer = Pruner(3, 3, **options)
    pi, cache = layer.forward(PARAMS, v_in, alpha, keep, training=training)
    dU, grads = layer.backward(np.ones_like(pi), cache)
    np.testing.assert_array_equal(grads["b"], dU.sum(axis=0))
    return pi, dU


def assert_values(got, want):
    np.testing.assert_allclose(got, [want], rtol=0, atol=1e-15)


def test_scaling():
    pi, d = pruned(prune="scaling", beta=2.0)
    assert_values(pi, [1.5, 1.0, 0.5])
    assert_values(d, [3 / 8, 1 / 2, 3 / 8])


def test_scaling_has_no_temperature():
    assert_values(pruned(alpha=5.0, prune="scaling")[0], [1.5, 1.0, 0.5])


def test_the_threshold_is_compared_with_v_gain_included():
    """sigmoid = 3/4, 1/2, 1/4, v = 3/2, 1, 1/2: with epsilon 3/4 two are kept, before beta none."""
    pi, d = pruned(prune="fusion", beta=2.0, epsilon=0.75)
    assert_values(pi, [1.5, 1.0, 0.0])
    assert_values(d, [3 / 8, 1 / 2, 0.0])


def test_straight_through_fusion_lets_pruned_neurons_learn():
    pi, d = pruned(prune="fusion", epsilon=0.75, fusion_grad="ste")
    assert pi[0, 2] == 0.0
    assert_values(pi, [1.5, 1.0, 0.0])
    assert_values(d, [3 / 8, 1 / 2, 3 / 8])


@pytest.mark.parametrize(
    ("gradient", "factors", "slopes"),
    [
        ("ste", [1.0, 1.0, 0.0], [3 / 16, 1 / 4, 3 / 16]),
        ("zero", [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]),
        ("soft", [3 / 4, 1 / 2, 1 / 4], [3 / 16, 1 / 4, 3 / 16]),
    ],
)
def test_binarization(gradient, factors, slopes):
    pi, d = pruned(prune="binarization", epsilon=0.4, binarize_grad=gradient)
    assert_values(pi, factors)
    assert_values(d, slopes)


@pytest.mark.parametrize("gradient", ["ste", "soft", "zero"])
def test_binarization_at_inference_is_hard(gradient):
    pi, d = pruned(prune="binarization", epsilon=0.4, binarize_grad=gradient, training=False)
    assert pi.tolist() == [[1.0, 1.0, 0.0]]
    assert d.any() == (gradient == "ste")


@pytest.mark.parametrize("options", [{"prune": "fusion"}, {"prune": "binarization"}])
def test_the_temperature_multiplies_the_input_and_the_gradient(options):
    pi, d = pruned(**options)
    pi_hot, d_hot = pruned(V_IN / 4.0, 4.0, **options)
    np.testing.assert_allclose(pi_hot, pi, rtol=0, atol=1e-15)
    np.testing.assert_allclose(d_hot, 4.0 * d, rtol=0, atol=1e-15)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_what_equals_the_threshold_is_pruned(gain):
    """v > epsilon, strictly: sigmoid(0) is exactly 1/2."""
    form = "binarization" if gain == 1.0 else "fusion"
    pi, _ = pruned(prune=form, epsilon=gain / 2)
    assert pi.tolist()[0][1:] == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds)
def test_straight_through_values_are_exactly_hard(dtype, seed):
    """soft + (hard - soft) has no rounding error for hard = 0 and 1: a unit is off, not 1e-17."""
    U = (5.0 * generator(seed).normal(size=(50, 3))).astype(dtype)
    params = {name: leaf.astype(dtype) for name, leaf in PARAMS.items()}
    layer = Pruner(3, 3, "binarization", epsilon=0.3)
    pi, cache = layer.forward(params, U, 1.7, keep, training=True)
    assert pi.dtype == dtype
    assert set(np.unique(pi)) <= {0.0, 1.0}
    np.testing.assert_array_equal(pi == 1.0, cache.is_kept)
    fused, cache = Pruner(3, 3, fusion_grad="ste").forward(params, U, 1.7, keep, training=True)
    np.testing.assert_array_equal(fused, 2.0 * cache.y * cache.is_kept)


@pytest.mark.parametrize(("form", "crossing"), [("fusion", -log(7.0)), ("binarization", -LOG3)])
def test_kinks_are_distances_from_the_crossing(form, crossing):
    """With epsilon 1/4, sigmoid = 1/8 (fusion, beta 2) at -log 7, 1/4 (binarization) at -log 3."""
    layer = Pruner(3, 3, form)
    _, cache = layer.forward(PARAMS, V_IN, 0.5, keep, training=True)
    np.testing.assert_allclose(layer.kinks(cache)["b"], V_IN - crossing / 0.5, atol=1e-14)


def test_a_form_without_a_threshold_has_no_kinks():
    for options in ({"prune": "scaling"}, {"prune": "binarization", "binarize_grad": "soft"}):
        layer = Pruner(3, 3, **options)
        assert layer.kinks(layer.forward(PARAMS, V_IN, 1.0, keep, training=True)[1]) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": "sign"}, "prune must be one of"),
        ({"binarize_grad": "none"}, "binarize_grad must be one of"),
        ({"fusion_grad": "soft"}, "fusion_grad must be one of"),
        ({"beta": 0.0}, "beta must be positive"),
        ({"epsilon": 2.0}, r"epsilon must lie in \(0, 2.0\), the range of v with prune='fusion'"),
        ({"epsilon": 0.0}, r"epsilon must lie in \(0, 2.0\)"),
        ({"prune": "binarization", "epsilon": 1.0}, r"epsilon must lie in \(0, 1.0\)"),
    ],
)
def test_wrong_options_are_named(options, message):
    """A threshold above the range of v would remove every neuron."""
    with pytest.raises(ValueError, match=message):
        Pruner(3, 3, **options)


def test_scaling_does_not_ask_for_a_threshold():
    assert Pruner(3, 3, "scaling", epsilon=7.0).gain == 2.0
