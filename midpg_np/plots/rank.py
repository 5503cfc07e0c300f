"""AUC against the low-rank size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from midpg_np.plots.style import STYLES, clean, new_figure, save

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
    save(figure, path)
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
    clean(axes)
