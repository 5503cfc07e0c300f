"""Orthogonality loss: values by hand, what leaves it unchanged, and its edges."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import expect_close
from midpg_np.layers.orthogonality import Orthogonality

# (3, 4) and (4, 3): product 24, cosine 0.96.
PAIR = np.array([[[3.0, 4.0], [4.0, 3.0]]])


def test_products_by_hand():
    """(24^2 + 24^2) / (1 * 2 * 1); the gradient of <g, k>^2 with respect to g is 2 <g, k> k."""
    layer = Orthogonality("gram")
    loss, cache = layer.forward(PAIR)
    assert loss == 576.0
    assert cache.O.tolist() == [[[0.0, 24.0], [24.0, 0.0]]]
    assert layer.backward(1.0, cache).tolist() == [[[192.0, 144.0], [144.0, 192.0]]]


def test_cosines_by_hand():
    """0.96^2; the gradient at g = (3, 4) is 2 * 0.96 (k_hat - 0.96 g_hat) / 5."""
    layer = Orthogonality("cosine")
    loss, cache = layer.forward(PAIR)
    expect_close(loss, 0.9216)
    dG = layer.backward(1.0, cache)
    g, k = np.array([0.6, 0.8]), np.array([0.8, 0.6])
    expect_close(dG[0], 2 * 0.96 / 5 * np.array([k - 0.96 * g, g - 0.96 * k]), tol=1e-11)


@pytest.mark.parametrize("orth_on", ["cosine", "gram"])
def test_orthogonal_embeddings_cost_nothing(orth_on):
    layer = Orthogonality(orth_on)
    G = np.diag([2.0, 0.5, 3.0])[None]
    loss, cache = layer.forward(G)
    assert loss == 0.0 and not layer.backward(1.0, cache).any()


def test_it_is_a_mean_over_rows_and_ordered_pairs():
    """A row of three equal unit vectors has loss 1, an orthogonal row 0."""
    equal = np.zeros((3, 3))
    equal[:, 1] = 1.0
    layer = Orthogonality("gram")
    assert layer.forward(equal[None])[0] == 1.0
    assert layer.forward(np.stack([equal, np.eye(3)]))[0] == 0.5


@pytest.mark.parametrize("orth_on", ["cosine", "gram"])
@pytest.mark.parametrize("n_rows", [1, 4])
def test_a_single_embedding_has_no_pair(orth_on, n_rows):
    layer = Orthogonality(orth_on)
    loss, cache = layer.forward(generator(1).normal(size=(n_rows, 1, 3)))
    assert loss == 0.0
    assert not layer.backward(1.0, cache).any()


def test_lengths_do_not_matter_to_cosines():
    """So the gradient of each embedding is at right angles to it."""
    layer, rng = Orthogonality("cosine", eps=1e-300), generator(2)
    G = rng.normal(size=(5, 4, 3))
    longer = G * rng.uniform(1.0, 9.0, size=(5, 4, 1))
    expect_close(layer.forward(longer)[0], layer.forward(G)[0])
    dG = layer.backward(1.0, layer.forward(G)[1])
    assert np.abs((G * dG).sum(axis=2)).max() < 1e-12 * np.abs(dG).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_zero_embedding_is_no_division_by_zero(dtype):
    layer = Orthogonality("cosine")
    G = np.array([[[0.0, 0.0], [3.0, 4.0]]], dtype=dtype)
    loss, cache = layer.forward(G)
    assert loss == 0.0
    assert np.isfinite(layer.backward(dtype(1.0), cache)).all()


def test_wrong_options():
    with pytest.raises(ValueError, match=r"orth_on must be one of .*'gram'.*; got 'sine'"):
        Orthogonality("sine")
    with pytest.raises(ValueError, match=r"eps must be greater than 0; got 0\.0"):
        Orthogonality(eps=0.0)
