"""Some fields out of all: values by hand."""

import numpy as np

from midpg_np.layers.fields import pick_fields, pick_fields_backward


def test_by_hand():
    X = np.array([[0.0, 1.0, 10.0, 11.0, 20.0, 21.0]])  # fields 0, 1, 2 of width 2
    E_prior, cache = pick_fields(X, (2, 0), 3)
    assert E_prior.tolist() == [[20.0, 21.0, 0.0, 1.0]]
    dX = pick_fields_backward(np.array([[1.0, 2.0, 3.0, 4.0]]), cache)
    assert dX.tolist() == [[3.0, 4.0, 0.0, 0.0, 1.0, 2.0]]


def test_all_fields_in_their_order_are_a_copy():
    X = np.arange(12.0).reshape(2, 6)
    E_prior, cache = pick_fields(X, range(3), 3)
    assert np.array_equal(E_prior, X)
    assert np.array_equal(pick_fields_backward(E_prior, cache), X)
