"""Whether predicted rates come true, scenario by scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from midpg_np.plots.style import STYLES, clean, new_figure, save


def plot_calibration(
    probability: Any,
    label: Any,
    scenario: Any,
    names: Sequence[str] | None = None,
    n_bins: int = 10,
    path: Any = None,
) -> Any:
    """Draw the observed rate against the predicted one, one panel per scenario that has rows.

    The rows of a scenario are put into bins of equally many by their prediction, since rates are
    small; a point is the mean prediction of a bin and its share of positive labels.  On the
    diagonal predictions come true.

    Parameters
    ----------
    probability : array
        Predicted probabilities.
    label : array
        0 or 1.
    scenario : array of int
        Scenario ids; rows of unknown scenario (-1) are left out.
    names : sequence of str, optional
        Names of the scenarios by id; their ids, if not given.
    n_bins : int
        Bins per scenario at most: equal predictions share a bin.
    path : path or file, optional
        Where to save the picture (PNG).

    Shapes
    ------
    probability : (N,)
    label : (N,)
    scenario : (N,)

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If lengths differ, there is nothing to draw, a probability is outside [0, 1], a label is
        neither 0 nor 1, or a scenario has no name.
    ImportError
        If matplotlib is missing.
    """
    p, y, s = np.asarray(probability), np.asarray(label), np.asarray(scenario)
    names = _names(s, names)
    _check(p, y, s, names)
    present = [d for d in range(len(names)) if (s == d).any()]
    n_columns = min(4, len(present))
    n_rows = -(-len(present) // n_columns)
    figure = new_figure(2.6 * n_columns + 0.4, 2.75 * n_rows + 0.6)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes, d in zip(grid.flat, present, strict=False):
        own = s == d
        _draw_bins(axes, p[own], y[own], n_bins)
        axes.set_title(f"{names[d]}\n{own.sum():,} rows, {int(y[own].sum()):,} positive", size=9)
    for axes in grid.flat[len(present) :]:
        axes.set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    figure.supxlabel("predicted rate (mean of a bin)", fontsize=10)
    figure.supylabel("observed rate (share of positive labels)", fontsize=10)
    save(figure, path)
    return figure


def _draw_bins(axes: Any, p: np.ndarray, y: np.ndarray, n_bins: int) -> None:
    from sklearn.calibration import calibration_curve

    bins = {"n_bins": n_bins, "strategy": "quantile"}
    observed, predicted = calibration_curve(y, p, pos_label=1, **bins)
    axes.plot(predicted, observed, linewidth=1.4, markersize=4, label="a bin", **STYLES[0])
    top = 1.08 * max(observed.max(), predicted.max(), 1e-3)
    line = {"color": "#777777", "linestyle": ":", "linewidth": 1.2}
    axes.plot([0.0, top], [0.0, top], label="observed = predicted", **line)
    axes.set_xlim(0.0, top)
    axes.set_ylim(0.0, top)
    axes.set_aspect("equal")
    clean(axes)


def _names(scenario: np.ndarray, names: Sequence[str] | None) -> Sequence[str]:
    if names is not None:
        return names
    return [f"scenario {d}" for d in range(int(scenario.max(initial=-1)) + 1)]


def _check(p: np.ndarray, y: np.ndarray, s: np.ndarray, names: Sequence[str]) -> None:
    if not p.shape == y.shape == s.shape or p.ndim != 1:
        raise ValueError(
            f"probability, label and scenario must have one length; got shapes {p.shape}, "
            f"{y.shape} and {s.shape}."
        )
    if not (s >= 0).any():
        raise ValueError("plot_calibration needs at least one row of a known scenario; got none.")
    for name, is_bad, values, wanted in (
        ("probability", ~((p >= 0.0) & (p <= 1.0)), p, "lie in [0, 1]"),
        ("label", ~((y == 0) | (y == 1)), y, "be 0 or 1"),
        ("scenario", s >= len(names), s, f"be below {len(names)}, the number of names"),
    ):
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise ValueError(f"{name} must {wanted}; got {values[row]} at row {row}.")
