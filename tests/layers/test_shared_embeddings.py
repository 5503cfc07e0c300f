"""The set of shared embeddings: values by hand, both combinations, training and prediction."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import dense_gradients, expect_close, perturbed
from midpg_np.layers.groups import group_rows
from midpg_np.layers.orthogonality import Orthogonality
from midpg_np.layers.shared_embeddings import SharedEmbeddings

# Scenarios 0, 0, 2 of three; g_1 = h, g_2 = 2 h + 1, g_3 = -h.
E = np.array([[1.0], [-2.0], [3.0]])
PARAMS = {"A": np.array([[[1.0]], [[2.0]], [[-1.0]]]), "a": np.array([[0.0], [1.0], [0.0]])}
GROUPS = group_rows(np.array([0, 0, 2]), 3)


def test_attention_by_hand():
    """c = 0 and bias (0, log 2, 0): weights 1/4, 1/2, 1/4, so m = (2 h + 1) / 2."""
    layer = SharedEmbeddings(3, 1, 1, 1)
    gate = {"W": np.ones((1, 3)), "b": np.array([0.0, np.log(2.0), 0.0])}
    m, loss, cache = layer.forward(
        PARAMS | {"attention": gate}, np.zeros((3, 1)), E, None, with_loss=False
    )
    expect_close(m, np.array([[1.5], [-1.5], [3.5]]))
    assert loss is None and cache.orthogonality is None
    dc, dE, grads = layer.backward(np.array([[1.0], [0.0], [0.0]]), None, cache)
    expect_close(dE, np.array([[0.25 + 0.5 * 2 - 0.25], [0.0], [0.0]]))
    # <g, dm> = (1, 3, -1), mean 1.5: d_alpha = (-0.125, 0.75, -0.625), and they sum to 0.
    expect_close(grads["attention"]["b"], np.array([-0.125, 0.75, -0.625]))
    assert np.abs(dc).max() < 1e-15


def test_select_by_hand():
    """Negative values pass: a ReLU would make "orthogonal" mean "never positive together"."""
    layer = SharedEmbeddings(3, 1, 1, 1, "select", Orthogonality("gram"))
    m, loss, cache = layer.forward(PARAMS, None, E, GROUPS, with_loss=False)
    assert m.tolist() == [[1.0], [-2.0], [-3.0]]
    assert loss is None and cache.embeddings is None
    dc, dE, grads = layer.backward(np.array([[1.0], [1.0], [5.0]]), None, cache)
    assert dc is None
    assert dE.tolist() == [[1.0], [1.0], [-5.0]]
    dense = dense_gradients(grads)
    assert dense["A"].tolist() == [[[-1.0]], [[0.0]], [[15.0]]]
    assert dense["a"].tolist() == [[2.0], [0.0], [5.0]]


def test_select_learns_from_its_rows_and_from_the_loss():
    layer, rng = SharedEmbeddings(3, 4, 5, 2, "select"), generator(1)
    params = perturbed(layer.init(rng), rng)
    x, dm = rng.normal(size=(3, 4)), rng.normal(size=(3, 5))
    *_, cache = layer.forward(params, None, x, GROUPS, with_loss=True)
    *_, both = layer.backward(dm, 0.7, cache)
    *_, loss_only = layer.backward(0.0 * dm, 0.7, cache)
    *_, rows_only = layer.backward(dm, 0.0, cache)
    expect_close(both["A"], loss_only["A"] + rows_only["A"])
    assert loss_only["A"][1].any() and not rows_only["A"][1].any()  # scenario 1 has no rows


@pytest.mark.parametrize("combine", ["attention", "select"])
def test_the_loss_leaves_the_bits_of_the_mixture_alone(combine):
    layer, rng = SharedEmbeddings(3, 4, 5, 2, combine), generator(2)
    params, c, x = layer.init(rng), rng.normal(size=(3, 2)), rng.normal(size=(3, 4))
    training = layer.forward(params, c, x, GROUPS, with_loss=True)[0]
    assert np.array_equal(training, layer.forward(params, c, x, GROUPS, with_loss=False)[0])


def test_a_single_embedding_is_the_mixture():
    rng, groups = generator(3), group_rows(np.zeros(3, int), 1)
    attention, select = (
        SharedEmbeddings(1, 4, 5, 2, combine) for combine in ("attention", "select")
    )
    params, c, x = attention.init(rng), rng.normal(size=(3, 2)), rng.normal(size=(3, 4))
    m, loss, cache = attention.forward(params, c, x, groups, with_loss=True)
    expect_close(m, select.forward(params, None, x, groups, with_loss=False)[0])
    assert loss == 0.0
    dc, _, grads = attention.backward(np.ones((3, 5)), 1.0, cache)
    assert not dc.any() and not grads["attention"]["W"].any()


def test_no_two_embeddings_start_alike():
    """Equal ones would get equal gradients, from the mixture and from the loss, for ever."""
    params = SharedEmbeddings(3, 4, 5, 2).init(generator(5))
    assert len(np.unique(params["A"].reshape(3, -1), axis=0)) == 3
    bounds = np.abs(params["A"]).max(axis=(1, 2))
    assert (np.sqrt(6 / 9) * 0.6 < bounds).all() and (bounds <= np.sqrt(6 / 9)).all()
    assert params["attention"]["W"].all() and not params["a"].any()


def test_without_attention_there_are_no_parameters_for_it():
    assert set(SharedEmbeddings(3, 4, 5, 2, "select").init(generator(4))) == {"A", "a"}
    assert set(SharedEmbeddings(3, 4, 5, 2).init(generator(4))) == {"A", "a", "attention"}


def test_wrong_options():
    with pytest.raises(ValueError, match=r"combine must be one of .*'select'.*; got 'sum'"):
        SharedEmbeddings(3, 4, 5, 2, "sum")
