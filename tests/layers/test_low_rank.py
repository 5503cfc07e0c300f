"""The generated low-rank layer: values computed by hand, its start, and its limits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from small import arrays_in, assert_close, numbered, run
from strategies import generator, seeds, sizes

from midpg_np.checks import perturbed
from midpg_np.checks.catalogue import CASES
from midpg_np.layers.low_rank import LOW_RANK_FORMS, multiply_out, multiply_out_backward
from midpg_np.layers.low_rank_layer import LowRankLayer
from midpg_np.tree import tree_map

FORMS = pytest.mark.parametrize("form", LOW_RANK_FORMS)

H = np.array([[1.0, 2.0, 3.0]])
V = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
S = np.array([[[1.0, 2.0], [3.0, 4.0]]])
U = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [2.0, 0.0]])


# --- the product ---------------------------------------------------------------------------------


@FORMS
def test_values_by_hand(form):
    """q = V h = (4, -1), r = S q = (2, 8), a = U r; with S transposed r would be (1, 4)."""
    A, cache = LOW_RANK_FORMS[form].forward(H, U, V, S)
    assert A.tolist() == [[2.0, 8.0, -6.0, 4.0]]
    if form == "grouped":
        assert cache.Q.tolist() == [[4.0, -1.0]]
        assert cache.R.tolist() == [[2.0, 8.0]]
    else:  # S V has the rows (1, 2, -1) and (3, 4, -1)
        want = [[1.0, 2.0, -1.0], [3.0, 4.0, -1.0], [-2.0, -2.0, 0.0], [2.0, 4.0, -2.0]]
        assert cache.T.tolist() == [want]


@FORMS
def test_adjoints_by_hand(form):
    """For dA = (1, 0, 2, 0): dR = U^T dA = (3, -2), dQ = S^T dR = (-3, -2)."""
    pair = LOW_RANK_FORMS[form]
    dH, dU, dV, dS = pair.backward(np.array([[1.0, 0, 2, 0]]), pair.forward(H, U, V, S)[1])
    assert dU.tolist() == [[2.0, 8.0], [0.0, 0.0], [4.0, 16.0], [0.0, 0.0]]
    assert dS.tolist() == [[[12.0, -3.0], [-8.0, 2.0]]]
    assert dH.tolist() == [[-3.0, -2.0, -1.0]]
    assert dV.tolist() == [[-3.0, -6.0, -9.0], [-2.0, -4.0, -6.0]]


@FORMS
def test_every_row_has_its_own_core(form):
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    A, _ = LOW_RANK_FORMS[form].forward(np.tile(H, (3, 1)), U, V, np.stack([S[0], swap, 0 * swap]))
    assert A.tolist() == [[2.0, 8.0, -6.0, 4.0], [-1.0, 4.0, -5.0, -2.0], [0.0, 0.0, 0.0, 0.0]]


@given(sizes=sizes(), seed=seeds)
def test_both_forms_of_the_product_are_equal(sizes, seed):
    results = []
    for form in ("grouped", "textbook"):
        case = CASES[f"low_rank {form}"](sizes, generator(seed))
        (A,), grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"A": A})
    assert_close(*results)


@pytest.mark.parametrize("suffix", ["", " over-parameterised", " with bias"])
@given(sizes=sizes(), seed=seeds)
def test_both_forms_of_the_layer_are_equal(suffix, sizes, seed):
    results = []
    for form in ("grouped", "textbook"):
        case = CASES[f"low_rank_layer {form}{suffix}"](sizes, generator(seed))
        (A,), grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"A": A})
    assert_close(*results)


@FORMS
@pytest.mark.parametrize("n_rows", [0, 1])
@pytest.mark.parametrize(("K", "dim_in", "dim_out"), [(2, 3, 4), (1, 3, 4), (1, 1, 4), (1, 3, 1)])
def test_axes_of_length_one_or_none_stay(form, n_rows, K, dim_in, dim_out):
    """What an axis-less squeeze would drop."""
    layer = LowRankLayer(dim_in, dim_out, 2, rank=K, over_rank=3, form=form)
    rng = generator(1)
    params = perturbed(layer.init(rng), rng)
    inputs = rng.normal(size=(n_rows, dim_in)), rng.normal(size=(n_rows, 2))
    A, cache = layer.forward(params, *inputs)
    dH, dz, grads = layer.backward(np.ones_like(A), cache)
    assert (A.shape, cache.S.shape) == ((n_rows, dim_out), (n_rows, K, K))
    assert (dH.shape, dz.shape) == ((n_rows, dim_in), (n_rows, 2))
    assert tree_map(np.shape, grads) == tree_map(np.shape, params)


def test_the_grouped_form_builds_no_weights_per_row():
    shapes = {"H": (9, 40), "U": (30, 3), "V": (3, 40), "S": (9, 3, 3)}
    inputs = {name: np.ones(shape) for name, shape in shapes.items()}
    largest = {
        form: max(array.size for array in arrays_in(pair.forward(**inputs)))
        for form, pair in LOW_RANK_FORMS.items()
    }
    assert largest == {"grouped": 9 * 40, "textbook": 9 * 40 * 30}


# --- over-parameterisation -----------------------------------------------------------------------


def test_multiplying_out_by_hand():
    left, right = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), np.array([[1.0], [-1.0]])
    product, cache = multiply_out(left, right)
    assert product.tolist() == [[-1.0], [-1.0], [3.0]]
    d_left, d_right = multiply_out_backward(np.array([[1.0], [0.0], [2.0]]), cache)
    assert d_left.tolist() == [[1.0, -1.0], [0.0, 0.0], [2.0, -2.0]]
    assert d_right.tolist() == [[7.0], [2.0]]


def built(over_rank=5, **options):
    layer = LowRankLayer(6, 5, 4, rank=3, over_rank=over_rank, **options)
    rng = generator(2)
    params = perturbed(layer.init(rng), rng)
    return layer, params, rng.normal(size=(7, 6)), rng.normal(size=(7, 4)), rng.normal(size=(7, 5))


@FORMS
@pytest.mark.parametrize("generate_bias", [False, True])
@pytest.mark.parametrize("over_rank", [3, 5])
def test_a_folded_layer_is_the_same_layer(form, generate_bias, over_rank):
    """Values, what goes back to the inputs, and the chain rule of the factors."""
    layer, params, H, z, dA = built(over_rank, form=form, generate_bias=generate_bias)
    small, folded = replace(layer, over_rank=None), layer.fold(params)
    A, cache = layer.forward(params, H, z)
    A_small, cache_small = small.forward(folded, H, z)
    *d_inputs, g = layer.backward(dA, cache)
    *d_inputs_small, g_small = small.backward(dA, cache_small)
    assert_close(numbered([A_small, *d_inputs_small]), numbered([A, *d_inputs]))
    for name in ("U", "V"):
        left, right = params[f"{name}_left"], params[f"{name}_right"]
        assert_close(
            {"left": g[f"{name}_left"], "right": g[f"{name}_right"]},
            {"left": g_small[name] @ right.T, "right": left.T @ g_small[name]},
        )
    assert folded.keys() == small.init(generator(3)).keys()
    assert small.fold(folded).keys() == folded.keys()
    assert all(small.fold(folded)[name] is folded[name] for name in ("U", "V"))


def test_at_a_fixed_condition_the_map_has_the_rank_of_its_core():
    """A bias or an activation between the factors would raise it, and could not be folded."""
    layer, params, H, z, _ = built()
    H = generator(3).normal(size=(40, 6))
    A, _ = layer.forward(params, H, np.tile(z[:1], (40, 1)))
    assert np.linalg.matrix_rank(A - params["b"], tol=1e-10) == 3


# --- generators and their start ------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)])
def test_at_the_start_the_core_is_about_the_identity(hidden):
    """Conditions are embeddings, which start near 0.01; a core near zero would silence a layer."""
    layer = LowRankLayer(20, 30, 16, generator_hidden=hidden)
    params = layer.init(generator(4))
    _, cache = layer.forward(params, np.ones((50, 20)), 0.01 * generator(5).normal(size=(50, 16)))
    assert np.abs(cache.S - np.eye(8)).max() < 0.1
    norms = np.linalg.norm(cache.S, axis=(1, 2))
    np.testing.assert_allclose(norms, np.sqrt(8), rtol=0.05)
    zero = tree_map(np.zeros_like, params["generator"])
    A, _ = layer.forward(params | {"generator": zero}, np.ones((1, 20)), np.zeros((1, 16)))
    assert not A.any()


def test_the_initial_values():
    layer = LowRankLayer(20, 30, 16, generate_bias=True, generator_hidden=(7,))
    params = layer.init(generator(6))
    for name, shape in (("U", (30, 8)), ("V", (8, 20))):
        left, right = params[f"{name}_left"], params[f"{name}_right"]
        assert (left.shape, right.shape) == ((shape[0], 64), (64, shape[1]))
        for kernel in (left, right):
            bound = np.sqrt(6 / sum(kernel.shape))
            assert 0.8 * bound < np.abs(kernel).max() <= bound
    last = params["generator"]["layer_2"]
    assert np.array_equal(last["b"], np.eye(8).ravel())
    assert last["W"].any()
    assert not params["generator"]["layer_1"]["b"].any()
    assert not params["bias_generator"]["layer_2"]["b"].any()
    assert "b" not in params
    plain = LowRankLayer(20, 30, 16, over_rank=None).init(generator(6))
    assert (plain["U"].shape, plain["V"].shape) == ((30, 8), (8, 20))
    assert np.array_equal(plain["b"], np.zeros(30))


def test_a_generated_bias_by_its_formula():
    layer, params, H, z, _ = built(generate_bias=True)
    silent = params | {"generator": tree_map(np.zeros_like, params["generator"])}
    affine = params["bias_generator"]["layer_1"]
    assert_close({"A": layer.forward(silent, H, z)[0]}, {"A": z @ affine["W"] + affine["b"]})


def test_a_generated_bias_with_a_silent_kernel_is_a_static_one():
    layer, params, H, z, _ = built(generate_bias=True)
    affine = params["bias_generator"]["layer_1"]
    silent = params | {"bias_generator": {"layer_1": affine | {"W": 0.0 * affine["W"]}}}
    static = {k: leaf for k, leaf in params.items() if k != "bias_generator"} | {"b": affine["b"]}
    want, _ = replace(layer, generate_bias=False).forward(static, H, z)
    assert_close({"A": layer.forward(silent, H, z)[0]}, {"A": want})


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 5}, r"rank must lie in \[1, 4\], because the layer has 6 inputs and 4 outputs;"),
        ({"rank": 0}, r"rank must lie in \[1, 4\].*; got 0\.$"),
        ({"rank": 3, "over_rank": 2}, r"over_rank must be None or at least rank = 3.*; got 2\.$"),
        ({"rank": 3, "form": "row"}, r"form must be one of \('grouped', 'textbook'\); got 'row'"),
        ({"rank": 3, "generator_hidden": (0,)}, "dims must be"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        LowRankLayer(6, 4, 5, **options)
