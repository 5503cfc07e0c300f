"""Error against step size: logarithmic on both sides, and a place for an error of zero."""

import numpy as np
import pytest
from pictures import assert_png, legend_texts, line_of, look

from midpg_np.plots import plot_step_sizes

STEPS = 10.0 ** np.arange(-12, 0)
VALLEY = STEPS**2 + 1e-16 / STEPS


def test_valley_and_plateau(tmp_path):
    errors = {"differences": VALLEY, "complex step": np.full(12, 1e-16)}
    figure = plot_step_sizes(STEPS, errors, tmp_path / "s.png")
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step size", "error of the derivative")
    for name, error in errors.items():
        np.testing.assert_array_equal(line_of(axes, name).get_data(), [STEPS, error])
    assert len({look(line_of(axes, name)) for name in errors}) == 2
    assert legend_texts(figure) == list(errors)
    assert_png(tmp_path / "s.png")


def test_an_error_of_zero_stands_below_all_others():
    exact = np.where(STEPS < 1e-6, 0.0, STEPS**2)
    (axes,) = plot_step_sizes(STEPS, {"complex step": exact}).axes
    np.testing.assert_array_equal(line_of(axes, "complex step").get_ydata(), exact)
    heights = axes.transData.transform(np.stack([STEPS, exact], axis=1))[:, 1]
    assert axes.get_ylim()[0] == 0.0
    assert (np.diff(heights[exact > 0]) > 10).all()  # a decade is not squeezed
    assert heights[exact > 0].min() > heights[0]


def test_only_zeros_and_what_is_not_finite():
    (axes,) = plot_step_sizes([1e-3, 1e-2], {"exact": [0.0, np.inf]}).axes
    assert line_of(axes, "exact").get_ydata().tolist() == [0.0, np.inf]
    assert np.isfinite(axes.get_ylim()).all()


@pytest.mark.parametrize(
    ("steps", "errors", "message"),
    [
        (STEPS, {}, "draws 1 to 4 methods; got 0"),
        (STEPS, {"a": VALLEY[1:]}, r"one value per step; got shape \(11,\) for .* \(12,\)"),
        (STEPS, {"a": -VALLEY}, "errors of 'a' must not be below 0; got -"),
        (-STEPS, {"a": VALLEY}, "steps must be above 0; got -0.1"),
    ],
)
def test_what_cannot_be_drawn(steps, errors, message):
    with pytest.raises(ValueError, match=message):
        plot_step_sizes(steps, errors)
