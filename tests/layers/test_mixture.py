"""Softmax mixture: values by hand."""

import numpy as np
from strategies import generator

from midpg_np.checks import expect_close
from midpg_np.layers.mixture import mixture, mixture_backward


def test_by_hand():
    """Weights 1/4 and 3/4 of the candidates (4, 0) and (0, 8)."""
    alpha, S = np.array([[0.0, np.log(3.0)]]), np.array([[[4.0, 0.0], [0.0, 8.0]]])
    g, cache = mixture(alpha, S)
    expect_close(g, np.array([[1.0, 6.0]]), tol=1e-15)
    d_alpha, dS = mixture_backward(np.array([[1.0, 1.0]]), cache)
    expect_close(dS, np.array([[[0.25, 0.25], [0.75, 0.75]]]), tol=1e-15)
    # dw = (4, 8), <w, dw> = 7
    expect_close(d_alpha, np.array([[0.25 * (4 - 7), 0.75 * (8 - 7)]]), tol=1e-15)


def test_equal_candidates_give_that_candidate():
    rng = generator(1)
    candidate = rng.normal(size=(5, 1, 3))
    g, _ = mixture(rng.normal(size=(5, 4)), np.repeat(candidate, 4, axis=1))
    expect_close(g, candidate[:, 0])


def test_a_single_candidate_has_weight_one_and_its_gate_does_not_learn():
    rng = generator(2)
    S, dg = rng.normal(size=(5, 1, 3)), rng.normal(size=(5, 3))
    g, cache = mixture(rng.normal(size=(5, 1)), S)
    d_alpha, dS = mixture_backward(dg, cache)
    assert np.array_equal(g, S[:, 0]) and np.array_equal(dS[:, 0], dg)
    assert not d_alpha.any()
