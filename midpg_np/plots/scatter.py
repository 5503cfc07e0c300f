"""Points in the plane by scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from midpg_np.plots.style import new_figure, save, scenario_style

# Labels nearer than this share of the picture would cover each other: the later one is left out.
LABEL_DISTANCE = 0.045


def plot_scatter(
    panels: Mapping[str, tuple[Any, Any]], names: Sequence[str], path: Any = None
) -> Any:
    """Draw points in the plane by scenario, which colour and shape tell, one panel per title.

    The number of a scenario stands at the median of its points, unless another one stands there.
    Axes have no ticks: those of t-SNE have no unit.

    Parameters
    ----------
    panels : mapping of title to (points, scenario)
    names : (D,) sequence of str
        Names of the scenarios.
    path : path or file, optional
        Where to save the picture (PNG).

    Shapes
    ------
    points : (N, 2)
    scenario : (N,)

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If there is nothing to draw.
    ImportError
        If matplotlib is missing.
    """
    if not panels:
        raise ValueError("plot_scatter needs at least one panel; got none.")
    figure = new_figure(4.4 * len(panels) + 1.8, 4.4)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (points, scenario)) in zip(row, panels.items(), strict=True):
        points, scenario = np.asarray(points), np.asarray(scenario)
        for d, name in enumerate(names):
            own = points[scenario == d]
            look = {"linewidths": 0.3, "edgecolors": "white", **scenario_style(d)}
            axes.scatter(own[:, 0], own[:, 1], s=22, alpha=0.85, label=_numbered(d, name), **look)
        _label_centres(axes, points, scenario, len(names))
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    save(figure, path)
    return figure


def _numbered(d: int, name: str) -> str:
    """Return a name with its number before it, unless it ends in that number."""
    return name if name.split()[-1:] == [str(d)] else f"{d}  {name}"


def _label_centres(axes: Any, points: np.ndarray, scenario: np.ndarray, n_scenarios: int) -> None:
    from matplotlib.patheffects import withStroke

    if not len(points):
        return
    extent = np.maximum(np.ptp(points, axis=0), np.finfo(float).tiny)
    placed: list[np.ndarray] = []
    for d in range(n_scenarios):
        own = points[scenario == d]
        if not len(own):
            continue
        centre = np.median(own, axis=0)
        if any(np.abs((centre - other) / extent).max() < LABEL_DISTANCE for other in placed):
            continue
        placed.append(centre)
        halo = [withStroke(linewidth=2.5, foreground="white")]
        look = {"ha": "center", "va": "center", "fontsize": 9, "fontweight": "bold"}
        axes.text(*centre, str(d), path_effects=halo, zorder=5, **look)
