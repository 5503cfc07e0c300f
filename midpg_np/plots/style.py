"""The look that all figures share: sizes, line styles, colours, heat maps, saving."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe and Ito's colours keep apart for the colour-blind; dashes and markers do so in grey.
STYLES = (
    {"color": "#0072b2", "linestyle": "-", "marker": "o"},
    {"color": "#d55e00", "linestyle": "--", "marker": "s"},
    {"color": "#009e73", "linestyle": "-.", "marker": "^"},
    {"color": "#555555", "linestyle": ":", "marker": "D"},
)
# Colours of Okabe and Ito, Tol and ColorBrewer, chosen so that no two come nearer than 0.07 in
# OKLab, neither as they are nor as protan-, deuteran- or tritanopes see them (simulated after
# Machado et al. 2009); those that are farthest apart come first.
SCENARIO_COLORS = (
    *("#2166ac", "#000000", "#ddcc77", "#d55e00", "#56b4e9", "#882255"),
    *("#009e73", "#332288", "#e69f00", "#b2182b", "#cc79a7", "#bbbbbb"),
)
SCENARIO_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "h", ">", "p")
HEAT = "cividis"  # as good for the colour-blind, and its grey rises evenly
MOST_LABELS = 8  # cells along an axis of a heat map that have room for their values


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib Figure, ``width`` and ``height`` in inches; it needs no display.

    Raises
    ------
    ImportError
        If matplotlib is missing; the message names the extra to install.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed; install the extra 'app' "
            "(pip install 'midpg_np[app]')."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Any, dpi: int = 150) -> None:
    """Save a figure as PNG, unless ``path`` is None."""
    if path is not None:
        figure.savefig(path, format="png", dpi=dpi)


def clean(axes: Any, axis: str = "y") -> None:
    """Leave two sides of the frame and a light grid across one axis ("x", "y" or "both")."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=axis, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def scenario_style(d: int) -> dict[str, str]:
    """Return "color" and "marker" of scenario ``d``, as matplotlib takes them.

    There are twelve of each before one returns, and of 144 scenarios no two have both in common.
    """
    n = len(SCENARIO_COLORS)
    marker = SCENARIO_MARKERS[(d + d // n) % n]  # a round later every colour meets the next marker
    return {"color": SCENARIO_COLORS[d % n], "marker": marker}


def heat_map(axes: Any, matrix: Any, low: float, high: float) -> Any:
    """Draw a matrix, with its values where there is room for them (8 rows and columns at most).

    Parameters
    ----------
    axes : matplotlib Axes
        Where to draw.
    matrix : array
        What is not a number stays white.
    low, high : float
        Values of the darkest and the lightest colour.

    Shapes
    ------
    matrix : (M, N)

    Returns
    -------
    matplotlib AxesImage
        For a colour bar.
    """
    from matplotlib.ticker import MaxNLocator

    matrix = np.asarray(matrix, dtype=float)
    image = axes.imshow(matrix, cmap=HEAT, vmin=low, vmax=max(high, low + 1e-6))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    if max(matrix.shape) <= MOST_LABELS:
        size = min(8.0, 48.0 / max(matrix.shape))
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                color = "black" if value > (low + high) / 2 else "white"
                look = {"ha": "center", "va": "center", "color": color, "fontsize": size}
                axes.text(j, i, _short(value, max(abs(low), abs(high))), **look)
    return image


def _short(value: float, largest: float) -> str:
    """Return two decimals of a value, or of one far below 1 its first two digits."""
    if largest < 0.1:
        return f"{value:.1e}"
    return f"{round(value, 2) + 0.0:.2f}"  # no "-0.00"
