"""What ``midpg verify`` prints."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from midpg_np.verify.case import StepCase
from midpg_np.verify.compare import Comparison
from midpg_np.verify.diagnose import Diagnosis
from midpg_np.verify.mistakes import Mistake

MOST_ROWS = 40
MOST_NAMES = 8


def case_summary(case: StepCase, path: Path) -> Table:
    """Summarise what a case file holds."""
    table = Table(title=f"{path}: one training step of {case.model_name}", title_justify="left")
    table.add_column("")
    table.add_column("names", justify="right")
    table.add_column("for example")
    names = list(case.arrays)
    computed = {step.output for step in case.calculation.steps}
    groups = {
        "inputs": list(case.inputs),
        "parameters": list(case.params),
        "state": list(case.state),
        "values": [n for n in names if n in computed and not n.startswith("next.")],
        "gradients": [n for n in names if n.startswith("d.")],
        "after the step": [n for n in names if n.startswith("next.")],
        "prediction": [n for n in names if n.startswith("serving.")],
    }
    for group, members in groups.items():
        if members:
            table.add_row(group, f"{len(members):,}", ", ".join(members[:3]))
    return table


def comparison_table(comparison: Comparison, *, show_all: bool) -> Table:
    """One row per quantity that differs, or per quantity compared."""
    table = Table(title="In order of computation", title_justify="left")
    table.add_column("quantity")
    table.add_column("")
    for heading in ("error", "allowed", "entries wrong"):
        table.add_column(heading, justify="right")
    table.add_column("at")
    entries = (
        [e for e in comparison.entries if e.status != "missing"] if show_all else comparison.wrong
    )
    for entry in entries if show_all else entries[:MOST_ROWS]:
        numbers = ["", "", ""]
        if entry.n_entries:
            numbers = [
                f"{entry.error:.1e}",
                f"{entry.allowed:.1e}",
                f"{entry.n_wrong:,} of {entry.n_entries:,}",
            ]
        where = str(list(entry.place)) if entry.is_wrong and entry.place else entry.hint
        table.add_row(entry.name, entry.status, *numbers, where)
    if not show_all and len(entries) > MOST_ROWS:
        table.caption = f"and {len(entries) - MOST_ROWS} more (--all)"
    return table


def missing_line(comparison: Comparison) -> str:
    """Say what the dump does not hold."""
    missing = comparison.missing
    if not missing:
        return "The dump holds everything."
    shown = ", ".join(missing[:MOST_NAMES]) + (", ..." if len(missing) > MOST_NAMES else "")
    return f"Not in the dump ({len(missing)}): {shown}"


def diagnosis_lines(diagnosis: Diagnosis) -> list[str]:
    """Say which mistake it is, or where to look."""
    matches = diagnosis.matches
    if len(matches) > 1:
        heading = f"One of these {len(matches)}, which give the same numbers here:"
    elif matches:
        heading = "The mistake:" if len(matches[0]) == 1 else "Two mistakes:"
    else:
        heading = (
            "None of the known mistakes, nor any two of them, gives these numbers "
            f"({diagnosis.n_tried:,} tried)."
        )
    lines = [heading]
    for match in matches:
        lines += [line for mistake in match for line in mistake_lines(mistake)]
    return lines + _blame(diagnosis)


def _blame(diagnosis: Diagnosis) -> list[str]:
    steps = {step.output: step for step in diagnosis.comparison.case.calculation.steps}
    if not diagnosis.blamed:
        return []
    lines = ["Wrong, though all that it is computed from is right:"]
    for name in diagnosis.blamed:
        step = steps.get(name.removeprefix("d."))
        text = f"  {name}"
        if step is not None and not name.startswith("d."):
            text += f", computed from {', '.join(step.inputs)}"
        if step is not None and step.equation:
            text += f" (derivations {step.equation})"
        lines.append(text)
    return lines


def mistake_lines(mistake: Mistake) -> list[str]:
    """Tell one entry of the catalogue."""
    return [
        f"  {mistake.name} (derivations {mistake.equation}; {', '.join(mistake.models)})",
        f"    wrong: {mistake.wrong}",
        f"    right: {mistake.right}",
        f"    shows: {mistake.shows}",
        f"    fix:   {mistake.fix}",
    ]
