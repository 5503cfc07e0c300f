"""Partitioned normalisation: values by hand, groups of one and of none, moving statistics."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed
from midpg_np.layers.groups import group_mean, group_rows, group_sum, spread
from midpg_np.layers.partitioned_norm import PartitionedNorm

# Scenario 0 has rows 1 and 3, scenario 2 one row, scenario 1 none.
GROUPS = group_rows(np.array([0, 0, 2]), 3)
X = np.array([[1.0], [3.0], [5.0]])


def column(*values):
    return np.array(values, dtype=float)[:, None]


PARAMS = {
    "gamma": np.array([2.0]),
    "beta": np.array([1.0]),
    "scenario_gamma": column(3.0, np.nan, 0.5),
    "scenario_beta": column(10.0, np.nan, 20.0),
    "mean": column(7.0, np.nan, 1.0),
    "variance": column(13.0, np.nan, 13.0),
}
# 1 + eps = 4 and 13 + eps = 16, so the roots are 2 and 4.
LAYER = PartitionedNorm(3, 1, eps=3.0, momentum=0.5)


def test_training_by_hand():
    """Scenario 0: mu = 2, nu = 1, X_hat = -1/2, 1/2, V = 6 X_hat + 11.

    Scenario 2 has one row and uses its moving statistics: X_hat = (5 - 1) / 4, V = 1 + 21.
    """
    V, c = LAYER.forward(PARAMS, X, GROUPS, is_training=True)
    assert c.mu[:, 0].tolist() == [2.0, 1.0]
    assert c.nu[:, 0].tolist() == [1.0, 13.0]
    assert c.from_batch.tolist() == [True, False]
    assert c.X_hat[:, 0].tolist() == [-0.5, 0.5, 1.0]
    assert V[:, 0].tolist() == [8.0, 14.0, 22.0]


def test_inference_by_hand():
    """Scenario 0: (1 - 7) / 4 and (3 - 7) / 4, times 6, plus 11."""
    V, c = LAYER.forward(PARAMS, X, GROUPS, is_training=False)
    assert not c.from_batch.any()
    assert V[:, 0].tolist() == [2.0, 5.0, 22.0]


def test_backward_by_hand():
    """dV = (1, 0, 1).  Scenario 0: dX_hat = (6, 0), its mean 3, that of dX_hat X_hat -3/2.

    dX = (6 - 3 - 3/4, 0 - 3 + 3/4) / 2; scenario 2, by constants: dX = 1 / 4.
    Sums of dV X_hat are -1/2 and 1: dgamma = 3 (-1/2) + 1/2, dgamma_d = -1 and 2.
    """
    _, c = LAYER.forward(PARAMS, X, GROUPS, is_training=True)
    dX, grads = LAYER.backward(column(1.0, 0.0, 1.0), c)
    assert dX[:, 0].tolist() == [1.125, -1.125, 0.25]
    grads = {key: g.reshape(-1).tolist() for key, g in dense_gradients(grads).items()}
    assert grads == {
        "gamma": [-1.0],
        "beta": [2.0],
        "scenario_gamma": [-1.0, 0.0, 2.0],
        "scenario_beta": [1.0, 0.0, 1.0],
    }


def test_backward_at_inference_by_hand():
    """Moving statistics are constants: dX = scale / 4, here 6 / 4 and 1 / 4."""
    _, c = LAYER.forward(PARAMS, X, GROUPS, is_training=False)
    dX, _ = LAYER.backward(column(1.0, 2.0, 1.0), c)
    assert dX[:, 0].tolist() == [1.5, 3.0, 0.25]


def test_moving_statistics_by_hand():
    """rho_m = 1/2: the mean of scenario 0 goes 7, 9/2, 13/4, its variance 13, 7, 4."""
    _, c = LAYER.forward(PARAMS, X, GROUPS, is_training=True)
    once = LAYER.advance(PARAMS, c)
    assert once["mean"][[0, 2], 0].tolist() == [4.5, 1.0]
    assert once["variance"][[0, 2], 0].tolist() == [7.0, 13.0]
    twice = LAYER.advance(once, c)
    assert twice["mean"][0, 0] == 3.25
    assert twice["variance"][0, 0] == 4.0
    assert PARAMS["mean"][0, 0] == 7.0, "the parameters given must stay as they are"
    assert twice["gamma"] is PARAMS["gamma"]


def test_k_steps_in_closed_form():
    """M_k = (1 - rho^k) mu from 0 and N_k = nu + rho^k (N_0 - nu), for equal batches."""
    layer, rho, start = PartitionedNorm(3, 4, initial_variance=0.25), 0.9, 0.25
    params, groups = layer.init(generator(1)), group_rows(np.array([0] * 6), 3)
    x = generator(2).normal(3.0, 2.0, size=(6, 4))
    for _ in range(7):
        params = layer.advance(params, layer.forward(params, x, groups, is_training=True)[1])
    mu, nu = x.mean(axis=0), x.var(axis=0)
    np.testing.assert_allclose(params["mean"][0], (1 - rho**7) * mu, rtol=1e-13)
    np.testing.assert_allclose(params["variance"][0], nu + rho**7 * (start - nu), rtol=1e-13)
    assert not params["mean"][1:].any()
    assert (params["variance"][1:] == start).all()


def test_nothing_moves_without_a_scenario_of_two_rows():
    for scenario, is_training in (([2, 0], True), ([0, 0], False)):
        groups = group_rows(np.array(scenario), 3)
        _, c = LAYER.forward(PARAMS, X[:2], groups, is_training=is_training)
        moved = LAYER.advance(PARAMS, c)
        for key in ("mean", "variance"):
            np.testing.assert_array_equal(moved[key], PARAMS[key])


def test_inside_each_group_mean_0_and_variance_nearly_1():
    layer, rng = PartitionedNorm(4, 5), generator(3)
    groups = group_rows(np.array([1, 0, 1, 0, 0, 3, 1]), 4)
    x = rng.normal(4.0, 3.0, size=(7, 5))
    _, c = layer.forward(layer.init(rng), x, groups, is_training=True)
    for rows in groups.slices[:2]:
        np.testing.assert_allclose(c.X_hat[rows].mean(axis=0), 0.0, atol=1e-14)
        np.testing.assert_allclose(c.X_hat[rows].var(axis=0), 1.0, atol=1e-4)


def test_the_adjoint_sums_to_zero_inside_each_group():
    """Adding a constant to all rows of a scenario does not change V; not so for a single row."""
    layer, rng = PartitionedNorm(4, 5, initial_variance=4.0), generator(4)
    groups = group_rows(np.array([1, 0, 1, 0, 0, 3, 1]), 4)
    params = perturbed(layer.init(rng), rng, 0.3)
    _, c = layer.forward(params, rng.normal(size=(7, 5)), groups, is_training=True)
    dX, _ = layer.backward(rng.normal(size=(7, 5)), c)
    sums = group_sum(dX, groups)
    assert np.abs(sums[:2]).max() <= 1e-13 * np.abs(dX).max()
    assert np.abs(sums[2]).min() > 1e-3


@pytest.mark.parametrize("scenario", [[1], [0, 1, 2], [0, 0, 0], [2, 0, 2]])
def test_no_batch_makes_a_nan(scenario):
    """Absent scenarios, single rows, and a column that is constant inside a scenario."""
    layer, groups = PartitionedNorm(3, 2), group_rows(np.array(scenario), 3)
    x = np.ones((len(scenario), 2))
    params = layer.init(generator(5))
    with np.errstate(all="raise"):
        V, c = layer.forward(params, x, groups, is_training=True)
        dX, grads = layer.backward(np.ones_like(x), c)
        moved = layer.advance(params, c)
    for array in (V, dX, *dense_gradients(grads).values(), *moved.values()):
        assert np.isfinite(array).all()


def test_a_large_mean_costs_no_digits_in_float32():
    """Mean of squares less square of the mean would leave nothing of a variance of 1 at 10^4."""
    layer, rng = PartitionedNorm(1, 3), generator(6)
    groups = group_rows(np.zeros(500, dtype=int), 1)
    x = (1e4 + rng.normal(size=(500, 3))).astype(np.float32)
    params = {key: leaf.astype(np.float32) for key, leaf in layer.init(rng).items()}
    V, c = layer.forward(params, x, groups, is_training=True)
    exact = x.astype(np.float64)
    want = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + layer.eps)
    assert V.dtype == c.nu.dtype == np.float32
    np.testing.assert_allclose(V, want, atol=5e-3)
    assert layer.advance(params, c)["variance"].dtype == np.float32


def test_group_sum_mean_and_spread_by_hand():
    x = column(1.0, 3.0, 5.0)
    assert group_sum(x, GROUPS)[:, 0].tolist() == [4.0, 5.0]
    assert group_mean(x, GROUPS)[:, 0].tolist() == [2.0, 5.0]
    assert spread(column(4.0, 6.0), GROUPS)[:, 0].tolist() == [4.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps must be positive; got 0.0"),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\]; got 1.5"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\]; got -0.1"),
        ({"initial_variance": -1.0}, "initial_variance must not be negative; got -1.0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PartitionedNorm(3, 2, **options)
