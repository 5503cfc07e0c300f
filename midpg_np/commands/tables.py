"""Tables that the command line prints, drawn by rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from midpg_np.checks import GradientReport
from midpg_np.training.metrics import Metrics, format_metric


def metrics_table(results: Mapping[str, Metrics], title: str) -> Table:
    """AUC and LogLoss overall, macro and per scenario, one pair of columns per model."""
    table = Table(title=title, title_justify="left")
    table.add_column("scenario")
    table.add_column("rows", justify="right")
    table.add_column("positive", justify="right")
    for name in results:
        table.add_column(f"{name}\nAUC", justify="right")
        table.add_column(f"{name}\nLogLoss", justify="right")
    first = next(iter(results.values()))
    overall: list[str] = []
    macro: list[str] = []
    for metrics in results.values():
        overall += [format_metric(metrics.auc), format_metric(metrics.logloss)]
        macro += [format_metric(metrics.macro_auc), format_metric(metrics.macro_logloss)]
    table.add_row("all rows", f"{first.n_rows:,}", _share(first.positive_rate), *overall)
    table.add_row("mean over scenarios", "", "", *macro, end_section=True)
    for i, scenario in enumerate(first.scenarios):
        cells: list[str] = []
        for metrics in results.values():
            own = metrics.scenarios[i]
            cells += [format_metric(own.auc), format_metric(own.logloss)]
        table.add_row(scenario.name, f"{scenario.n_rows:,}", _share(scenario.positive_rate), *cells)
    return table


def seeds_table(summary: Mapping[str, Any], title: str) -> Table:
    """Mean +- standard deviation over seeds, and the paired difference."""
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    keys = ("auc", "macro_auc", "logloss")
    for heading in ("AUC", "mean AUC of scenarios", "LogLoss"):
        table.add_column(heading, justify="right")
    for name, columns in summary["models"].items():
        table.add_row(name, *(_spread(columns.get(key)) for key in keys))
    if "difference" in summary:
        names = list(summary["models"])
        difference = summary["difference"]
        table.add_section()
        table.add_row(
            f"{names[0]} - {names[1]}", *(_spread(difference.get(key), "+") for key in keys)
        )
        ahead = (difference.get(key) for key in keys)
        table.add_row(
            "seeds with a larger value",
            *(f"{d['n_ahead']} of {d['n_pairs']}" if d else "n/a" for d in ahead),
        )
    return table


def gradcheck_table(reports: Sequence[GradientReport]) -> Table:
    """One row per layer or model: entries checked and the largest error of either witness."""
    table = Table(title="Gradient checks, float64", title_justify="left")
    table.add_column("name")
    table.add_column("entries", justify="right")
    table.add_column("complex step\n(relative)", justify="right")
    table.add_column("differences\n(absolute)", justify="right")
    table.add_column("")
    for report in reports:
        error = report.difference_error
        table.add_row(
            report.name,
            f"{report.n_entries:,}",
            f"{report.complex_error:.0e}",
            "-" if error is None else f"{error:.0e}",
            "ok" if report.ok else "WRONG",
        )
    return table


def describe_table(description: Mapping[str, Any]) -> Table:
    """Rows and share of positives per scenario and part of a data set."""
    parts = description["parts"]
    table = Table(title=description.get("name"), title_justify="left")
    table.add_column("scenario")
    for part in parts:
        table.add_column(f"{part}\nrows", justify="right")
        table.add_column(f"{part}\npositive", justify="right")
    table.add_row("all", *_counts(list(parts.values())), end_section=True)
    names = [scenario["name"] for scenario in next(iter(parts.values()))["scenarios"]]
    for i, name in enumerate(names):
        table.add_row(name, *_counts([part["scenarios"][i] for part in parts.values()]))
    return table


def fields_table(fields: Sequence[Mapping[str, Any]]) -> Table:
    """Fields in the order in which models read them."""
    table = Table(title="fields", title_justify="left")
    table.add_column("field")
    table.add_column("role")
    table.add_column("codes", justify="right")
    for field in fields:
        table.add_row(field["name"], field["role"], f"{field['vocab_size']:,}")
    return table


def head_table(records: Mapping[str, Any]) -> Table:
    """Rows of a data set side by side, so that any number of fields fits."""
    table = Table("row", *map(str, range(len(records["label"]))))
    table.add_row("scenario", *records["scenario"])
    table.add_row("label", *map(str, records["label"]), end_section=True)
    for name, codes in records["codes"].items():
        table.add_row(name, *map(str, codes))
    return table


def _counts(counts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [cell for c in counts for cell in (f"{c['rows']:,}", _share(c["positive_rate"]))]


def _share(rate: float | None) -> str:
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def _spread(column: Mapping[str, Any] | None, sign: str = "") -> str:
    if column is None:
        return "n/a"
    mean = f"{column['mean']:{sign}.4f}"
    return mean if column["std"] is None else f"{mean} ± {column['std']:.4f}"
