"""Losses on logits: values by hand, limits, reduction.  Derivatives: test_gradients.py."""

import numpy as np
import pytest
from strategies import generator

from midpg_np import losses
from midpg_np.checks import expect_close

LOG_2 = np.log(2.0)


def test_cross_entropy_by_hand():
    z, y = np.array([np.log(3.0), 0.0, -np.log(3.0)]), np.array([1.0, 0.0, 1.0])
    loss, cache = losses.cross_entropy(z, y)  # probabilities 3/4, 1/2, 1/4
    assert loss == pytest.approx((np.log(4 / 3) + LOG_2 + np.log(4.0)) / 3, rel=1e-15)
    dz = losses.cross_entropy_backward(1.0, cache)
    expect_close(dz, np.array([-0.25, 0.5, -0.75]) / 3, tol=1e-15)


def test_cross_entropy_is_a_mean_and_so_is_its_gradient():
    """The value of a batch written twice is the same, each row's gradient is half."""
    z, y = generator(1).normal(size=5), np.array([0.0, 1, 1, 0, 1])
    loss, cache = losses.cross_entropy(z, y)
    twice, cache_twice = losses.cross_entropy(np.tile(z, 2), np.tile(y, 2))
    assert twice == pytest.approx(loss, rel=1e-14)
    half = losses.cross_entropy_backward(1.0, cache_twice)[:5]
    expect_close(2.0 * half, losses.cross_entropy_backward(1.0, cache))


def test_cross_entropy_agrees_with_the_logarithm_of_probabilities():
    z, y = generator(2).normal(size=50), (generator(3).random(50) < 0.5).astype(float)
    p = 1.0 / (1.0 + np.exp(-z))
    naive = -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)).mean()
    assert losses.cross_entropy(z, y)[0] == pytest.approx(naive, rel=1e-14)


def test_scenario_means_by_hand():
    """Scenario 0 has losses a, b, c, scenario 4 has d: (mean(a, b, c) + d) / 2."""
    z, y = generator(4).normal(size=4), np.array([0.0, 1, 1, 0])
    weight = losses.scenario_mean_weights(np.array([0, 0, 4, 0]), np.float64)
    assert weight.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6], rel=1e-15)
    means = [losses.cross_entropy(z[rows], y[rows])[0] for rows in ([0, 1, 3], [2])]
    loss, cache = losses.cross_entropy(z, y, weight)
    assert loss == pytest.approx(sum(means) / 2, rel=1e-14)
    p = 1.0 / (1.0 + np.exp(-z))
    expect_close(losses.cross_entropy_backward(1.0, cache), (p - y) * weight)


def test_equal_scenarios_make_both_reductions_the_same():
    z, y = generator(5).normal(size=6), np.array([0.0, 1, 1, 0, 1, 0])
    weight = losses.scenario_mean_weights(np.array([2, 0, 1, 2, 1, 0]), np.float64)
    assert losses.cross_entropy(z, y, weight)[0] == pytest.approx(
        losses.cross_entropy(z, y)[0], rel=1e-14
    )


def test_positive_cross_entropy_leaves_negatives_alone():
    z, y = np.array([0.0, 2.0]), np.array([1.0, 0.0])
    loss, cache = losses.positive_cross_entropy(z, y)
    assert loss == pytest.approx(LOG_2 / 2, rel=1e-15)
    assert losses.positive_cross_entropy_backward(1.0, cache).tolist() == [-0.25, 0.0]


@pytest.mark.parametrize("kind", losses.CROSS_ENTROPIES)
def test_a_weighted_loss_is_the_sum_of_weighted_rows(kind):
    loss = losses.CROSS_ENTROPIES[kind]
    z, y = generator(6).normal(size=5), np.array([0.0, 1, 1, 0, 1])
    weight = np.array([0.1, 0.4, 0.2, 0.05, 0.25])
    value, cache = loss.forward(z, y, weight)
    alone = [loss.forward(z[i : i + 1], y[i : i + 1]) for i in range(5)]
    assert value == pytest.approx(sum(w * one for w, (one, _) in zip(weight, alone, strict=True)))
    d_alone = np.concatenate([loss.backward(0.7, c) for _, c in alone])
    expect_close(loss.backward(0.7, cache), weight * d_alone)


def test_regulariser_at_zero_is_2_log_2():
    """Not log 2: the mean is over B pairs of each kind, not over 2B pairs."""
    for B in (1, 2, 7):
        t = np.zeros(B)
        loss, cache = losses.jensen_shannon(t, t)
        assert loss == pytest.approx(2.0 * LOG_2, rel=1e-15)
        dt_pos, dt_neg = losses.jensen_shannon_backward(1.0, cache)
        expect_close(dt_pos, np.full(B, -0.5 / B), tol=1e-15)
        expect_close(dt_neg, np.full(B, 0.5 / B), tol=1e-15)


def test_regulariser_is_small_when_pairs_are_told_apart():
    good, _ = losses.jensen_shannon(np.full(3, 9.0), np.full(3, -9.0))
    bad, _ = losses.jensen_shannon(np.full(3, -9.0), np.full(3, 9.0))
    assert good < 1e-3 < 17.0 < bad


def test_regulariser_reaches_its_known_optimum():
    """derivations 3.3: D equally likely scenarios, T* = 1 / (1 + 1/D) on matching pairs."""
    for D, optimum in ((2, 0.9548), (3, 0.7498), (10, 0.3351)):
        t_match = np.log(D)  # the logit of T* = D / (D + 1)
        t_pos = np.full(D * D, t_match)
        is_match = np.arange(D * D) % D == 0  # independent draws collide with probability 1/D
        t_neg = np.where(is_match, t_match, -800.0)
        assert losses.jensen_shannon(t_pos, t_neg)[0] == pytest.approx(optimum, abs=1e-4)


@pytest.mark.parametrize("kind", losses.CROSS_ENTROPIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(kind, dtype):
    loss = losses.CROSS_ENTROPIES[kind]
    z, y = np.array([-800.0, 800.0, -800.0, 800.0], dtype), np.array([0, 1, 1, 0], dtype)
    value, cache = loss.forward(z, y)
    dz = loss.backward(1.0, cache)
    assert value == (400.0 if kind == "full" else 200.0)
    assert dz.tolist() == ([0.0, 0.0, -0.25, 0.25] if kind == "full" else [0.0, 0.0, -0.25, 0.0])
    assert {value.dtype, dz.dtype} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_of_the_regulariser(dtype):
    t = np.array([800.0, -800.0], dtype)
    value, cache = losses.jensen_shannon(t, t)
    d_pos, d_neg = losses.jensen_shannon_backward(1.0, cache)
    assert value == 800.0
    assert d_pos.tolist() == [0.0, -0.5]
    assert d_neg.tolist() == [0.5, 0.0]
    assert {value.dtype, d_pos.dtype, d_neg.dtype} == {np.dtype(dtype)}
