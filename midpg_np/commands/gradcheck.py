"""``midpg gradcheck``: prove every backward pass on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from joblib import Parallel, delayed
from rich.progress import track

from midpg_np.checks import GradientReport
from midpg_np.checks.catalogue import CASES
from midpg_np.commands import tables
from midpg_np.commands.console import stderr, stdout
from midpg_np.experiments.full_size_models import FULL_SIZE_CASES
from midpg_np.experiments.gradient_checks import check_full_size, check_small
from midpg_np.experiments.small_models import MODEL_CASES

FEW = 20


def gradcheck(
    names: Annotated[
        list[str] | None, typer.Argument(help="Check only names that contain one of these.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all numbers drawn.")] = 0,
    full_size: Annotated[
        bool,
        typer.Option(
            "--full-size", help="Check models of full size, one direction per parameter array."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every op, loss, layer and model against the complex step and central differences.

    Exit code 1 if one fails.

    Example: midpg gradcheck dwm midpg

    Example: midpg gradcheck --full-size
    """
    builders = FULL_SIZE_CASES if full_size else CASES | MODEL_CASES
    chosen = [name for name in builders if not names or any(part in name for part in names)]
    if not chosen:
        raise ValueError(f"no check is called {names}; there are {', '.join(builders)}.")
    console = stderr()
    # Processes take half a second to start; few checks are faster without.
    workers = Parallel(
        n_jobs=-1 if len(chosen) > FEW else 1, batch_size=1, return_as="generator_unordered"
    )
    check = check_full_size if full_size else check_small
    # Models, the longest checks, come last in the list and first here: no core waits at the end.
    checks = workers(delayed(check)(name, seed) for name in reversed(chosen))
    watched = track(
        checks, "checking", len(chosen), console=console, disable=not console.is_terminal
    )
    done = {report.name: report for report in watched}
    reports = [done[name] for name in chosen]
    if as_json:
        print(json.dumps([_as_dict(report) for report in reports], indent=2))
    else:
        stdout().print(tables.gradcheck_table(reports))
    failures = [f"{report.name}: {line}" for report in reports for line in report.failures]
    for line in failures:
        console.print(line, markup=False)
    if failures:
        raise typer.Exit(1)


def _as_dict(report: GradientReport) -> dict[str, object]:
    return {
        "name": report.name,
        "ok": report.ok,
        "entries": report.n_entries,
        "complex_step_error": report.complex_error,
        "difference_error": report.difference_error,
        "failures": report.failures,
    }
