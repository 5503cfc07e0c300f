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
from midpg_np.training.trainer import FitResult, Progress, Trainer

__all__ = ["FitResult", "Progress", "fit"]


def fit(
    model: Any,
    train: Dataset,
    valid: Dataset | None,
    config: TrainConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
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
    progress : callable, optional
        Called after every step with a ``Progress``.
    optimiser : Optimiser, optional
        Instead of the Adam that ``config`` describes.

    Raises
    ------
    ValueError
        If the data cannot be trained on, or the checkpoint belongs to another run.
    FileExistsError
        If ``run_dir`` holds a checkpoint and ``resume`` is False.
    NonFiniteLossError
        If a loss is not finite.
    """
    config = config or TrainConfig()
    check_device(config.device)
    _check_data(model, train, "training", needs_both_classes=True)
    if valid is not None:
        _check_data(model, valid, "validation", needs_both_classes=False)
    trainer = Trainer(
        model, train, valid, config, optimiser or config.adam, _folder(run_dir), progress
    )
    return trainer.run(resume)


def _folder(run_dir: str | Path | None) -> Path | None:
    if run_dir is None:
        return None
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
