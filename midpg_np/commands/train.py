"""``midpg train``: train a model and its baseline, print their metrics, write the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from midpg_np.backend import check_device
from midpg_np.commands import tables
from midpg_np.commands.console import stderr, stdout
from midpg_np.commands.finished import (
    BASELINE,
    check_unused,
    is_finished,
    read_finished,
    reopen,
)
from midpg_np.commands.settings import check_model_name, parse_settings, separate
from midpg_np.commands.sources import load_splits
from midpg_np.data import DATASETS, Splits
from midpg_np.experiments.comparison import (
    baseline_options,
    build_model,
    check_before_training,
    describe_check,
    summarise,
    train_and_test,
)
from midpg_np.experiments.presets import training_options
from midpg_np.models import MODELS
from midpg_np.plots import new_figure
from midpg_np.training.config import TrainConfig
from midpg_np.training.metrics import Metrics
from midpg_np.training.run import RunResult, describe_run, write_run


@dataclass(frozen=True)
class Plan:
    """What to train, resolved from the command line."""

    data: str
    path: Path | None
    schema: Path | None
    data_options: dict[str, Any]
    model: str
    model_options: dict[str, Any]
    baseline: str | None
    training: dict[str, Any]
    resume: bool
    gradcheck: bool


def train(
    data: Annotated[str, typer.Option(help=f"{', '.join(DATASETS)} or a file.")] = "synthetic",
    path: Annotated[
        Path | None, typer.Option(help="Folder or file of a built-in data set.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="TOML file with the roles of the columns of a file.")
    ] = None,
    model: Annotated[str, typer.Option(help=f"Name of a model: {', '.join(MODELS)}.")] = "midpg",
    variant: Annotated[
        str | None, typer.Option(help="Weighting variant of dpg and midpg: r, c, rc or non.")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="Model to compare with on the same rows; 'none' for none.")
    ] = "dnn",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Run folder; a new one below runs/.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with this many seeds in a row.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any option of model or training."),
    ] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the data's loader.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    gradcheck: Annotated[
        bool, typer.Option(help="Check the gradients of the full model before training.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a model and its baseline, print AUC and LogLoss per scenario, write a run folder.

    For example:

    midpg train

    midpg train --data kuairand --path data/kuairand-pure --variant rc --seeds 5

    midpg train --data rows.csv --schema roles.toml --set gain=2 --set hidden=[64,32]
    """
    check_device(device)
    new_figure(1, 1)  # says now, and not after the training, that matplotlib is missing
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with.")
    compared = None if baseline in ("none", model) else baseline
    for name in filter(None, (model, compared)):
        check_model_name(name)
    options = parse_settings(settings or ()) | ({} if variant is None else {"variant": variant})
    chosen, model_options = separate(options, model)
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": device}
    plan = Plan(
        data=data,
        path=path,
        schema=schema,
        data_options=parse_settings(data_option or ()),
        model=model,
        model_options=model_options,
        baseline=compared,
        training=training_options(data)
        | {name: value for name, value in given.items() if value is not None}
        | chosen,
        resume=resume,
        gradcheck=gradcheck,
    )
    folder = out or Path("runs") / f"{Path(data).stem}-{model}-{datetime.now():%Y%m%d-%H%M%S}"
    folders = {seed: folder}
    if seeds > 1:
        folders = {s: folder / f"seed-{s}" for s in range(seed, seed + seeds)}
    if not resume:
        for used in folders.values():
            check_unused(used)
    try:
        _run(plan, folder, folders, as_json)
    except KeyboardInterrupt:
        stderr().print(
            f"interrupted; the same command with --out {folder} --resume goes on.", markup=False
        )
        raise typer.Exit(130) from None


def _run(plan: Plan, folder: Path, folders: dict[int, Path], as_json: bool) -> None:
    metrics: dict[str, list[Metrics]] = {}
    for seed, own_folder in folders.items():
        scores = _train_seed(plan, own_folder, seed)
        for name, score in scores.items():
            metrics.setdefault(name, []).append(score)
        if not as_json:
            title = f"{plan.data}, test rows, seed {seed}"
            stdout().print(tables.metrics_table(scores, title))
    seeds = list(folders)
    summary = summarise(metrics) | {"data": plan.data, "seeds": seeds, "folder": str(folder)}
    if len(seeds) > 1:
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    if as_json:
        print(json.dumps(summary, indent=2))
    elif len(seeds) > 1:
        title = f"{plan.data}, test rows, {len(seeds)} seeds: mean ± standard deviation"
        stdout().print(tables.seeds_table(summary, title))
    stderr().print(f"run folder: {folder}", markup=False)


def _train_seed(plan: Plan, folder: Path, seed: int) -> dict[str, Metrics]:
    """Train baseline and model with one seed and write the run folder, unless that was done."""
    splits = load_splits(plan.data, plan.path, plan.schema, seed, plan.data_options)
    for note in splits.notes:
        stderr().print(note, markup=False)
    config = TrainConfig.from_dict(plan.training | {"seed": seed})
    models = {plan.model: build_model(plan.model, splits.train, plan.model_options)}
    if plan.baseline is not None:
        options = baseline_options(plan.baseline, plan.model_options)
        models[plan.baseline] = build_model(plan.baseline, splits.train, options)
    about = {"name": splits.name, "notes": list(splits.notes), "seed": seed}
    about["rows"] = {part: len(dataset) for part, dataset in splits.parts.items()}
    if plan.resume and is_finished(folder):
        runs = {name: describe_run(model, config) for name, model in models.items()}
        scores = read_finished(folder, runs, about)
        stderr().print(f"{folder} is finished; its results are shown again.", markup=False)
        return scores
    reopen(folder)
    line = _check_gradients(models[plan.model], splits, seed) if plan.gradcheck else None
    results: dict[str, RunResult] = {}
    for name in reversed(models):  # the baseline first: the folder is finished with the model
        with _progress(f"{name}, seed {seed}") as progress:
            results[name] = train_and_test(
                models[name],
                splits,
                config,
                run_dir=folder if name == plan.model else folder / BASELINE,
                resume=plan.resume,
                progress=progress,
            )
    if plan.baseline is not None:
        alone = {plan.baseline: results[plan.baseline]}
        write_run(folder / BASELINE, alone, encoder=splits.encoder, data=about)
    write_run(
        folder,
        {name: results[name] for name in models},
        encoder=splits.encoder,
        data=about,
        gradient_check=line,
        title=f"{plan.model} on {splits.name}, seed {seed}",
    )
    return {name: results[name].metrics for name in models}


def _check_gradients(model: Any, splits: Splits, seed: int) -> str:
    report = check_before_training(model, splits.train, seed)
    report.raise_if_wrong()
    line = describe_check(report)
    stderr().print(f"gradient check: {line}", markup=False)
    return line


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Any], None]]:
    """Show a bar with the last validation on stderr; nothing if it is no terminal."""
    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title)

        def report(step: Any) -> None:
            bar.update(task, completed=step.step, total=step.n_steps)
            if step.record and step.record.get("valid_auc") is not None:
                auc = step.record["valid_auc"]
                bar.update(task, description=f"{title}, valid AUC {auc:.4f}")

        yield report
