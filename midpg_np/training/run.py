"""The run folder: everything about a finished training, for people and for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from midpg_np.models import model_config, model_name
from midpg_np.training.checkpoint import save_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import check_run_dir
from midpg_np.training.metrics import Metrics
from midpg_np.training.report import render_report
from midpg_np.training.trainer import CHECKPOINT, FINISHED, HISTORY, FitResult, write_history


@dataclass(frozen=True)
class RunResult:
    """A trained model with its metrics on rows that neither training nor early stopping saw.

    Parameters
    ----------
    model : Model
        A model of ``MODELS``.
    config : TrainConfig
        How it was trained.
    fit : FitResult
        What ``fit`` returned.
    metrics : Metrics
        On the rows named by ``evaluated_on``.
    evaluated_on : str
        "test", or "validation" if there were no further rows.
    """

    model: Any
    config: TrainConfig
    fit: FitResult
    metrics: Metrics
    evaluated_on: str = "test"


def write_run(
    run_dir: str | Path,
    results: Mapping[str, RunResult],
    *,
    encoder: Any = None,
    data: Mapping[str, Any] | None = None,
    gradient_check: str | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the files of a finished run and remove its checkpoint; return the report's path.

    Parameters
    ----------
    run_dir : path
        Folder; made if it does not exist.
    results : mapping of name to RunResult
        The main result first, then, if there is one, the baseline.
    encoder : Encoder, optional
        Saved with the main model, so that raw rows can be scored.
    data : mapping, optional
        What to say about the data: name, rows of each part, split.
    gradient_check : str, optional
        One line on how the gradients were checked.
    title : str, optional
        Heading of the report.
    overwrite : bool
        Replace a finished run.

    Raises
    ------
    ValueError
        If ``results`` is empty or has more than a main result and a baseline.
    FileExistsError
        If the folder holds a finished run and ``overwrite`` is False.
    ImportError
        If matplotlib is missing; model, metrics and history are on disk by then.
    """
    if not 1 <= len(results) <= 2:
        raise ValueError(f"results must be a main run and perhaps a baseline; got {list(results)}.")
    check_run_dir(run_dir, overwrite)
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    main = next(iter(results.values()))
    config = {name: describe_run(r.model, r.config) for name, r in results.items()}
    content = {"runs": config, "data": dict(data or {}), "versions": versions()}
    scores = {name: _scores(result) for name, result in results.items()}
    histories = {name: result.fit.history for name, result in results.items()}
    save_model(folder / "model.safetensors", main.model, main.fit.params, encoder, content)
    _write_json(folder / "config.json", content)
    lines = [{"run": name, **record} for name, h in histories.items() for record in h]
    write_history(folder / HISTORY, lines)
    _write_json(folder / FINISHED, scores)

    from midpg_np.plots import plot_curves

    plot_curves(histories, folder / "curves.png")
    report = render_report(
        title=title or f"Training of {next(iter(results))}",
        results=results,
        configuration=content,
        picture=(folder / "curves.png").read_bytes(),
        gradient_check=gradient_check,
    )
    _write_text(folder / "report.html", report)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return folder / "report.html"


def describe_run(model: Any, config: TrainConfig) -> dict[str, Any]:
    """Return what ``config.json`` says of a run: model, its options, those of the training."""
    return {
        "model": model_name(model),
        "options": model_config(model),
        "training": config.as_dict(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that the numbers depend on."""
    from midpg_np import __version__

    found = {"midpg_np": __version__, "python": platform.python_version()}
    for name in ("numpy", "scikit-learn", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # vendored or run from a zip: say so instead of failing
            found[name] = "unknown"
    return found


def _scores(result: RunResult) -> dict[str, Any]:
    fit, count = result.fit, result.model.count_params()
    return {
        "evaluated_on": result.evaluated_on,
        **result.metrics.as_dict(),
        "best_epoch": fit.best_epoch,
        "best_step": fit.best_step,
        "n_steps": fit.n_steps,
        "stopped_by": fit.stopped_by,
        "seconds": round(fit.seconds, 3),
        "parameters": count._asdict(),
    }


def _write_json(path: Path, content: Any) -> None:
    _write_text(path, json.dumps(content, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
