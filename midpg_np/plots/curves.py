"""Curves of one or more trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from midpg_np.plots.style import STYLES, clean, new_figure, save, scenario_style

METRICS = {"auc": "AUC", "logloss": "LogLoss"}

PANELS = (
    ("train_ce", "training cross-entropy"),
    ("valid_auc", "validation AUC"),
    ("valid_logloss", "validation LogLoss"),
)


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
        clean(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    save(figure, path)
    return figure


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


def plot_scenario_curves(
    history: Sequence[Mapping[str, Any]] | Mapping[Any, Sequence[float | None]],
    metric: str = "auc",
    names: Sequence[str] | None = None,
    path: Any = None,
) -> Any:
    """Draw a validation metric of every scenario over the epochs, one line each.

    A line across the picture marks the validation whose parameters were kept.  Where a metric is
    not defined, a line has a gap.

    Parameters
    ----------
    history : list of dict, or mapping of scenario to values
        As in ``FitResult.history``; or, for every scenario, its values epoch by epoch.
    metric : str
        What is drawn: "auc" or "logloss" of a history; of a mapping, its name.
    names : sequence of str, optional
        What to call the scenarios, in their order; as in the history, if not given.
    path : path or file, optional
        Where to save the picture (PNG).

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If there is nothing to draw, or not one name per scenario.
    ImportError
        If matplotlib is missing.
    """
    if isinstance(history, Mapping):
        unit, kept = "epoch", None
        lines = {str(d): (list(range(1, len(v) + 1)), list(v)) for d, v in history.items()}
    else:
        unit, kept = _unit({"": history}), _kept(history)
        lines = _scenario_lines(history, metric, unit)
    if not any(value is not None for _, values in lines.values() for value in values):
        raise ValueError(f"the history holds no {metric!r} of any scenario; was there validation?")
    if names is not None and len(names) != len(lines):
        raise ValueError(f"names must be one per scenario, {len(lines)}; got {len(names)}.")
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    for d, (name, (x, values)) in enumerate(zip(names or lines, lines.values(), strict=True)):
        y = [np.nan if value is None else value for value in values]
        style = {"linestyle": STYLES[d % len(STYLES)]["linestyle"]} | scenario_style(d)
        axes.plot(x, y, label=name, linewidth=1.4, markersize=4.5, **style)
    if kept is not None:
        axes.axvline(
            kept[unit], color="#777777", linewidth=1.0, linestyle=(0, (1, 2)), label="kept"
        )
    axes.set_xlabel(unit)
    axes.set_ylabel(f"validation {METRICS.get(metric, metric)}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    clean(axes)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    save(figure, path)
    return figure


def _scenario_lines(
    history: Sequence[Mapping[str, Any]], metric: str, unit: str
) -> dict[str, tuple[list[int], list[float | None]]]:
    """Return places and values of every scenario that a record names."""
    records = [record for record in history if record.get("valid_scenarios")]
    names = dict.fromkeys(name for record in records for name in record["valid_scenarios"])
    places = [record[unit] for record in records]
    return {
        name: (places, [r["valid_scenarios"].get(name, {}).get(metric) for r in records])
        for name in names
    }


def _kept(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the record whose parameters were kept: the last that was the best so far."""
    return next((record for record in reversed(history) if record.get("is_best")), None)
