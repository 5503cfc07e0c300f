"""``midpg reproduce``: the paper's table and figures, and an ablation, on the data at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from midpg_np.commands.console import stderr
from midpg_np.commands.reproduce_figures import diversity, rank
from midpg_np.commands.reproduce_options import (
    DaskOption,
    DataOption,
    DataSettings,
    EpochsOption,
    JsonOption,
    OutOption,
    PathOption,
    SchemaOption,
    SeedOption,
    TrialsOption,
    WorkersOption,
    finish,
    tell,
    this_command,
)
from midpg_np.commands.settings import parse_settings, separate
from midpg_np.commands.sources import load_splits
from midpg_np.experiments.ablation import MODEL, Ablation, ablation_report, run_ablation
from midpg_np.experiments.jobs import Job
from midpg_np.experiments.runner import run_jobs
from midpg_np.experiments.table1 import SYSTEMS, RunJobs, Table1, run_table1
from midpg_np.experiments.table1_report import table1_report
from midpg_np.experiments.table_report import write_report
from midpg_np.experiments.tuning import Task

app = typer.Typer(
    help="Reproduce the paper's table and figures on the data you have.", no_args_is_help=True
)


@app.command()
def table1(
    data: DataOption = "synthetic",
    path: PathOption = None,
    schema: SchemaOption = None,
    data_option: DataSettings = None,
    systems: Annotated[str, typer.Option(help="Names of models, separated by commas.")] = ",".join(
        SYSTEMS
    ),
    trials: TrialsOption = 10,
    seed: SeedOption = 0,
    tune: Annotated[
        bool, typer.Option(help="Choose a setting for every system by validation AUC first.")
    ] = True,
    tuning_seeds: Annotated[
        int, typer.Option(min=1, help="Seeds with which every setting is tried.")
    ] = 2,
    epochs: EpochsOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the training, for all alike."),
    ] = None,
    workers: WorkersOption = -1,
    dask: DaskOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare all systems, tuned alike, over seeds, with paired tests.

    The same command goes on where an earlier one was interrupted.

    For example:

    midpg reproduce table1 --data marketbias --path data/marketbias-electronics

    midpg reproduce table1 --systems dnn,ple,midpg --trials 3 --no-tune
    """
    training = _with_epochs(parse_settings(settings or ()), epochs)
    task, facts = _task(data, path, schema, data_option, training)
    table = Table1(
        task,
        systems=tuple(name.strip() for name in systems.split(",") if name.strip()),
        seeds=tuple(range(seed, seed + trials)),
        tuning_seeds=tuple(range(seed, seed + tuning_seeds)) if tune else (),
    )
    folder = out or Path("runs") / f"table1-{Path(data).stem}"
    content = facts | run_table1(table, _runner(folder, workers, dask))
    report = table1_report(content, content["command"], content["notes"])
    finish(write_report, folder, report, content, as_json=as_json, shown=2)


app.command()(rank)
app.command()(diversity)


@app.command()
def ablation(
    data: DataOption = "synthetic",
    path: PathOption = None,
    schema: SchemaOption = None,
    data_option: DataSettings = None,
    trials: TrialsOption = 10,
    seed: SeedOption = 0,
    epochs: EpochsOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the training or of MI-DPG."),
    ] = None,
    workers: WorkersOption = -1,
    dask: DaskOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change MI-DPG's open choices one at a time and compare each with the default.

    For example:

    midpg reproduce ablation --data marketbias --path data/marketbias-electronics --trials 5
    """
    chosen, base = separate(parse_settings(settings or ()), MODEL)
    task, facts = _task(data, path, schema, data_option, _with_epochs(chosen, epochs))
    plan = Ablation(task, seeds=tuple(range(seed, seed + trials)), base=base)
    folder = out or Path("runs") / f"ablation-{Path(data).stem}"
    content = facts | run_ablation(plan, _runner(folder, workers, dask))
    report = ablation_report(content, content["command"], content["notes"])
    finish(write_report, folder, report, content, as_json=as_json, shown=2)


def _with_epochs(training: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    return dict(training) | ({} if epochs is None else {"epochs": epochs})


def _task(
    data: str,
    path: Path | None,
    schema: Path | None,
    data_option: Sequence[str] | None,
    training: Mapping[str, Any],
) -> tuple[Task, dict[str, Any]]:
    """Return what all jobs share, and what the outcome says of the rows."""
    options = parse_settings(data_option or ())
    if "seed" in training:
        raise ValueError("--set seed: use --seed, the first seed, and --trials.")
    task = Task(
        data=data,
        path=None if path is None else str(path),
        data_options=options,
        training=dict(training),
        schema=None if schema is None else str(schema),
    )
    splits = load_splits(data, path, schema, 0, options)  # errors of the data show now
    rows = {part: len(dataset) for part, dataset in splits.parts.items()}
    counts = ", ".join(f"{n:,} {part}" for part, n in rows.items())
    notes = [f"Rows: {counts}; {splits.train.n_scenarios} scenarios.", *splits.notes, task.note]
    return task, {"command": this_command(), "rows": rows, "notes": notes}


def _runner(folder: Path, workers: int, dask: str | None) -> RunJobs:
    def run(jobs: list[Job]) -> list[dict[str, Any]]:
        try:
            return run_jobs(jobs, folder, workers=workers, dask=dask, on_done=tell)
        except KeyboardInterrupt:
            stderr().print(
                f"interrupted; the results in {folder} are kept, and the same command with --out "
                f"{folder} goes on.",
                markup=False,
            )
            raise typer.Exit(130) from None

    return run
