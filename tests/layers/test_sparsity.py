"""Sparsity regulariser: values by hand.  The interval is (0.15, 0.25), its middle 0.2."""

import numpy as np
import pytest

from midpg_np.layers.sparsity import Sparsity

LAMBDA_HAT = 0.5


def keep(name, x):
    return x


def penalty(pi, **options):
    layer = Sparsity(**options)
    value, cache = layer.forward(np.array(pi), LAMBDA_HAT, keep)
    return float(value), layer.backward(1.0, cache)


# 4 of 10 pruned: r = 0.4, distance 0.2, penalty 0.5 x 0.04.
FOUR_OF_TEN = [[1.0, 1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0, 1.0]]


def test_too_sparse():
    value, d = penalty(FOUR_OF_TEN)
    assert value == pytest.approx(0.02, abs=1e-15)
    np.testing.assert_allclose(d, np.full((2, 5), -0.02), rtol=0, atol=1e-16)


def test_pruned_factors_get_the_same_gradient_as_kept_ones():
    """Otherwise straight-through could only raise what is kept already."""
    _, d = penalty(FOUR_OF_TEN)
    assert len(np.unique(d)) == 1


def test_a_constant_weight_halves_the_gradient_and_keeps_the_value():
    value, d = penalty(FOUR_OF_TEN, lambda_detach=True)
    assert value == pytest.approx(0.02, abs=1e-15)
    np.testing.assert_allclose(d, np.full((2, 5), -0.01), rtol=0, atol=1e-16)


def test_not_sparse_enough_pushes_factors_down():
    """All kept: r = 0, distance 0.2."""
    value, d = penalty(np.ones((2, 5)))
    assert value == pytest.approx(0.02, abs=1e-15)
    np.testing.assert_allclose(d, np.full((2, 5), 0.02), rtol=0, atol=1e-16)


def test_r_may_be_negative():
    """Factors of 1.5: r = -0.5, distance 0.7."""
    value, d = penalty(np.full((2, 5), 1.5))
    assert value == pytest.approx(0.5 * 0.49, abs=1e-15)
    np.testing.assert_allclose(d, np.full((2, 5), 0.07), rtol=0, atol=1e-16)


def test_no_penalty_inside_the_interval_its_edges_included():
    one_of_five = [[1.0, 1.0, 1.0, 1.0, 0.0]]
    one_of_four = [[1.0, 1.0, 1.0, 0.0]]  # r = 0.25 exactly
    for pi in (one_of_five, one_of_four):
        value, d = penalty(pi)
        assert value == 0.0
        assert not d.any()
    assert penalty(one_of_four, r_max=0.2499)[0] > 0.0


def test_each_sample_on_its_own():
    """Rows with r = 0.4, 0.2 and 0: penalties 0.02, 0, 0.02 and a mean over three rows."""
    pi = [[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0], [1.0] * 5]
    value, d = penalty(pi, ratio="per_sample")
    assert value == pytest.approx(0.04 / 3, abs=1e-15)
    want = np.repeat([[-0.04 / 3], [0.0], [0.04 / 3]], 5, axis=1)
    np.testing.assert_allclose(d, want, rtol=0, atol=1e-15)
    assert penalty(pi)[0] == 0.0  # together 3 of 15: r = 0.2


def test_one_row_makes_no_difference_between_the_ratios():
    row = [[0.4, 0.3, 0.0, 1.2]]
    batch, sample = (penalty(row, ratio=ratio) for ratio in ("batch", "per_sample"))
    assert batch[0] == sample[0]
    np.testing.assert_array_equal(batch[1], sample[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "mean"}, "ratio must be one of"),
        ({"r_min": 0.3}, "r_min must not be above r_max; got r_min = 0.3, r_max = 0.25"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Sparsity(**options)
