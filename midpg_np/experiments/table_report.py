"""Tables of an experiment, written four times: Markdown, LaTeX, JSON and one page of HTML.

An experiment puts its outcome into a dictionary, ready for JSON, and turns that into sheets: tables
of text.  Everything else is the same for all experiments and stands here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from midpg_np.experiments.statistics import SIGNIFICANT, smallest_wilcoxon
from midpg_np.pages import page, table
from midpg_np.training.checkpoint import replacing

TITLES: dict[str, str] = {
    "dnn": "DNN",
    "ple": "PLE",
    "star": "STAR",
    "pepnet": "PEPNet",
    "adasparse": "AdaSparse",
    "apg": "APG",
    "optmsm": "OptMSM",
    "dpg": "DPG",
    "midpg": "MI-DPG",
}
METRIC_TITLES = {"auc": "AUC", "logloss": "LogLoss", "macro_auc": "mean AUC of scenarios"}

_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
}


class Sheet(NamedTuple):
    """A table of text.

    Parameters
    ----------
    title : str
        Heading.
    caption : str
        What its numbers are.
    head : sequence of str
        Names of the columns.
    rows : sequence of sequences of str
        Cells; the first of a row names it.
    """

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Report(NamedTuple):
    """What an experiment has to say.

    Parameters
    ----------
    name : str
        Of its files: ``name.md``, ``name.tex``, ``name.json``.
    title : str
        Heading.
    verdict : str
        The outcome in a few sentences.
    notes : sequence of str
        What a reader should know: one paragraph each.
    command : str
        The command that gives the same again.
    sheets : sequence of Sheet
        Of which the first is the main table, the one written as LaTeX.
    """

    name: str
    title: str
    verdict: str
    notes: Sequence[str]
    command: str
    sheets: Sequence[Sheet]


def title_of(system: str) -> str:
    """Return the name under which a system is printed."""
    return TITLES.get(system, system)


def number(value: float | None, digits: int = 4, sign: str = "") -> str:
    """Return the value with ``digits`` decimals, or "n/a"; ``sign="+"`` shows the sign of both."""
    if value is None:
        return "n/a"
    text = f"{value:{sign}.{digits}f}"
    return text if float(text) or not text.startswith("-") else "+" * bool(sign) + text[1:]


def spread(mean: float | None, std: float | None, sign: str = "") -> str:
    """Return "mean ± standard deviation"; the mean alone where there was one trial."""
    text = number(mean, sign=sign)
    return text if mean is None or std is None else f"{text} ± {number(std)}"


def p_value(p: float | None) -> str:
    """Return a p-value with three decimals, or "n/a" where the test is not defined."""
    if p is None:
        return "n/a"
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def is_significantly_better(pair: Mapping[str, Any] | None, larger_is_better: bool) -> bool:
    """Whether a paired difference points the right way and passes the t-test after Holm."""
    if pair is None or pair["holm_t"] is None:
        return False
    better = pair["mean"] > 0 if larger_is_better else pair["mean"] < 0
    return bool(better and pair["holm_t"] <= SIGNIFICANT)


def smallest_note(n_pairs: int, n_compared: int, what: str) -> str:
    """Say how small Wilcoxon's p-values can become at all."""
    smallest = smallest_wilcoxon(n_pairs)
    note = f"With {n_pairs} trials Wilcoxon's test can give no p below {smallest:.3g}"
    if n_compared > 1:
        corrected = min(1.0, n_compared * smallest)
        note += f", and after Holm's correction over {n_compared} {what} none below {corrected:.3g}"
    return note + "."


def tests_sheet(
    title: str, caption: str, first: str, pairs: Mapping[str, Mapping[str, Any]]
) -> Sheet:
    """Return the sheet of paired tests; ``pairs`` holds ``Paired.as_dict()`` by printed name."""
    head = (
        *(first, "difference", "95 % interval", "better in", "p (t-test)", "Holm"),
        *("p (Wilcoxon)", "Holm"),
    )
    rows = [
        (
            name,
            spread(pair["mean"], pair["std"], "+"),
            _interval(pair["low"], pair["high"]),
            f"{pair['n_better']} of {pair['n_pairs']}"
            + (f", {pair['n_tied']} tied" if pair["n_tied"] else ""),
            p_value(pair["p_t"]),
            p_value(pair["holm_t"]),
            p_value(pair["p_wilcoxon"]),
            p_value(pair["holm_wilcoxon"]),
        )
        for name, pair in pairs.items()
    ]
    return Sheet(title, caption, head, rows)


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "n/a"
    return f"{number(low, sign='+')} to {number(high, sign='+')}"


def failures_sheet(failed: Sequence[Mapping[str, str]]) -> list[Sheet]:
    """Return a sheet of the jobs that failed, or nothing."""
    if not failed:
        return []
    caption = "The figures above are without these trainings."
    rows = [(job["system"], job["error"], job["command"]) for job in failed]
    return [Sheet("Trainings that failed", caption, ("system", "error", "command"), rows)]


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    parts = [f"# {report.title}", report.verdict, f"```sh\n{report.command}\n```", *report.notes]
    for sheet in report.sheets:
        parts += [f"## {sheet.title}", sheet.caption, markdown_table(sheet)]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(sheet: Sheet) -> str:
    """Return one sheet as a Markdown table."""
    lines = [sheet.head, ["---"] * len(sheet.head), *sheet.rows]
    return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines)


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def latex(sheet: Sheet, label: str) -> str:
    """Return one sheet as a LaTeX table, for the package ``booktabs``."""
    columns = "l" + "r" * (len(sheet.head) - 1)
    rows = [_latex_row(row) for row in sheet.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(sheet.caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", _latex_row(sheet.head), r"\midrule", *rows, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_text, cells)) + r" \\"


def latex_text(text: str) -> str:
    """Return text in which LaTeX takes every character for itself."""
    return "".join(_LATEX.get(character, character) for character in text)


def html(report: Report) -> str:
    """Return the report as a page of HTML; every text is escaped."""
    parts = [f"<p>{escape(note)}</p>" for note in report.notes]
    parts.append(
        f'<p class="caption">The command:</p>\n<p><code>{escape(report.command)}</code></p>'
    )
    for sheet in report.sheets:
        parts.append(f"<h2>{escape(sheet.title)}</h2>")
        parts.append(table(sheet.title, sheet.caption, sheet.head, sheet.rows))
    return page(report.title, report.verdict, "\n".join(parts))


def write_report(out: Path, report: Report, content: Mapping[str, Any]) -> None:
    """Write ``name.md``, ``name.tex``, ``name.json`` and ``report.html`` into a folder.

    Raises
    ------
    OSError
        If a file could not be written; the one before it is intact.
    """
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{report.name}.json": json.dumps(content, indent=2) + "\n",
        f"{report.name}.md": markdown(report),
        f"{report.name}.tex": latex(report.sheets[0], f"tab:{report.name}"),
        "report.html": html(report),
    }
    for name, text in texts.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
