"""The report of a run: one HTML file that needs nothing else, neither files nor a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from midpg_np.pages import image, page, table
from midpg_np.training.metrics import Metrics, format_metric


def render_report(
    *,
    title: str,
    results: Mapping[str, Any],
    configuration: Mapping[str, Any],
    picture: bytes,
    gradient_check: str | None,
) -> str:
    """Return the report as HTML; every text that is put in is escaped.

    Parameters
    ----------
    title : str
        Heading.
    results : mapping of name to RunResult
        The main result first, then the baseline, if any.
    configuration : mapping
        With keys "runs", "data" and "versions", as in ``config.json``.
    picture : bytes
        PNG of the curves.
    gradient_check : str or None
        One line; None says that no check was run.
    """
    template = Template((files("midpg_np.training") / "report.html").read_text(encoding="utf-8"))
    body = template.substitute(
        overall=_overall(results),
        picture=image(picture, f"Training and validation curves of {' and '.join(results)}"),
        scenarios=_scenarios({name: result.metrics for name, result in results.items()}),
        gradient_check=escape(gradient_check or "No gradient check was run with this training."),
        configuration=_configuration(configuration),
    )
    return page(title, verdict({name: r.metrics for name, r in results.items()}), body)


def verdict(metrics: Mapping[str, Metrics]) -> str:
    """Say in a sentence or two how the main run compares with the baseline, and how surely."""
    name, main = next(iter(metrics.items()))
    others = [(n, m.auc) for n, m in metrics.items() if n != name and m.auc is not None]
    if main.auc is None:
        return f"{name}: the AUC is not defined, because all rows are of one class."
    error = auc_standard_error(main)
    sentence = (
        f"{name} reaches an AUC of {main.auc:.4f} on {main.n_rows:,} rows "
        f"(standard error about {error:.4f})."
    )
    if not others:
        return sentence
    other_name, other_auc = others[0]
    difference = main.auc - other_auc
    relation = "above" if difference > 0 else "below"
    compared = f"That is {abs(difference):.4f} {relation} {other_name} ({other_auc:.4f})"
    if abs(difference) < 2.0 * error:
        doubt = "which is less than two standard errors: these rows do not separate the two."
    else:
        doubt = "which is more than two standard errors of one AUC on these rows."
    return f"{sentence} {compared}, {doubt} One seed each; other seeds give other differences."


def auc_standard_error(metrics: Metrics) -> float:
    """Return the standard error of an AUC by Hanley and McNeil (1982).

    For the difference of two models on the same rows it is an upper guide, since their errors go
    together.
    """
    assert metrics.auc is not None and metrics.positive_rate is not None
    n_positive = metrics.n_rows * metrics.positive_rate
    n_negative = metrics.n_rows - n_positive
    A = metrics.auc
    q1, q2 = A / (2.0 - A), 2.0 * A * A / (1.0 + A)
    variance = A * (1.0 - A) + (n_positive - 1.0) * (q1 - A * A) + (n_negative - 1.0) * (q2 - A * A)
    return math.sqrt(max(variance, 0.0) / (n_positive * n_negative))


def _overall(results: Mapping[str, Any]) -> str:
    rows = []
    for name, result in results.items():
        m, fit, count = result.metrics, result.fit, result.model.count_params()
        scores = [format_metric(x) for x in (m.auc, m.macro_auc, m.logloss, m.macro_logloss)]
        training = [str(fit.best_epoch), f"{fit.n_steps:,}", f"{fit.seconds:.1f}"]
        rows.append([name, *scores, *training, f"{count.serving + count.embedding:,}"])
    head = ["run", "AUC", "macro AUC", "LogLoss", "macro LogLoss", "best epoch", "steps"]
    parts = sorted({result.evaluated_on for result in results.values()})
    caption = (
        f"On the {' and '.join(parts)} rows. Macro: mean over the scenarios. Parameters: those "
        "that serve predictions, embeddings included."
    )
    return table("Result", caption, [*head, "seconds", "parameters"], rows)


def _scenarios(metrics: Mapping[str, Metrics]) -> str:
    head = ["scenario", "rows", "positive"]
    head += [f"AUC {name}" for name in metrics] + [f"LogLoss {name}" for name in metrics]
    rows = []
    for parts in zip(*(m.scenarios for m in metrics.values()), strict=True):
        rate = parts[0].positive_rate
        row = [parts[0].name, f"{parts[0].n_rows:,}", "n/a" if rate is None else f"{rate:.2%}"]
        row += [format_metric(part.auc) for part in parts]
        rows.append(row + [format_metric(part.logloss) for part in parts])
    caption = "Rows, share of positive labels, and metrics."
    if any("n/a" in row for row in rows):
        caption += " n/a: not defined, because the scenario has no rows or rows of one class only."
    return table("Metrics by scenario", caption, head, rows)


def _configuration(configuration: Mapping[str, Any]) -> str:
    pieces = []
    for name, run in configuration["runs"].items():
        entries = {"model": run["model"], **run["options"], **run["training"]}
        pieces.append(_section(name, entries))
    if configuration["data"]:
        pieces.append(_section("Data", configuration["data"]))
    pieces.append(_section("Versions", configuration["versions"]))
    return "\n".join(pieces)


def _section(heading: str, entries: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(_text(value))}</td></tr>'
        for key, value in entries.items()
    )
    words = f'<table class="words"><tbody>\n{rows}\n</tbody></table>'
    return f"<section>\n<h3>{escape(heading)}</h3>\n{words}\n</section>"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        shown = [_text(part) for part in value[:40]]
        return ", ".join(shown) + (f", … ({len(value)} in all)" if len(value) > 40 else "")
    return "none" if value is None else str(value)
