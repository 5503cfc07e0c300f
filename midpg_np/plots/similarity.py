"""How alike scenarios are, as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from midpg_np.plots.style import heat_map, new_figure, save


def plot_similarity(
    rows: Mapping[str, Mapping[str, Any]], names: Sequence[str], path: Any = None
) -> Any:
    """Draw how alike scenarios are, as heat maps: a row of panels per title.

    Panels below each other have one scale, which ends at 1 and begins at their smallest value; the
    diagonal, always 1, is left out.

    Parameters
    ----------
    rows : mapping of title to mapping of measure to matrix
        The same measures in every row.
    names : (D,) sequence of str
        Names of the scenarios.
    path : path or file, optional
        Where to save the picture (PNG).

    Shapes
    ------
    matrix : (D, D)
        NaN, drawn white, where it is not defined.

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
    if not rows:
        raise ValueError("plot_similarity needs at least one row of panels; got none.")
    measures = list(next(iter(rows.values())))
    side = max(2.9, 1.2 + 0.22 * len(names))
    figure = new_figure((side + 0.6) * len(measures) + 1.0, side * len(rows) + 0.8)
    grid = figure.subplots(len(rows), len(measures), squeeze=False, sharex=True, sharey=True)
    apart = ~np.eye(len(names), dtype=bool)
    for j, measure in enumerate(measures):
        matrices = [np.where(apart, of_row[measure], np.nan) for of_row in rows.values()]
        known = np.concatenate([m[np.isfinite(m)] for m in matrices])
        bottom = float(known.min(initial=1.0))
        for axes, title, matrix in zip(grid[:, j], rows, matrices, strict=True):
            image = heat_map(axes, matrix, min(bottom, 1.0 - 1e-6), 1.0)
            axes.set_title(f"{title}: {measure}", fontsize=9)
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
        figure.colorbar(image, ax=list(grid[:, j]), shrink=0.7, label=measure)
    save(figure, path, dpi=130)
    return figure
