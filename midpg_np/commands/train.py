"""``midpg train``: train a model and its baseline, print their metrics, write the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from midpg_np.backend import check_device
from midpg_np.commands import tables
from midpg_np.commands.console import parse_settings, stderr, stdout
from midpg_np.commands.sources import load_splits
from midpg_np.experiments.comparison import (
    baseline_options,
    build_model,
    check_before_training,
    describe_check,
    summarise,
    train_and_test,
)
from midpg_np.experiments.presets import training_options
from midpg_np.training.config import TrainConfig
from midpg_np.training.metrics import Metrics
from midpg_np.training.run import RunResult, write_run


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
    data: Annotated[
        str, typer.Option(help="synthetic, marketbias, iaac, kuairand, online-shoppers or a file.")
    ] = "synthetic",
    path: Annotated[
        Path | None, typer.Option(help="Folder or file of a built-in data set.")
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="TOML file with the roles of the columns of a file.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a model: midpg, dpg, dnn.")] = "midpg",
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
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "device": device}
    training, model_options = _separate(parse_settings(settings or ()))
    training = training_options(data) | {k: v for k, v in given.items() if v is not None} | training
    if variant is not None:
        model_options["variant"] = variant
    plan = Plan(
        data=data,
        path=path,
        schema=schema,
        data_options=parse_settings(data_option or ()),
        model=model,
        model_options=model_options,
        baseline=None if baseline in ("none", model) else baseline,
        training=training,
        resume=resume,
        gradcheck=gradcheck,
    )
    folder = out or Path("runs") / f"{Path(data).stem}-{model}-{datetime.now():%Y%m%d-%H%M%S}"
    _run(plan, folder, range(seed, seed + seeds), as_json)


def _run(plan: Plan, folder: Path, seeds: range, as_json: bool) -> None:
    metrics: dict[str, list[Metrics]] = {}
    for seed in seeds:
        results = _train_seed(plan, folder if len(seeds) == 1 else folder / f"seed-{seed}", seed)
        for name, result in results.items():
            metrics.setdefault(name, []).append(result.metrics)
        if not as_json:
            title = f"{plan.data}, test rows, seed {seed}"
            scores = {name: result.metrics for name, result in results.items()}
            stdout().print(tables.metrics_table(scores, title))
    summary = summarise(metrics) | {"data": plan.data, "seeds": list(seeds), "folder": str(folder)}
    if len(seeds) > 1:
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    if as_json:
        print(json.dumps(summary, indent=2))
    elif len(seeds) > 1:
        title = f"{plan.data}, test rows, {len(seeds)} seeds: mean ± standard deviation"
        stdout().print(tables.seeds_table(summary, title))
    stderr().print(f"run folder: {folder}")


def _train_seed(plan: Plan, folder: Path, seed: int) -> dict[str, RunResult]:
    """Train baseline and model with one seed and write the run folder."""
    splits = load_splits(plan.data, plan.path, plan.schema, seed, plan.data_options)
    for note in splits.notes:
        stderr().print(note, markup=False)
    config = TrainConfig.from_dict(plan.training | {"seed": seed})
    model = build_model(plan.model, splits.train, plan.model_options)
    line = None
    if plan.gradcheck:
        report = check_before_training(model, splits.train, seed)
        line = describe_check(report)
        stderr().print(f"gradient check: {line}", markup=False)
        report.raise_if_wrong()
    results: dict[str, RunResult] = {}
    jobs = [(plan.model, model, folder)]
    if plan.baseline is not None:
        options = baseline_options(plan.baseline, plan.model_options)
        baseline = build_model(plan.baseline, splits.train, options)
        jobs.insert(0, (plan.baseline, baseline, folder / "baseline"))
    for name, job_model, job_folder in jobs:
        with _progress(f"{name}, seed {seed}") as progress:
            results[name] = train_and_test(
                job_model,
                splits,
                config,
                run_dir=job_folder,
                resume=plan.resume,
                progress=progress,
            )
    results = dict(reversed(results.items()))  # the model first, its baseline second
    about: dict[str, Any] = {"name": splits.name, "notes": list(splits.notes), "seed": seed}
    about["rows"] = {part: len(dataset) for part, dataset in splits.parts.items()}
    if plan.baseline is not None:
        alone = {plan.baseline: results[plan.baseline]}
        write_run(folder / "baseline", alone, encoder=splits.encoder, data=about)
    write_run(folder, results, encoder=splits.encoder, data=about, gradient_check=line)
    return results


def _separate(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide settings into options of the training and options of the model."""
    names = {field.name for field in fields(TrainConfig)}
    training = {name: value for name, value in settings.items() if name in names}
    return training, {name: value for name, value in settings.items() if name not in names}


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
