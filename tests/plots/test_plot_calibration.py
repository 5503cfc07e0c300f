"""Calibration: means and rates of bins of equally many rows, per scenario."""

import numpy as np
import pytest
from pictures import assert_png, line_of

from midpg_np.plots import plot_calibration


def rows(n=4000, seed=0):
    """Probabilities that come true in scenario 0 and 2, and half of the time in 3."""
    rng = np.random.default_rng(seed)
    scenario = rng.choice([0, 2, 3], n)
    p = rng.beta(2, 8, n)
    label = (rng.random(n) < p * np.where(scenario == 3, 0.5, 1.0)).astype(float)
    return p, label, scenario


def shown(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def test_points_are_means_and_rates_of_bins_of_equally_many_rows(tmp_path):
    p, label, scenario = rows()
    names = ["a", "b", "c", "d"]
    figure = plot_calibration(p, label, scenario, names, 8, tmp_path / "c.png")
    panels = shown(figure)
    assert [axes.get_title().split("\n")[0] for axes in panels] == ["a", "c", "d"]
    for axes, d in zip(panels, (0, 2, 3), strict=True):
        order = np.argsort(p[scenario == d])
        own_p, own_y = p[scenario == d][order], label[scenario == d][order]
        predicted, observed = line_of(axes, "a bin").get_data()
        assert len(predicted) == 8
        bins = np.array_split(np.arange(len(own_p)), 8)
        np.testing.assert_allclose(predicted, [own_p[b].mean() for b in bins], atol=2e-3)
        np.testing.assert_allclose(observed, [own_y[b].mean() for b in bins], atol=1e-2)
        assert axes.get_title().endswith(f"{len(own_p):,} rows, {int(own_y.sum()):,} positive")
        diagonal = line_of(axes, "observed = predicted").get_xydata()
        np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    assert figure.get_supxlabel() == "predicted rate (mean of a bin)"
    assert figure.get_supylabel() == "observed rate (share of positive labels)"
    assert_png(tmp_path / "c.png")


def test_rates_that_do_not_come_true_lie_below_the_diagonal():
    *_, good, bad = shown(plot_calibration(*rows()))
    predicted, observed = line_of(bad, "a bin").get_data()
    assert (observed < 0.75 * predicted).mean() > 0.8
    predicted, observed = line_of(good, "a bin").get_data()
    assert abs(observed.mean() - predicted.mean()) < 0.02


def test_one_class_equal_predictions_and_unknown_scenarios():
    figure = plot_calibration([0.2, 0.2, 0.2, 0.9], [0, 0, 0, 1], [0, 0, 0, -1])
    (axes,) = shown(figure)
    assert axes.get_title() == "scenario 0\n3 rows, 0 positive"
    np.testing.assert_allclose(line_of(axes, "a bin").get_xydata(), [[0.2, 0.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [1, 0], [0]), r"must have one length; got shapes \(1,\), \(2,\) and \(1,\)"),
        (([], [], []), "at least one row of a known scenario; got none"),
        (([0.5], [1], [-1]), "at least one row of a known scenario; got none"),
        (([0.5, 1.5], [1, 0], [0, 0]), r"probability must lie in \[0, 1\]; got 1.5 at row 1"),
        (([0.5, np.nan], [1, 0], [0, 0]), "got nan at row 1"),
        (([0.5, 0.5], [1, 2], [0, 0]), "label must be 0 or 1; got 2 at row 1"),
        (([0.5], [1], [1], ["a"]), "scenario must be below 1, the number of names; got 1 at row 0"),
    ],
)
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_calibration(*arguments)
