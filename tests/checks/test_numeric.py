"""Numerical derivatives: exactness, and what they refuse."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks.numeric import (
    central_differences,
    complex_steps,
    directional_complex_step,
)


def cubic(tree):
    return (tree["a"]["x"] ** 3).sum() + tree["b"].sum()


TREE = {"a": {"x": np.array([[1.0, 2.0], [3.0, 4.0]])}, "b": np.zeros(2)}


def test_the_complex_step_is_exact():
    got = complex_steps(cubic, TREE, "a.x", np.ndindex(2, 2))
    assert got == pytest.approx([3.0, 12.0, 27.0, 48.0], rel=1e-15)
    assert complex_steps(cubic, TREE, "b", [(1,)]).tolist() == [1.0]
    assert complex_steps(cubic, TREE, "b", []).shape == (0,)


def test_differences_of_fourth_order_are_exact_for_cubics_up_to_rounding():
    got = central_differences(cubic, TREE, "a.x", np.ndindex(2, 2))
    assert got == pytest.approx([3.0, 12.0, 27.0, 48.0], rel=1e-9)


@pytest.mark.parametrize("order", [2, 4])
def test_differences_have_their_order(order):
    def error(step):
        tree = {"x": np.array([0.3])}
        (slope,) = central_differences(
            lambda t: np.exp(t["x"][0]), tree, "x", [(0,)], step, order=order
        )
        return abs(slope - np.exp(0.3))

    assert error(0.2) / error(0.1) == pytest.approx(2.0**order, rel=0.05)


def test_a_direction_adds_up_the_entries():
    direction = generator(1).normal(size=(2, 2))
    want = (3.0 * TREE["a"]["x"] ** 2 * direction).sum()
    got = directional_complex_step(cubic, TREE, "a.x", direction)
    assert got == pytest.approx(want, rel=1e-14)


def test_the_tree_is_left_alone():
    before = TREE["a"]["x"].copy()
    complex_steps(cubic, TREE, "a.x", np.ndindex(2, 2))
    central_differences(cubic, TREE, "a.x", np.ndindex(2, 2))
    assert np.array_equal(TREE["a"]["x"], before)


def test_every_entry_is_moved_alone():
    """The shared copy of the leaf is back at its start before the next entry is moved."""
    seen = []

    def spy(tree):
        seen.append(tree["b"] - TREE["b"])
        return tree["b"].sum()

    complex_steps(spy, TREE, "b", [(0,), (1,)])
    assert [np.flatnonzero(moved).tolist() for moved in seen] == [[0], [1]]


def test_throwing_the_imaginary_part_away_is_an_error():
    def discards(tree):
        out = np.zeros(2)
        out[:] = tree["b"]
        return out.sum()

    with pytest.raises(np.exceptions.ComplexWarning):
        complex_steps(discards, TREE, "b", [(0,)])


def test_abs_is_why_there_are_two_witnesses():
    """|x| is not analytic: the complex step sees slope zero, differences see one."""
    tree = {"x": np.array([2.0])}
    assert complex_steps(lambda t: abs(t["x"][0]), tree, "x", [(0,)]) == [0.0]
    assert central_differences(lambda t: abs(t["x"][0]), tree, "x", [(0,)]) == pytest.approx([1.0])
