"""Numerical derivatives: exactness, and what they refuse."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks.numeric import (
    central_difference,
    complex_step,
    directional_complex_step,
    gradient_at,
)


def cubic(tree):
    return (tree["a"]["x"] ** 3).sum() + tree["b"].sum()


TREE = {"a": {"x": np.array([[1.0, 2.0], [3.0, 4.0]])}, "b": np.zeros(2)}


def test_the_complex_step_is_exact():
    assert complex_step(cubic, TREE, "a.x", (1, 0)) == pytest.approx(27.0, rel=1e-15)
    assert complex_step(cubic, TREE, "b", (1,)) == 1.0


def test_differences_of_fourth_order_are_exact_for_cubics_up_to_rounding():
    assert central_difference(cubic, TREE, "a.x", (1, 1)) == pytest.approx(48.0, rel=1e-9)


def test_differences_have_order_4():
    def error(step):
        tree = {"x": np.array([0.3])}
        return abs(
            central_difference(lambda t: np.exp(t["x"][0]), tree, "x", (0,), step) - np.exp(0.3)
        )

    assert error(0.2) / error(0.1) == pytest.approx(16.0, rel=0.05)


def test_a_direction_adds_up_the_entries():
    direction = generator(1).normal(size=(2, 2))
    want = (3.0 * TREE["a"]["x"] ** 2 * direction).sum()
    got = directional_complex_step(cubic, TREE, "a.x", direction)
    assert got == pytest.approx(want, rel=1e-14)


def test_the_tree_is_left_alone():
    before = TREE["a"]["x"].copy()
    gradient_at(complex_step, cubic, TREE, "a.x", np.ndindex(2, 2))
    gradient_at(central_difference, cubic, TREE, "a.x", np.ndindex(2, 2))
    assert np.array_equal(TREE["a"]["x"], before)


def test_throwing_the_imaginary_part_away_is_an_error():
    def discards(tree):
        out = np.zeros(2)
        out[:] = tree["b"]
        return out.sum()

    with pytest.raises(np.exceptions.ComplexWarning):
        complex_step(discards, TREE, "b", (0,))


def test_abs_is_why_there_are_two_witnesses():
    """|x| is not analytic: the complex step sees slope zero, differences see one."""
    tree = {"x": np.array([2.0])}
    assert complex_step(lambda t: abs(t["x"][0]), tree, "x", (0,)) == 0.0
    assert central_difference(lambda t: abs(t["x"][0]), tree, "x", (0,)) == pytest.approx(1.0)
