"""Figures, drawn with matplotlib (extra ``app``) without a window system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Okabe and Ito's colours keep apart for the colour-blind; dashes and markers do so in grey.
STYLES = (
    {"color": "#0072b2", "linestyle": "-", "marker": "o"},
    {"color": "#d55e00", "linestyle": "--", "marker": "s"},
    {"color": "#009e73", "linestyle": "-.", "marker": "^"},
    {"color": "#555555", "linestyle": ":", "marker": "D"},
)
PANELS = (
    ("train_ce", "training cross-entropy"),
    ("valid_auc", "validation AUC"),
    ("valid_logloss", "validation LogLoss"),
)


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib Figure of a size in inches; it needs no display.

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


def plot_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Any = None) -> Any:
    """Draw training cross-entropy, validation AUC and validation LogLoss of one or more runs.

    Cross-entropy, and not the whole loss: auxiliary terms would make runs incomparable.

    Parameters
    ----------
    histories : mapping of name to history
        As in ``FitResult.history``; the star marks the validation whose parameters were kept.
    path : path or file, optional
        Where to save the picture (PNG).

    Returns
    -------
    matplotlib Figure
        With one panel per quantity that at least one run has.

    Raises
    ------
    ValueError
        If there is no run, nothing to draw, or more runs than line styles.
    ImportError
        If matplotlib is missing.
    """
    if not 1 <= len(histories) <= len(STYLES):
        raise ValueError(f"plot_curves draws 1 to {len(STYLES)} runs; got {len(histories)}.")
    panels = [
        (key, label)
        for key, label in PANELS
        if any(record.get(key) is not None for h in histories.values() for record in h)
    ]
    if not panels:
        raise ValueError(f"the histories of {list(histories)} hold nothing to draw.")
    figure = new_figure(3.6 * len(panels), 3.2)
    unit = _unit(histories)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (key, label) in zip(row, panels, strict=True):
        for style, (name, history) in zip(STYLES, histories.items(), strict=False):
            _draw_line(axes, history, key, unit, style, name)
        axes.set_xlabel(unit)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    if path is not None:
        figure.savefig(path, format="png", dpi=150)
    return figure


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
    import numpy as np

    shape = np.shape(excess)
    rows = np.reshape(excess, (-1, shape[-1])) if len(shape) > 1 else np.reshape(excess, (1, -1))
    cells = np.log10(np.maximum(_largest_in_cells(rows, most), 1.0))
    title = f"{name} {shape}"
    height, width = (max(2.6, 1.6 + 0.06 * n) for n in cells.shape)
    figure = new_figure(max(width, 0.08 * len(title)), height)
    axes = figure.subplots()
    top = max(1.0, float(cells.max(initial=0.0)))
    image = axes.imshow(cells, cmap="cividis", vmin=0.0, vmax=top, aspect="auto")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("last axis" if len(shape) > 1 else "entry")
    axes.set_ylabel("" if len(shape) < 2 else "first axis" if len(shape) == 2 else "leading axes")
    if len(shape) < 2:
        axes.yaxis.set_visible(False)
    for axis, i in ((axes.xaxis, 1), (axes.yaxis, 0)):
        n_cells, n = cells.shape[i], rows.shape[i]
        axis.set_ticks([0, n_cells - 1][:n_cells], ["0", str(n - 1)][:n_cells])
    figure.colorbar(image, label="log10 of error / allowed")
    if path is not None:
        figure.savefig(path, format="png", dpi=110)
    return figure


def _largest_in_cells(rows: Any, most: int) -> Any:
    """Return the matrix with at most ``most`` cells an axis, each the largest of its entries."""
    import numpy as np

    for axis in (0, 1):
        n = rows.shape[axis]
        starts = np.unique(np.arange(min(n, most)) * n // max(min(n, most), 1))
        rows = np.maximum.reduceat(rows, starts, axis=axis) if n else rows
    return rows


def _unit(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return "epoch", or "step" if some run was validated several times per epoch."""
    for history in histories.values():
        epochs = [record["epoch"] for record in history]
        if len(set(epochs)) < len(epochs):
            return "step"
    return "epoch"


def _draw_line(
    axes: Any,
    history: Sequence[Mapping[str, Any]],
    key: str,
    unit: str,
    style: Mapping[str, str],
    name: str,
) -> None:
    records = [record for record in history if record.get(key) is not None]
    x, y = [record[unit] for record in records], [record[key] for record in records]
    axes.plot(x, y, label=name, linewidth=1.6, markersize=4, **style)
    kept = [i for i, record in enumerate(records) if record.get("is_best")]
    if kept and key != "train_ce":
        best = kept[-1]
        star = {"marker": "*", "markersize": 15, "color": style["color"]}
        axes.plot(x[best], y[best], linestyle="none", markeredgecolor="white", zorder=3, **star)
