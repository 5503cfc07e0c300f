"""A layer with pruned inputs, and the schedule of its temperature: values by hand."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import expect_close, perturbed
from midpg_np.kernels import compiled_loops
from midpg_np.layers.pruned_layer import PrunedLayer, prune_last, prune_last_backward
from midpg_np.layers.pruner import Pruner
from midpg_np.layers.schedule import linear_schedule


def keep(name, x):
    return x


def test_the_first_columns_stay_as_they_are():
    H, pi = np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 0.0]])
    y, cache = prune_last(H, pi)
    assert y.tolist() == [[1.0, 1.0, 0.0]]
    dH, d_pi = prune_last_backward(np.array([[7.0, 8.0, 9.0]]), cache)
    assert dH.tolist() == [[7.0, 4.0, 0.0]]
    assert d_pi.tolist() == [[16.0, 27.0]]


def test_both_readers_of_h_send_something_back():
    """H = 3, E_aw = 2, Q = (0, 0): pi = 1, A = 3 W.  With W = 5 and dA = 1: d_pi = 15.

    The product sends W = 5 to H; the pruner, whose slope is beta / 4 = 1/2, sends 15/2 to what it
    reads, times Q: zero with Q = 0, 15/2 x 4 = 30 with Q = (0, 4) at v_in = 0.
    """
    layer = PrunedLayer(1, 1, 1, Pruner(2, 1, "scaling"))
    params = {"W": np.array([[5.0]]), "b": np.array([0.25])}
    H, E_aw, dA = np.array([[3.0]]), np.array([[2.0]]), np.array([[1.0]])
    for Q, q, dH_want, dE_want in (((0.0, 0.0), 0.0, 5.0, 0.0), ((1.0, 4.0), -14.0, 35.0, 7.5)):
        pruner = {"W": np.array([[Q[0]], [Q[1]]]), "b": np.array([q])}
        A, cache = layer.forward(params | {"pruner": pruner}, H, E_aw, 1.0, keep, training=True)
        assert A.tolist() == [[15.25]]
        dH, dE_aw, grads = layer.backward(dA, cache)
        assert (dH.tolist(), dE_aw.tolist()) == ([[dH_want]], [[dE_want]])
        assert grads["W"].tolist() == [[3.0]]
        assert grads["b"].tolist() == [1.0]
        assert grads["pruner"]["W"].tolist() == [[15.0], [22.5]]
        assert grads["pruner"]["b"].tolist() == [7.5]


def test_what_a_regulariser_sends_is_added():
    layer = PrunedLayer(1, 1, 1, Pruner(2, 1, "scaling"))
    params = {"W": np.array([[5.0]]), "b": np.zeros(1)}
    params["pruner"] = {"W": np.zeros((2, 1)), "b": np.zeros(1)}
    inputs = np.array([[3.0]]), np.array([[2.0]])
    _, cache = layer.forward(params, *inputs, 1.0, keep, training=True)
    _, _, grads = layer.backward(np.ones((1, 1)), cache, np.array([[-15.0]]))
    assert grads["pruner"]["b"].tolist() == [0.0]
    assert grads["W"].tolist() == [[3.0]]


SENT = {
    "nothing": None,
    "one number": np.broadcast_to(np.array([[0.3]]), (6, 3)),
    "one by row": np.broadcast_to(np.arange(6.0)[:, None], (6, 3)),
}


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("n_plain", [0, 2])
def test_one_kernel_gives_what_the_steps_give(n_plain, sent):
    """Factors, product and their adjoints, with and without what a regulariser sends."""
    pytest.importorskip("numba", reason="the kernel of a CPU needs Numba")
    rng = generator(3)
    layer = PrunedLayer(2, 3 + n_plain, 4, Pruner(5 + n_plain, 3, epsilon=0.9))
    params = perturbed(layer.init(rng), rng, scale=0.5)
    H, E_aw, dA = (rng.normal(size=(6, width)) for width in (3 + n_plain, 2, 4))
    alpha = np.array([1.7])

    def passes():
        A, cache = layer.forward(params, H, E_aw, alpha, keep, training=True)
        dH, dE_aw, grads = layer.backward(dA, cache, SENT[sent])
        pruner = grads.pop("pruner")
        arrays = A, cache.pi, cache.pruned.H_last, cache.pruner.v_in, dH, dE_aw
        return [*arrays, *grads.values(), *pruner.values()]

    want = passes()
    with compiled_loops("compiled"):
        assert layer.pruner.is_one_kernel(E_aw, H, alpha)
        got = passes()
    assert 0 < np.count_nonzero(want[1]) < want[1].size
    for g, w in zip(got, want, strict=True):
        expect_close(g, w, tol=1e-13)


@pytest.mark.parametrize("options", [{"prune": "scaling"}, {"fusion_grad": "ste"}])
def test_other_factors_are_no_kernel(options):
    pytest.importorskip("numba", reason="the kernel of a CPU needs Numba")
    pruner, x = Pruner(5, 3, **options), np.ones((6, 3))
    with compiled_loops("compiled"):
        assert not pruner.is_one_kernel(x, x, np.ones(1))


def test_a_pruned_input_is_not_there():
    """Whatever a removed neuron holds: the output and dW do not know it."""
    layer = PrunedLayer(1, 2, 1, Pruner(3, 2, epsilon=0.5))
    params = {"W": np.array([[1.0], [1.0]]), "b": np.zeros(1)}
    params["pruner"] = {"W": np.zeros((3, 2)), "b": np.array([-9.0, 0.0])}
    for hidden in (3.0, -4e6):
        H = np.array([[hidden, 2.0]])
        A, cache = layer.forward(params, H, np.zeros((1, 1)), 1.0, keep, training=True)
        assert A.tolist() == [[2.0]]
        dH, _, grads = layer.backward(np.ones((1, 1)), cache)
        assert dH.tolist() == [[0.0, 1.0]]
        assert grads["W"].tolist() == [[0.0], [2.0]]
        assert not grads["pruner"]["W"][:, 0].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("step", "value"), [(0, 0.1), (500, 2.55), (999, 4.9951), (1000, 5.0), (12345, 5.0)]
)
def test_schedule(step, value, dtype):
    found = linear_schedule(np.array([step], dtype), 0.1, 5.0, 1000)
    assert found.dtype == dtype
    assert found[0] == pytest.approx(value, rel=1e-6)
    if step >= 1000:
        assert found[0] == dtype(5.0)


def test_a_schedule_may_fall():
    steps = np.arange(4.0)
    np.testing.assert_allclose(linear_schedule(steps, 3.0, 1.0, 2), [3.0, 2.0, 1.0, 1.0])
