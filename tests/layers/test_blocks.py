"""Affine map with one block per tower: values by hand, and both forms are one calculation."""

import numpy as np
import pytest
from hypothesis import given
from small import assert_close, run
from strategies import generator, seeds, sizes

from midpg_np.checks import dense_gradients
from midpg_np.checks.catalogue import CASES
from midpg_np.layers.blocks import BLOCK_FORMS, block_form
from midpg_np.layers.groups import group_rows
from midpg_np.layers.row_gradient import RowGradient

# Two inputs, three blocks of one output each; two rows of scenario 0, one of 2, none of 1.
H = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]])
W = np.array([[[1.0], [10.0]], [[7.0], [7.0]], [[2.0], [-1.0]]])
B = np.array([[0.5], [9.0], [-0.5]])
GROUPS = group_rows(np.array([0, 0, 2]), 3)


@pytest.mark.parametrize("form", BLOCK_FORMS)
def test_by_hand(form):
    A, cache = BLOCK_FORMS[form].forward(H, W, B, GROUPS)
    assert A.tolist() == [[21.5], [10.5], [4.5]]
    dH, dW, db = BLOCK_FORMS[form].backward(np.array([[1.0], [2.0], [3.0]]), cache)
    assert dH.tolist() == [[1.0, 10.0], [2.0, 20.0], [6.0, -3.0]]
    grads = dense_gradients({"W": dW, "b": db})
    assert grads["W"].tolist() == [[[1.0], [4.0]], [[0.0], [0.0]], [[9.0], [3.0]]]
    assert grads["b"].tolist() == [[3.0], [0.0], [3.0]]


def test_blocks_lie_side_by_side():
    """The T-th block is a slice of the wide output, not every T-th column."""
    wide = np.arange(6.0)[None, :]  # one input of 1, three blocks of two outputs: 0 1, 2 3, 4 5
    W = wide.reshape(1, 3, 2).swapaxes(0, 1)
    for d in range(3):
        groups = group_rows(np.array([d]), 3)
        for form in BLOCK_FORMS.values():
            A, _ = form.forward(np.ones((1, 1)), W, np.zeros((3, 2)), groups)
            assert A.tolist() == [[2.0 * d, 2.0 * d + 1.0]]


def test_only_the_blocks_that_were_used_get_a_gradient():
    A, cache = BLOCK_FORMS["grouped"].forward(H, W, B, GROUPS)
    _, dW, db = BLOCK_FORMS["grouped"].backward(A, cache)
    for gradient in (dW, db):
        assert isinstance(gradient, RowGradient)
        assert gradient.ids.tolist() == [0, 2]
        assert gradient.n_rows == 3


def test_without_a_block_axis_all_rows_share():
    A, cache = block_form(None, "grouped").forward(H, W[0], B[0], None)
    assert A.tolist() == [[21.5], [10.5], [13.5]]
    _, dW, db = block_form(None, "grouped").backward(np.ones((3, 1)), cache)
    assert dW.tolist() == [[4.0], [4.0]]
    assert db.tolist() == [3.0]


@pytest.mark.parametrize(
    "name", ["blocks {}", "gate {}", "tower hidden_output {}", "tower layer_input {}"]
)
@given(sizes=sizes(), seed=seeds)
def test_both_forms_are_equal(name, sizes, seed):
    results = []
    for form in BLOCK_FORMS:
        case = CASES[f"scenario_{name.format(form)}"](sizes, generator(seed))
        (A,), grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"A": A})
    assert_close(*results)
