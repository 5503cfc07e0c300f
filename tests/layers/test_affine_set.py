"""Several affine maps of one input, with fixed weights and with weights summed by a code."""

import numpy as np
import pytest
from hypothesis import given
from small import assert_close, run
from strategies import generator, seeds, sizes

from midpg_np.checks import expect_close
from midpg_np.checks.catalogue import CASES
from midpg_np.layers.affine_set import affine_set, affine_set_backward
from midpg_np.layers.code_affine import CODE_FORMS

# Maps 3 h + 1 and 5 h + 10 of h = 2: 7 and 20.
H, W, b = np.array([[2.0]]), np.array([[[3.0]], [[5.0]]]), np.array([[1.0], [10.0]])


def test_set_by_hand():
    Y, cache = affine_set(H, W, b)
    assert Y.tolist() == [[[7.0], [20.0]]]
    dH, dW, db = affine_set_backward(np.array([[[1.0], [100.0]]]), cache)
    assert dH.tolist() == [[503.0]]
    assert dW.tolist() == [[[2.0]], [[200.0]]]
    assert db.tolist() == [[1.0], [100.0]]


@given(sizes=sizes(), seed=seeds)
def test_the_set_is_its_maps_one_by_one(sizes, seed):
    rng = generator(seed)
    x = rng.normal(size=(sizes.B, sizes.d_m))
    kernels = rng.normal(size=(sizes.d_e, sizes.d_m, sizes.d_n))
    biases = rng.normal(size=(sizes.d_e, sizes.d_n))
    dY = rng.normal(size=(sizes.B, sizes.d_e, sizes.d_n))
    Y, cache = affine_set(x, kernels, biases)
    dx, dW, db = affine_set_backward(dY, cache)
    for n in range(sizes.d_e):
        expect_close(Y[:, n], x @ kernels[n] + biases[n])
        expect_close(dW[n], x.T @ dY[:, n])
        expect_close(db[n], dY[:, n].sum(axis=0))
    expect_close(dx, sum(dY[:, n] @ kernels[n].T for n in range(sizes.d_e)))


@pytest.mark.parametrize("form", CODE_FORMS)
def test_weights_summed_by_a_code_by_hand(form):
    """0.5 * 7 + 2 * 20: the map of this row is 11.5 h + 20.5."""
    A, cache = CODE_FORMS[form].forward(H, W, b, np.array([[0.5, 2.0]]))
    assert A.tolist() == [[43.5]]
    dH, dW, db, du = CODE_FORMS[form].backward(np.array([[1.0]]), cache)
    assert dH.tolist() == [[11.5]]
    assert dW.tolist() == [[[1.0]], [[4.0]]]
    assert db.tolist() == [[0.5], [2.0]]
    assert du.tolist() == [[7.0, 20.0]]


@given(sizes=sizes(), seed=seeds)
def test_both_forms_are_equal(sizes, seed):
    results = []
    for form in CODE_FORMS:
        case = CASES[f"code_affine {form}"](sizes, generator(seed))
        outputs, grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"A": outputs[0]})
    assert_close(*results)
