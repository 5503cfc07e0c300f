"""Where in an array an error sits."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.plots.style import HEAT, new_figure, save


def plot_error_map(excess: Any, name: str, path: Any = None, most: int = 64) -> Any:
    """Draw where in an array an error sits, as powers of ten beyond what rounding explains.

    Parameters
    ----------
    excess : array
        Absolute error of each entry over the allowed error; what is not above 1 is right.  Leading
        axes are put below each other; of long axes neighbours share a cell, which shows their
        largest.
    name : str
        What the array is.
    path : path or file, optional
        Where to save the picture (PNG).
    most : int
        Largest number of cells along an axis.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    shape = np.shape(excess)
    rows = np.reshape(excess, (-1, shape[-1])) if len(shape) > 1 else np.reshape(excess, (1, -1))
    cells = np.log10(np.maximum(_largest_in_cells(rows, most), 1.0))
    title = f"{name} {shape}"
    height, width = (max(2.6, 1.6 + 0.06 * n) for n in cells.shape)
    figure = new_figure(max(width, 0.08 * len(title)), height)
    axes = figure.subplots()
    top = max(1.0, float(cells.max(initial=0.0)))
    image = axes.imshow(cells, cmap=HEAT, vmin=0.0, vmax=top, aspect="auto")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("last axis" if len(shape) > 1 else "entry")
    axes.set_ylabel("" if len(shape) < 2 else "first axis" if len(shape) == 2 else "leading axes")
    if len(shape) < 2:
        axes.yaxis.set_visible(False)
    for axis, i in ((axes.xaxis, 1), (axes.yaxis, 0)):
        n_cells, n = cells.shape[i], rows.shape[i]
        axis.set_ticks([0, n_cells - 1][:n_cells], ["0", str(n - 1)][:n_cells])
    figure.colorbar(image, label="log10 of error / allowed")
    save(figure, path, dpi=110)
    return figure


def _largest_in_cells(rows: Any, most: int) -> Any:
    """Return the matrix with at most ``most`` cells an axis, each the largest of its entries."""
    for axis in (0, 1):
        n = rows.shape[axis]
        starts = np.unique(np.arange(min(n, most)) * n // max(min(n, most), 1))
        rows = np.maximum.reduceat(rows, starts, axis=axis) if n else rows
    return rows
