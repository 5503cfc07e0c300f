"""A gradient check, parameter by parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from midpg_np.plots.style import STYLES, clean, new_figure, save

FLOOR = 1e-17  # where an error of zero is drawn: below what rounding leaves


def plot_gradient_report(report: Any, path: Any = None) -> Any:
    """Draw the largest error of every parameter's gradient against the allowed one.

    On the left against the complex step, relative to the largest entry; on the right, if they were
    taken, against differences, absolute.  A cross marks a parameter that failed; an error of zero
    is drawn at 1e-17, one that is not finite at the right end.

    Parameters
    ----------
    report : GradientReport
        As ``check_gradients`` or ``check_directions`` returns it.
    path : path or file, optional
        Where to save the picture (PNG).

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If the report holds no parameter.
    ImportError
        If matplotlib is missing.
    """
    from midpg_np.checks.gradient import COMPLEX_TOLERANCE, DIFFERENCE_TOLERANCE

    blocks = report.blocks
    if not blocks:
        raise ValueError(f"the report {report.name!r} holds no parameter to draw.")
    panels = [
        (
            "against the complex step\n(relative to the largest entry)",
            COMPLEX_TOLERANCE,
            "complex_error",
        ),
        ("against differences\n(absolute)", DIFFERENCE_TOLERANCE, "difference_error"),
    ]
    panels = [p for p in panels if any(getattr(b, p[2]) is not None for b in blocks)]
    figure = new_figure(2.2 + 3.2 * len(panels), 1.4 + 0.24 * len(blocks))
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (label, allowed, field) in zip(row, panels, strict=True):
        _draw_errors(axes, blocks, field, allowed)
        axes.set_xlabel(f"largest error {label}")
    row[0].set_yticks(range(len(blocks)), [block.path for block in blocks], fontsize=8)
    row[0].set_ylim(len(blocks) - 0.5, -0.5)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False)
    save(figure, path)
    return figure


def _draw_errors(axes: Any, blocks: Sequence[Any], field: str, allowed: float) -> None:
    errors = np.array([np.nan if getattr(b, field) is None else getattr(b, field) for b in blocks])
    failed = np.array([block.failure is not None for block in blocks])
    places = np.arange(len(blocks))
    top = 1e3 * max([allowed, *errors[np.isfinite(errors)]])
    shown = np.where(np.isinf(errors), top, np.maximum(errors, FLOOR))
    for name, chosen, style in (
        ("passed", ~failed, STYLES[0]),
        ("failed", failed, STYLES[1] | {"marker": "X"}),
    ):
        look = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
        axes.plot(shown[chosen], places[chosen], label=name, markersize=6, **look)
    axes.axvline(allowed, color="#000000", linestyle="--", linewidth=1.0, label="allowed")
    axes.set_xscale("log")
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlim(FLOOR / 3, top * 3)
    clean(axes, axis="x")
