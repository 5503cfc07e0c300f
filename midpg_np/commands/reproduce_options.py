"""What the commands of ``midpg reproduce`` share: options, a line per job, the end."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from midpg_np.commands.console import stderr, stdout
from midpg_np.data import DATASETS
from midpg_np.experiments.jobs import Job
from midpg_np.experiments.runner import is_failure
from midpg_np.experiments.table_report import Sheet, number, title_of

DataOption = Annotated[str, typer.Option(help=f"A file, or one of {', '.join(DATASETS)}.")]
PathOption = Annotated[Path | None, typer.Option(help="Folder or file of a built-in data set.")]
SchemaOption = Annotated[
    Path | None, typer.Option(help="TOML file with the roles of the columns of a file.")
]
DataSettings = Annotated[
    list[str] | None,
    typer.Option("--data-option", metavar="NAME=VALUE", help="Option of the data's loader."),
]
TrialsOption = Annotated[int, typer.Option(min=1, help="Number of seeds.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The first seed.")]
EpochsOption = Annotated[int | None, typer.Option(help="Epochs at most.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Option of the training or of the models."),
]
WorkersOption = Annotated[
    int, typer.Option(help="Processes on this machine; -1: one for each core.")
]
DaskOption = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, whose workers then train.")
]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the outcome and of all results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def this_command() -> str:
    """Return the command line, as outcomes quote it."""
    return shlex.join(["midpg", *sys.argv[1:]])


def tell(job: Job, result: Mapping[str, Any]) -> None:
    """Print a line on a job that is done; not through rich, whose bar moves out of its way."""
    if is_failure(result):
        return  # listed with its command at the end
    part = job.parts[-1]
    auc = number(result["metrics"][part]["auc"])
    options = ", ".join(f"{name}={value}" for name, value in job.model_options.items())
    what = ", ".join(filter(None, (title_of(job.model), options, f"seed {job.seed}")))
    print(f"{what}: {part} AUC {auc}, {result['seconds']:.1f} s", file=sys.stderr)


def finish(
    write: Callable[[Path, Any, Mapping[str, Any]], None],
    folder: Path,
    report: Any,
    content: Mapping[str, Any],
    *,
    as_json: bool,
    shown: int,
) -> None:
    """Write the files; print JSON, or the first sheets and the verdict."""
    write(folder, report, content)
    if as_json:
        print(json.dumps(content, indent=2))
    else:
        console = stdout()
        for sheet in report.sheets[:shown]:
            console.print(_table(sheet))
        console.print(report.verdict, markup=False, soft_wrap=True)
    stderr().print(f"written: {folder / 'report.html'}", markup=False)


def _table(sheet: Sheet) -> Table:
    look = {"title_justify": "left", "caption_justify": "left"}
    table = Table(title=sheet.title, caption=sheet.caption, **look)  # type: ignore[arg-type]
    for i, name in enumerate(sheet.head):
        table.add_column(escape(name), justify="left" if i == 0 else "right")
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table
