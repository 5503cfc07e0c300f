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


# The methods of the rank figure; a hollow marker more, since four styles are too few.
RANK_STYLES = (*STYLES, {"color": "#000000", "linestyle": "-", "marker": "v", "fillstyle": "none"})


def plot_rank(
    lines: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    best: Mapping[str, Mapping[str, tuple[float, float]]],
    path: Any = None,
) -> Any:
    """Draw AUC against the low-rank size, one line per method, one panel per part of the rows.

    Bars are one standard deviation over seeds; points of neighbouring methods are moved apart
    sideways, so that their bars can be told.  A method with one size only gets a line across.

    Parameters
    ----------
    lines : mapping of part to mapping of method to points
        A point has ``size``, ``mean`` and ``std`` (None with one seed).
    best : mapping of part to mapping of method to (size, AUC)
        Where the star of a method stands.
    path : path or file, optional
        Where to save the picture (PNG).

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If there is nothing to draw, or more methods than line styles.
    ImportError
        If matplotlib is missing.
    """
    methods = list(dict.fromkeys(method for part in lines.values() for method in part))
    if not 1 <= len(methods) <= len(RANK_STYLES):
        raise ValueError(f"plot_rank draws 1 to {len(RANK_STYLES)} methods; got {len(methods)}.")
    figure = new_figure(4.6 * len(lines), 3.8)
    row = figure.subplots(1, len(lines), squeeze=False)[0]
    sizes = {p["size"] for part in lines.values() for points in part.values() for p in points}
    for axes, (part, of_part) in zip(row, lines.items(), strict=True):
        for i, (method, points) in enumerate(of_part.items()):
            style = RANK_STYLES[methods.index(method)]
            aside = 2.0 ** (0.09 * (i - (len(of_part) - 1) / 2))
            _draw_sizes(axes, method, points, style, aside)
            if method in best.get(part, {}):
                size, auc = best[part][method]
                _draw_star(axes, size * aside, auc, style["color"])
        _label_sizes(axes, sorted(sizes))
        axes.set_ylabel(f"{part} AUC")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    if path is not None:
        figure.savefig(path, format="png", dpi=150)
    return figure


def _draw_sizes(
    axes: Any,
    method: str,
    points: Sequence[Mapping[str, Any]],
    style: Mapping[str, str],
    aside: float,
) -> None:
    x, y = [p["size"] * aside for p in points], [p["mean"] for p in points]
    bars = [p["std"] or 0.0 for p in points] if any(p["std"] for p in points) else None
    shape = {"linewidth": 1.5, "markersize": 5, "elinewidth": 0.9, "capsize": 2.5}
    axes.errorbar(x, y, yerr=bars, label=method, **shape, **style)
    if len(points) == 1:
        line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 0.9}
        axes.axhline(y[0], zorder=1, **line)


def _draw_star(axes: Any, x: float, y: float, color: str) -> None:
    star = {"marker": "*", "markersize": 15, "color": color, "markeredgecolor": "white"}
    axes.plot([x], [y], linestyle="none", zorder=4, **star)


def _label_sizes(axes: Any, sizes: Sequence[float]) -> None:
    """Name every size on a logarithmic axis, those below 1 as fractions."""
    from fractions import Fraction

    axes.set_xscale("log", base=2)
    names = [str(Fraction(size).limit_denominator(10_000)) for size in sizes]
    axes.set_xticks(sizes, names)
    axes.set_xticks([], minor=True)
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.set_xlabel(r"low-rank size $(d_r/d_m)(d_c/d_n)\,d_k$")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)


# Okabe and Ito's eight colours and eight shapes: 64 scenarios before two look alike.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#b0a000")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_scatter(
    panels: Mapping[str, tuple[Any, Any]], names: Sequence[str], path: Any = None
) -> Any:
    """Draw points in the plane by scenario, which colour and shape tell, one panel per title.

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
    import numpy as np

    if not panels:
        raise ValueError("plot_scatter needs at least one panel; got none.")
    figure = new_figure(4.4 * len(panels) + 1.8, 4.4)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (points, scenario)) in zip(row, panels.items(), strict=True):
        points, scenario = np.asarray(points), np.asarray(scenario)
        for d, name in enumerate(names):
            # A round later every colour meets the next shape.
            marker = _SHAPES[(d + d // len(_COLORS)) % len(_SHAPES)]
            look = {"color": _COLORS[d % len(_COLORS)], "marker": marker, "linewidths": 0}
            own = points[scenario == d]
            axes.scatter(own[:, 0], own[:, 1], s=16, alpha=0.8, label=name, **look)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    if path is not None:
        figure.savefig(path, format="png", dpi=150)
    return figure


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
    import numpy as np

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
            image = axes.imshow(matrix, cmap="cividis", vmin=min(bottom, 1.0 - 1e-6), vmax=1.0)
            axes.set_title(f"{title}: {measure}", fontsize=9)
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
        figure.colorbar(image, ax=list(grid[:, j]), shrink=0.7)
    if path is not None:
        figure.savefig(path, format="png", dpi=130)
    return figure
