"""The machinery behind ``fit``: steps, validations and checkpoints of one run."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp, keep_freed_memory, stream_of_own
from midpg_np.batch import Batch
from midpg_np.data.batches import Dataset
from midpg_np.kernels import compiled_loops
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models.protocol import Draws
from midpg_np.training.blas import blas_threads
from midpg_np.training.captured import CapturedStep, advance_in_place
from midpg_np.training.config import TrainConfig
from midpg_np.training.embedding_dropout import EmbeddingDropout, embedding_dropout
from midpg_np.training.evaluate import evaluate
from midpg_np.training.optim import Adam, Optimiser
from midpg_np.training.prefetch import Prepared, prepared_batches
from midpg_np.training.resume import (
    RunState,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
    start_run,
)
from midpg_np.training.step import (
    NonFiniteLossError,
    StepResult,
    first_bad_parameter,
    first_non_finite,
    host_numbers,
    rows_read,
    training_step,
)
from midpg_np.training.tiles import Tiles, rows_per_tile, threads_of_blas
from midpg_np.tree import Tree, tree_copy, tree_to_device

CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.jsonl"
FINISHED = "metrics.json"  # its presence says that the run in this folder is finished
# On a GPU reading a loss waits for the device, so losses are read in groups of this many steps.
LOSSES_PER_READ = 32


class Progress(NamedTuple):
    """What ``progress`` is told after every step; ``record`` only after a validation."""

    step: int
    n_steps: int
    epoch: int
    record: dict[str, Any] | None


@dataclass(frozen=True)
class FitResult:
    """Outcome of ``fit``.

    Parameters
    ----------
    params : tree
        Parameters of the best validation (without validation: the last), NumPy.
    history : list of dict
        One record per validation: epoch, step, rows, train_loss and its terms, valid_auc,
        valid_macro_auc, valid_logloss, valid_scenarios (auc and logloss by scenario), is_best,
        seconds.  Losses are in nats.
    best_epoch, best_step : int
        When the returned parameters were reached.
    n_steps : int
        Steps taken.
    stopped_by : str
        "epochs" or "patience".
    seconds : float
        Wall-clock time, in seconds.
    """

    params: Tree
    history: list[dict[str, Any]]
    best_epoch: int
    best_step: int
    n_steps: int
    stopped_by: str
    seconds: float


@dataclass
class Trainer:
    """One run of ``fit``; see there for the arguments."""

    model: Any
    train: Dataset
    valid: Dataset | None
    config: TrainConfig
    optimiser: Optimiser
    folder: Path | None
    progress: Callable[[Progress], None] | None
    # Losses of the last steps that are still on the device: (step, rows, losses).
    pending: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)
    last_result: StepResult | None = None
    captured: CapturedStep | None = None
    started: float = 0.0

    def run(self, resume: bool) -> FitResult:
        """Train to the end, from the start or from the checkpoint."""
        with stream_of_own(self.config.device):  # the default one cannot be captured
            return self._run(resume)

    def _run(self, resume: bool) -> FitResult:
        config, path = self.config, self.checkpoint_path
        loops = compiled_loops(config.kernels, len(self.train))
        _ = self._dropout  # a model that would not use it is refused now
        identity = fingerprint(self.model, config, self.optimiser, self.train, self.valid)
        if config.device == "cpu":
            identity["kernels"] = "compiled" if loops.are_on else "numpy"
        if resume and path is not None and path.exists():
            state = load_checkpoint(path, self.model, config, self.optimiser, identity)
        else:
            state = start_run(self.model, config, self.optimiser)
        self._write_history(state)
        self.captured = self._capture(state)
        keep_freed_memory()
        self.started = time.perf_counter() - state.seconds
        # An overflow is reported once, with its place, and not by NumPy's warnings.
        silence = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with blas_threads(threads_of_blas(self.model, config.threads)), loops, silence:
            while not self._stopped_by(state):
                self._epoch(state, identity)
        return self._result(state)

    @cached_property
    def _tiles(self) -> Tiles | None:
        """A GPU takes whole batches."""
        config = self.config
        if config.device != "cpu":
            return None
        return Tiles(config.tile_rows or rows_per_tile(self.model), config.threads)

    @cached_property
    def _dropout(self) -> EmbeddingDropout | None:
        return embedding_dropout(self.model, self.config.embedding_dropout, self.config.seed)

    @property
    def checkpoint_path(self) -> Path | None:
        """File that is replaced at every checkpoint."""
        return None if self.folder is None else self.folder / CHECKPOINT

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return n_batches(len(self.train), self.config.batch_size)

    def _stopped_by(self, state: RunState) -> str | None:
        patience = self.config.patience
        if self.valid is not None and patience is not None and state.bad >= patience:
            return "patience"
        return "epochs" if state.epoch >= self.config.epochs else None

    def _epoch(self, state: RunState, identity: dict[str, Any]) -> None:
        config = self.config
        state.order.bit_generator.state = state.order_at_epoch
        batches = self.train.positions(config.batch_size, state.order)
        left = islice(batches, state.batch, None)
        inputs = self.model, self.train, left, state.draws, config.dtype, config.device
        for batch in prepared_batches(*inputs, self._more_draws(state.step + 1)):
            self._step(state, batch)
            state.batch += 1
            is_last = state.batch == self.steps_per_epoch
            if is_last:
                state.epoch, state.batch = state.epoch + 1, 0
                state.order_at_epoch = dict(state.order.bit_generator.state)
            is_validation = is_last or self._is_validation(state)
            if is_validation:
                self._validate(state)
            if is_validation or _is_due(state.step, config.checkpoint_every):
                self._save(state, identity)
            self._tell(state, is_validation)
            if is_last or self._stopped_by(state):
                return

    def _more_draws(self, first_step: int) -> Callable[[int, int], Draws] | None:
        """Return what draws the masks of the batches from ``first_step`` on, if there are any."""
        dropout = self._dropout
        if dropout is None:
            return None
        return lambda i, n_rows: dropout.draw(first_step + i, n_rows)

    def _is_validation(self, state: RunState) -> bool:
        """Whether one is due after a batch that is not the last of its epoch."""
        times, per_epoch = self.config.valid_per_epoch, self.steps_per_epoch
        is_at_mark = state.batch * times // per_epoch > (state.batch - 1) * times // per_epoch
        return is_at_mark or _is_due(state.step, self.config.valid_every)

    def _step(self, state: RunState, item: Prepared) -> None:
        state.draws.bit_generator.state = item.draws_after
        if item.packed is not None and self.captured is not None:
            self.last_result, losses = self.captured(*item.packed)
            # The next step writes over them.
            values = dict(zip(self.last_result.losses, losses.copy(), strict=True))
            self._count(state, item, values)
            return
        self.optimiser.prepare(state.params, state.optimiser, rows_read(self.model, item.host))
        self.last_result = result = self._differentiate(state, item.batch, item.draws)
        self._count(state, item, result.losses)
        self._update(state, result)
        if self.config.device == "cpu":  # its losses are read; its memory serves the next step
            self.last_result = None

    def _capture(self, state: RunState) -> CapturedStep | None:
        """Return what takes steps as one launch, if they give a GPU the same work each time."""
        config, optimiser, adam = self.config, self.optimiser, state.optimiser
        is_fixed = getattr(self.model, "has_fixed_work", False) and config.loss_reduce == "mean"
        if not (is_fixed and isinstance(optimiser, Adam) and optimiser.can_be_captured(adam)):
            return None

        def step(batch: Batch, draws: Draws) -> tuple[StepResult, Array]:
            result = self._differentiate(state, batch, draws)
            optimiser.update(state.params, result.grads, adam)
            advance_in_place(self.model, state.params, result.cache)
            losses = list(result.losses.values())
            return result, get_xp(*losses).stack(losses)

        def count() -> None:
            adam.step += 1

        return CapturedStep(step, count)

    def _differentiate(self, state: RunState, batch: Batch, draws: Draws) -> StepResult:
        config, loss = self.config, CROSS_ENTROPIES[self.config.ce]
        inputs = state.params, batch, draws
        how = config.loss_reduce, self._tiles, config.penalty
        return training_step(self.model, loss, *inputs, *how)

    def _update(self, state: RunState, result: StepResult) -> None:
        self.optimiser.update(state.params, result.grads, state.optimiser)
        if hasattr(self.model, "advance"):  # moving averages and schedules, without gradient
            state.params = self.model.advance(state.params, result.cache)

    def _count(self, state: RunState, item: Prepared, losses: dict[str, Any]) -> None:
        """Count a step; its loss is looked at before the parameters change, where that is cheap."""
        state.step += 1
        self.pending.append((state.step, item.host.n_rows, losses))
        if self.config.device == "cpu" or len(self.pending) >= LOSSES_PER_READ:
            self._read_losses(state)

    def _read_losses(self, state: RunState) -> None:
        on_host = host_numbers([losses for _, _, losses in self.pending])
        for (step, n_rows, _), values in zip(self.pending, on_host, strict=True):
            if not math.isfinite(values["loss"]):
                assert self.last_result is not None
                place = first_non_finite(state.params, self.last_result)
                raise NonFiniteLossError(step, values["loss"], place, self._saved)
            for name, value in values.items():
                state.sums[name] = state.sums.get(name, 0.0) + value * n_rows
            state.n_rows += n_rows
        self.pending.clear()

    @property
    def _saved(self) -> str | None:
        path = self.checkpoint_path
        return str(path) if path is not None and path.exists() else None

    def _validate(self, state: RunState) -> None:
        self._read_losses(state)
        self.optimiser.settle(state.params, state.optimiser)
        bad = first_bad_parameter(state.params)
        if bad is not None:
            raise NonFiniteLossError(state.step, math.nan, bad, self._saved)
        record: dict[str, Any] = {
            "epoch": state.epoch if state.batch == 0 else state.epoch + 1,
            "step": state.step,
            "rows": state.n_rows,
            **{f"train_{name}": total / state.n_rows for name, total in state.sums.items()},
        }
        state.sums, state.n_rows = {}, 0
        if self.valid is not None:
            metrics = evaluate(self.model, state.params, self.valid, device=self.config.device)
            record |= {
                "valid_auc": metrics.auc,
                "valid_macro_auc": metrics.macro_auc,
                "valid_logloss": metrics.logloss,
                "valid_scenarios": {
                    part.name: {"auc": part.auc, "logloss": part.logloss}
                    for part in metrics.scenarios
                },
            }
        record["is_best"] = self.valid is None or _is_better(record, state.best_record)
        record["seconds"] = round(self._seconds(), 3)
        state.history.append(record)
        if record["is_best"]:
            state.best_record, state.bad = record, 0
            if self.valid is not None:  # without validation the last parameters are the best
                state.best = tree_copy(tree_to_device(state.params, "cpu"))
        else:
            state.bad += 1

    def _seconds(self) -> float:
        return time.perf_counter() - self.started

    def _save(self, state: RunState, identity: dict[str, Any]) -> None:
        if self.checkpoint_path is None:
            return
        self._read_losses(state)
        state.seconds = self._seconds()
        save_checkpoint(self.checkpoint_path, state, self.optimiser, identity)
        self._write_history(state)

    def _write_history(self, state: RunState) -> None:
        if self.folder is not None:
            write_history(self.folder / HISTORY, state.history)

    def _tell(self, state: RunState, is_validation: bool) -> None:
        if self.progress is not None:
            record = state.history[-1] if is_validation else None
            n_steps = self.config.epochs * self.steps_per_epoch
            self.progress(Progress(state.step, n_steps, state.epoch, record))

    def _result(self, state: RunState) -> FitResult:
        best = state.best
        if best is None:
            self.optimiser.settle(state.params, state.optimiser)
            best = tree_copy(tree_to_device(state.params, "cpu"))
        assert state.best_record is not None
        return FitResult(
            params=best,
            history=state.history,
            best_epoch=state.best_record["epoch"],
            best_step=state.best_record["step"],
            n_steps=state.step,
            stopped_by=self._stopped_by(state) or "epochs",
            seconds=self._seconds(),
        )


def n_batches(n_rows: int, batch_size: int) -> int:
    """Return the number of batches that ``iterate_batches`` makes of so many rows."""
    joined = n_rows % batch_size == 1 and batch_size > 1 and n_rows > batch_size
    return -(-n_rows // batch_size) - joined


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _is_better(record: dict[str, Any], best: dict[str, Any] | None) -> bool:
    if best is None:
        return True
    if record["valid_auc"] is None:
        return bool(record["valid_logloss"] < best["valid_logloss"])
    return bool(record["valid_auc"] > best["valid_auc"])


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    lines = [json.dumps(record) + "\n" for record in history]
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, path)
