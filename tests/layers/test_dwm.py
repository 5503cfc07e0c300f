"""The generated core: its four variants by their formulas, and its limits."""

import warnings

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import perturbed
from midpg_np.layers.dwm import VARIANTS, DynamicWeighting

B = 4


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def core(variant, **options):
    """Layer, parameters, input and result."""
    layer = DynamicWeighting(5, 3, 2, d_k=2, variant=variant, hidden=(), **options)
    rng = generator(1)
    params, U = perturbed(layer.init(rng), rng), rng.normal(size=(B, 5))
    Q, cache = layer.forward(params, U)
    return layer, params, U, Q, cache


def factor(params, name, U, shape):
    if name in params:
        generated = U @ params[name]["layer_1"]["W"] + params[name]["layer_1"]["b"]
        return generated.reshape(B, *shape)
    return params[{"row_generator": "R_share", "column_generator": "C_share"}[name]]


@pytest.mark.parametrize("variant", ["rc", "r", "c"])
@pytest.mark.parametrize("sigmoid_on", ["product", "factors"])
def test_low_rank_variants_by_their_formula(variant, sigmoid_on):
    _, params, U, Q, cache = core(variant, gain=1.5, sigmoid_on=sigmoid_on)
    R = factor(params, "row_generator", U, (3, 2))
    C = factor(params, "column_generator", U, (2, 2))
    want = sigmoid(R @ C) if sigmoid_on == "product" else sigmoid(R) @ sigmoid(C)
    np.testing.assert_allclose(Q, 1.5 * want, rtol=0, atol=1e-14)
    assert cache.generated.shape == (B, {"rc": 10, "r": 6, "c": 4}[variant])


def test_the_full_variant_by_its_formula():
    _, params, U, Q, cache = core("non", gain=2.0)
    P = factor(params, "core_generator", U, (3, 2))
    np.testing.assert_allclose(Q, 2.0 * sigmoid(P), rtol=0, atol=1e-14)
    assert cache.core is None


@pytest.mark.parametrize(
    ("variant", "keys"),
    [
        ("non", {"core_generator"}),
        ("rc", {"row_generator", "column_generator"}),
        ("r", {"row_generator", "C_share"}),
        ("c", {"column_generator", "R_share"}),
    ],
)
def test_what_is_generated_and_what_is_shared(variant, keys):
    _, params, _, _, _ = core(variant)
    assert params.keys() == keys


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_core_lies_between_0_and_the_gain(variant):
    layer, params, U, _, _ = core(variant, gain=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Q, _ = layer.forward(params, 1e4 * U)
    assert Q.min() >= 0.0
    assert Q.max() <= 2.0


def test_shared_factors_do_not_start_at_zero():
    """Zero would keep the generated factor from learning; variance 1 / d_k by default."""
    layer = DynamicWeighting(5, 40, 50, d_k=4, variant="r")
    C = layer.init(generator(2))["C_share"]
    assert abs(C.std() - 0.5) < 0.06
    glorot = DynamicWeighting(5, 40, 50, d_k=4, variant="c", shared_init="glorot")
    R = glorot.init(generator(3))["R_share"]
    assert R.shape == (40, 4)
    assert np.abs(R).max() <= np.sqrt(6 / 44)


def test_a_rank_that_cannot_help_is_warned_about():
    with pytest.warns(UserWarning, match=r"d_k = 3 exceeds min\(d_r, d_c\) = 2"):
        DynamicWeighting(5, 3, 2, d_k=3)


def test_the_rank_of_the_full_variant_does_not_matter():
    DynamicWeighting(5, 3, 2, d_k=9, variant="non")


def test_a_rank_of_zero_is_an_error():
    with pytest.raises(ValueError, match="d_k must be at least 1; got 0"):
        DynamicWeighting(5, 3, 2, d_k=0)


@pytest.mark.parametrize("option", ["variant", "sigmoid_on", "shared_init"])
def test_unknown_options(option):
    with pytest.raises(ValueError, match=rf"{option} must be one of \(.*\); got 'rank'"):
        DynamicWeighting(5, 3, 2, **{option: "rank"})
