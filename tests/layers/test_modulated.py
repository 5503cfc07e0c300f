"""The modulated product and layer: the paper's special cases, and sizes that do not fit."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.layers.dwm import DynamicWeighting
from midpg_np.layers.modulated import FORMS, cheaper_form
from midpg_np.layers.modulated_layer import ModulatedLayer, divisors, modulated_bias
from midpg_np.layers.repeat import REPEAT_MODES, repeat

RNG = generator(1)
H, W = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 8))


def product(form, Q, mode="block"):
    return FORMS[form].forward(H, W, Q, mode)[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", REPEAT_MODES)
def test_the_product_by_its_definition(form, mode):
    """A_bj = sum_i S_b,ij W_ij H_bi, written as loops."""
    Q = generator(2).random((5, 3, 2))
    S, want = repeat(Q, 6, 8, mode), np.zeros((5, 8))
    for b in range(5):
        for j in range(8):
            want[b, j] = sum(S[b, i, j] * W[i, j] * H[b, i] for i in range(6))
    np.testing.assert_allclose(product(form, Q, mode), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_weighting_of_ones_is_a_plain_layer(form):
    np.testing.assert_allclose(product(form, np.ones((5, 3, 4))), H @ W, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_one_core_row_is_an_output_gate(form):
    """derivations 3.8, row 1: d_r = d_k = 1, d_c = d_n."""
    q = generator(3).random((5, 8))
    np.testing.assert_allclose(product(form, q[:, None, :]), q * (H @ W), rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_one_core_column_is_an_input_gate(form):
    q = generator(4).random((5, 6))
    np.testing.assert_allclose(product(form, q[:, :, None]), (q * H) @ W, rtol=0, atol=1e-13)


def test_the_cheaper_form_weights_fewer_numbers():
    assert cheaper_form(d_m=128, d_n=64, d_r=16, d_c=8) == "row"  # 16 * 64 = 8 * 128
    assert cheaper_form(d_m=128, d_n=64, d_r=16, d_c=4) == "column"
    assert cheaper_form(d_m=8, d_n=64, d_r=2, d_c=32) == "row"


def layer(d_r=3, d_c=2, dim_in=6, dim_out=8, **options):
    return ModulatedLayer(dim_in, dim_out, DynamicWeighting(4, d_r, d_c, hidden=()), **options)


@pytest.mark.parametrize("mode", REPEAT_MODES)
def test_the_layer_adds_the_bias_to_the_weighted_product(mode):
    module = layer(repeat_mode=mode)
    params = module.init(generator(5))
    params["b"] = np.arange(8.0)
    U = generator(6).normal(size=(5, 4))
    A, cache = module.forward(params, H, U)
    S = repeat(cache.weighting.Q, 6, 8, mode)
    want = np.einsum("bij,ij,bi->bj", S, params["W"], H) + params["b"]
    np.testing.assert_allclose(A, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", REPEAT_MODES)
@pytest.mark.parametrize("modulate_bias", [False, True])
def test_out_in_is_the_transposed_layout(mode, modulate_bias):
    """S is (outputs, inputs) like W: A = (S * W) h, bias weighted with the mean over inputs."""
    module = layer(d_r=4, d_c=3, w_layout="out_in", repeat_mode=mode, modulate_bias=modulate_bias)
    params = module.init(generator(7))
    params["b"] = np.arange(8.0)
    assert params["W"].shape == (8, 6)
    A, cache = module.forward(params, H, generator(8).normal(size=(5, 4)))
    S = repeat(cache.weighting.Q, 8, 6, mode)
    bias = S.mean(axis=2) * params["b"] if modulate_bias else params["b"]
    want = np.einsum("bji,ji,bi->bj", S, params["W"], H) + bias
    np.testing.assert_allclose(A, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("mode", REPEAT_MODES)
def test_the_bias_is_weighted_with_the_column_mean(mode):
    Q, b = generator(9).random((5, 3, 2)), np.arange(1.0, 9.0)
    beta, _ = modulated_bias(b, Q, mode)
    want = repeat(Q, 6, 8, mode).mean(axis=1) * b
    np.testing.assert_allclose(beta, want, rtol=0, atol=1e-14)


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(7) == [1, 7]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_r": 4}, r"d_r = 4 must divide d_m = 6; choose one of 1, 2, 3, 6\."),
        ({"d_c": 3}, r"d_c = 3 must divide d_n = 8; choose one of 1, 2, 4, 8\."),
        ({"d_r": 3, "w_layout": "out_in"}, "d_r = 3 must divide d_m = 8"),
    ],
)
def test_sizes_that_do_not_divide_list_those_that_would(sizes, message):
    with pytest.raises(ValueError, match=message):
        layer(**sizes)


@pytest.mark.parametrize("option", ["repeat_mode", "w_layout", "form"])
def test_unknown_options(option):
    with pytest.raises(ValueError, match=rf"{option} must be one of \(.*\); got 'rows'"):
        layer(**{option: "rows"})
