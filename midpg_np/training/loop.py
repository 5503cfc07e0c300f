"""``fit``: train a model with early stopping, so that an interruption changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.backend import check_device
from midpg_np.data.batches import Dataset
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import check_fits
from midpg_np.training.optim import Optimiser
from midpg_np.training.trainer import (
    CHECKPOINT,
    FINISHED,
    FitResult,
    Progress,
    Trainer,
    n_batches,
)

__all__ = ["FitResult", "Progress", "check_run_dir", "fit"]


def fit(
    model: Any,
    train: Dataset,
    valid: Dataset | None,
    config: TrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    optimiser: Optimiser | None = None,
) -> FitResult:
    """Train a model; return the parameters with the best validation AUC.

    Where validation AUC is not defined (one class only), LogLoss decides instead; without
    validation rows the last parameters are returned.

    Parameters
    ----------
    model : Model
        Any model of ``midpg_np.models``, or your own with the same methods.
    train, valid : Dataset
        Labelled rows; ``valid`` may be None.
    config : TrainConfig, optional
        Options; the defaults if None.
    run_dir : path, optional
        Folder for ``checkpoint.safetensors`` and ``history.jsonl``; without it nothing is written.
    resume : bool
        Go on from the checkpoint in ``run_dir``, if there is one.
    overwrite : bool
        Ignore a checkpoint or a finished run in ``run_dir``; files are replaced one by one.
    progress : callable, optional
        Called after every step with a ``Progress``.
    optimiser : Optimiser, optional
        Instead of the Adam that ``config`` describes, its schedule included.

    Raises
    ------
    ValueError
        If the data cannot be trained on, or the checkpoint belongs to another run.
    FileExistsError
        If ``run_dir`` holds a finished run, or a checkpoint that is not to be resumed.
    NonFiniteLossError
        If a loss is not finite.
    """
    config = config or TrainConfig()
    check_device(config.device)
    _check_data(model, train, "training", needs_both_classes=True)
    if valid is not None:
        _check_data(model, valid, "validation", needs_both_classes=False)
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None:
        _check_folder(folder, resume, overwrite)
    optimiser = optimiser or config.adam_for(n_batches(len(train), config.batch_size))
    return Trainer(model, train, valid, config, optimiser, folder, progress).run(resume)


def check_run_dir(run_dir: str | Path, overwrite: bool = False) -> None:
    """Raise FileExistsError if the folder holds a finished run, unless ``overwrite``."""
    if not overwrite and (Path(run_dir) / FINISHED).exists():
        raise FileExistsError(
            f"{run_dir} holds a finished run; choose another folder, or allow overwriting it."
        )


def _check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    check_run_dir(folder, overwrite)
    if (folder / CHECKPOINT).exists() and not (resume or overwrite):
        raise FileExistsError(
            f"{folder / CHECKPOINT}: an earlier run left this checkpoint; resume it, allow "
            "overwriting it, or use another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)


def _check_data(model: Any, dataset: Dataset, role: str, needs_both_classes: bool) -> None:
    check_fits(model, dataset)
    if dataset.label is None:
        raise ValueError(f"the {role} rows have no labels; encode them with their label column.")
    n_rows, n_positive = len(dataset), int(dataset.label.sum())
    if n_rows == 0 or (needs_both_classes and n_rows == 1):
        raise ValueError(f"the {role} data has {n_rows} rows; that is too few to learn from.")
    if needs_both_classes and n_positive in (0, n_rows):
        only = 0 if n_positive == 0 else 1
        raise ValueError(
            f"all {n_rows} {role} rows have label {only}; a classifier needs rows of both classes."
        )
    if (dataset.scenario < 0).any():
        row = int(np.argmax(dataset.scenario < 0))
        raise ValueError(
            f"{role} row {row} has an unknown scenario (-1); leave such rows out or encode them "
            "with an encoder that was fitted on them."
        )
