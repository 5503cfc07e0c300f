"""What a comparison found, for programs (a dictionary) and for people (a page of HTML)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from midpg_np.pages import page, panels, table
from midpg_np.plots import plot_error_map
from midpg_np.verify.compare import Comparison, Entry
from midpg_np.verify.diagnose import Diagnosis
from midpg_np.verify.mistakes.page import mistake_dict

MOST_PICTURES = 12
SHOWN_KINDS = {
    "value": "First value that differs",
    "gradient": "First gradient that differs, in backward order",
    "next": "First parameter or state that differs after the step",
    "serving": "The prediction differs",
}


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON-able data."""
    firsts = {f"first_{kind}": comparison.first(kind) for kind in SHOWN_KINDS}
    return {
        "model": comparison.case.model_name,
        "ok": comparison.ok,
        "compared": comparison.n_compared,
        **{key: entry.name if entry else None for key, entry in firsts.items()},
        "wrong": [_entry_dict(entry) for entry in comparison.wrong],
        "missing": comparison.missing,
    }


def _entry_dict(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "status": entry.status,
        "place": list(entry.place),
        "got": _finite(entry.got),
        "expected": entry.want,
        "error": _finite(entry.error),
        "allowed": entry.allowed,
        "entries_wrong": entry.n_wrong,
        "entries": entry.n_entries,
        "hint": entry.hint,
    }


def _finite(number: float) -> float | str:
    """JSON has no name for what is not finite."""
    return number if np.isfinite(number) else str(number)


def diagnosis_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON-able data, with the comparison in it."""
    return as_dict(diagnosis.comparison) | {
        "tried": diagnosis.n_tried,
        "matches": [[mistake_dict(mistake) for mistake in match] for match in diagnosis.matches],
        "blamed": list(diagnosis.blamed),
    }


def verdict(comparison: Comparison) -> list[str]:
    """Say in a few sentences how a dump compares, one each."""
    n, n_all = comparison.n_compared, len(comparison.entries)
    compared = f"{n} of {n_all} quantities of {comparison.case.model_name} were compared"
    if comparison.ok:
        return [f"{compared}: all agree but for rounding."]
    firsts = {kind: comparison.first(kind) for kind in SHOWN_KINDS}
    return [
        f"{compared}: {len(comparison.wrong)} differ.",
        *(f"{SHOWN_KINDS[kind]}: {entry}." for kind, entry in firsts.items() if entry),
    ]


def render_comparison(comparison: Comparison) -> str:
    """Return the page: what differs in order of computation, and where in each array."""
    case = comparison.case
    parts = []
    wrong = comparison.wrong
    if wrong:
        caption = "In order of computation, gradients in backward order."
        parts += ["<h2>What differs</h2>", _entries_table("What differs", caption, wrong)]
    drawn = [e for e in wrong if e.status == "differs" and e.n_entries > 1][:MOST_PICTURES]
    if drawn:
        pictures = {f"Error of {e.name} by entry": _picture(comparison, e) for e in drawn}
        parts.append("<h2>Where the errors sit</h2>")
        parts.append(f"<p>The first {len(drawn)} arrays that differ, in the same order.</p>")
        parts.append(panels(pictures))
    parts += ["<h2>All that was compared</h2>", _compared_table(comparison)]
    parts += ["<h2>Case</h2>", _configuration(comparison)]
    title = f"{case.model_name}: dump against case"
    return page(title, " ".join(verdict(comparison)), "\n".join(parts))


def _compared_table(comparison: Comparison) -> str:
    compared = [entry for entry in comparison.entries if entry.status != "missing"]
    missing = ", ".join(comparison.missing) or "nothing"
    return _entries_table("Compared", f"Not in the dump: {missing}.", compared)


def _entries_table(label: str, caption: str, entries: Sequence[Entry]) -> str:
    rows = [
        [
            entry.name,
            entry.status,
            f"{entry.error:.1e}" if entry.n_entries else "",
            f"{entry.allowed:.1e}" if entry.n_entries else "",
            f"{entry.n_wrong:,} of {entry.n_entries:,}" if entry.n_entries else "",
            str(list(entry.place)) if entry.is_wrong and entry.place else entry.hint,
        ]
        for entry in entries
    ]
    head = ["quantity", "", "largest error", "allowed", "entries beyond it", "where"]
    return table(label, caption, head, rows)


def _picture(comparison: Comparison, entry: Entry) -> bytes:
    got = comparison.dump[entry.name].array
    error = np.abs(got - comparison.case.arrays[entry.name])
    png = BytesIO()
    plot_error_map(error / max(entry.allowed, np.finfo(np.float64).tiny), entry.name, png)
    return png.getvalue()


def _configuration(comparison: Comparison) -> str:
    config = comparison.case.config
    rows = [[key, str(value)] for key, value in config.items()]
    return table("Case", "Options of the model.", ["option", "value"], rows)
