"""Train a model and its baseline on the same rows with the same seeds; compare them in pairs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from midpg_np.checks import GradientReport, check_directions, model_case, perturbed_params
from midpg_np.data.batches import Dataset
from midpg_np.data.splits import Splits
from midpg_np.experiments.presets import id_fields
from midpg_np.models import MODELS, model_for
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import evaluate
from midpg_np.training.loop import fit
from midpg_np.training.metrics import Metrics
from midpg_np.training.run import RunResult

# Options of a model that its baseline must share for the comparison to be fair.
SHARED_OPTIONS = ("dim_embedding", "hidden", "activation")


def build_model(name: str, data: Dataset, options: Mapping[str, Any]) -> Any:
    """Build a model for a data set; options that name fields start from its ids, if it has any.

    Raises
    ------
    ValueError
        For an unknown model, option or field.
    """
    known = {field.name for field in fields(MODELS[name])} if name in MODELS else set()
    priors = {"prior_fields": id_fields(data.field_names)} if "prior_fields" in known else {}
    return model_for(name, data, priors | dict(options))


def baseline_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a model's options that its baseline takes over."""
    known = {field.name for field in fields(MODELS[name])}
    return {key: options[key] for key in SHARED_OPTIONS if key in options and key in known}


def train_and_test(
    model: Any,
    splits: Splits,
    config: TrainConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> RunResult:
    """Train on the training rows, stop on the validation rows, score the test rows."""
    result = fit(
        model,
        splits.train,
        splits.valid,
        config,
        run_dir=run_dir,
        resume=resume,
        progress=progress,
    )
    metrics = evaluate(model, result.params, splits.test, device=config.device)
    return RunResult(model, config, result, metrics)


def check_before_training(
    model: Any, data: Dataset, seed: int = 0, n_rows: int = 64
) -> GradientReport:
    """Check every parameter array of a model of full size along one random direction.

    In float64, on the first rows of the data, at the initial parameters plus N(0, 0.1^2), since the
    zero biases of the start would mask mistakes.

    Parameters
    ----------
    model : Model
    data : Dataset
    seed : int
        Seed of parameters, random draws and directions.
    n_rows : int
        Rows of the batch.
    """
    rng_params, rng_draws, rng_check = np.random.default_rng(seed).spawn(3)
    batch = data.batch(np.arange(min(n_rows, len(data))))
    draws = model.draw(rng_draws, batch)
    params = perturbed_params(model, rng_params, scale=0.1)
    return check_directions(model_case(model, params, batch, draws), rng_check)


def describe_check(report: GradientReport) -> str:
    """Return the line on a passed gradient check that reports and terminals show."""
    return (
        f"{report.name}: {len(report.blocks)} parameter arrays agree with the complex step along a "
        f"random direction, largest relative error {report.complex_error:.0e}."
    )


class Difference(NamedTuple):
    """A paired difference over seeds: mean, sample standard deviation and the pairs ahead."""

    mean: float
    std: float | None
    n_ahead: int
    n_pairs: int


def paired_difference(main: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Summarise ``main - baseline``, seed by seed."""
    differences = [a - b for a, b in zip(main, baseline, strict=True)]
    mean, std = mean_and_std(differences)
    return Difference(mean, std, sum(d > 0 for d in differences), len(differences))


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (None for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def summarise(metrics: Mapping[str, Sequence[Metrics]]) -> dict[str, Any]:
    """Summarise the metrics of two models over seeds, main model first, ready for JSON.

    Returns
    -------
    dict
        Per model ``auc``, ``macro_auc`` and ``logloss`` as {values, mean, std}; with two models
        also ``difference``: the first minus the second, in pairs.
    """
    summary: dict[str, Any] = {"models": {}}
    for name, runs in metrics.items():
        columns = {key: [getattr(m, key) for m in runs] for key in ("auc", "macro_auc", "logloss")}
        summary["models"][name] = {
            key: {"values": values, **dict(zip(("mean", "std"), mean_and_std(values), strict=True))}
            for key, values in columns.items()
            if None not in values
        }
    if len(metrics) == 2:
        main, baseline = summary["models"].values()
        summary["difference"] = {
            key: paired_difference(main[key]["values"], baseline[key]["values"])._asdict()
            for key in main
            if key in baseline
        }
    return summary
