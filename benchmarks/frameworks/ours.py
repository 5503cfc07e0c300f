"""Our own training step behind the same interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, keep_freed_memory, stream_of_own, to_device, to_numpy
from midpg_np.batch import Batch
from midpg_np.kernels import compiled_loops
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.blas import blas_threads
from midpg_np.training.by_context import logits_in_batches
from midpg_np.training.captured import CapturedStep, advance_in_place
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import rows_per_batch
from midpg_np.training.packed import (
    Layout,
    batch_and_draws,
    layout_of,
    named_arrays,
    pack,
    unpack,
)
from midpg_np.training.step import StepResult, host_batch, rows_read, training_step
from midpg_np.training.tiles import Tiles, rows_per_tile, threads_of_blas
from midpg_np.tree import Tree, tree_astype, tree_flatten, tree_to_device


class Staged(NamedTuple):
    """A batch on the host; and, in one piece of memory on the device, all that a step reads."""

    host: Batch
    packed: Array
    layout: Layout

    @property
    def inputs(self) -> tuple[Batch, dict[str, Array]]:
        """Batch and draws on the device."""
        return batch_and_draws(unpack(self.packed, self.layout))


class OurStep:
    """The package's step as its training loop takes it; on a GPU captured, where the loop does it.

    Parameters
    ----------
    model : frozen dataclass of ``midpg_np.models``
    params : Tree
        Initial parameters; copied.
    dtype : str
    device : str
        "cpu" or "cuda".
    n_threads : int
        Tiles of the batch worked on at a time, for models that can; threads of BLAS for others.
    """

    def __init__(
        self,
        model: Any,
        params: Tree,
        dtype: str = "float32",
        device: str = "cpu",
        n_threads: int = 1,
    ) -> None:
        self.model, self.dtype, self.device, self.n_threads = model, dtype, device, n_threads
        keep_freed_memory()  # as fit does, which also computes with loops, or in a stream
        self.loops = compiled_loops()
        self.stream = stream_of_own(device)
        with self.stream:
            buffers = getattr(model, "buffers", ())
            self.adam = TrainConfig(device=device).adam
            params = tree_to_device(tree_astype(params, dtype), device)
            self.params = self.adam.laid_out(params, buffers)
            self.state = self.adam.init(self.params, buffers)
        self.blas = blas_threads(threads_of_blas(model, n_threads))  # as fit does
        self.tiles: Tiles | None = None
        self.rows_predicted: int | None = None  # at a time, as predict_logits chooses them
        self.captured: CapturedStep | None = None
        if getattr(model, "has_fixed_work", False) and self.adam.can_be_captured(self.state):
            self.captured = CapturedStep(self._whole_step, self._count)

    def stage(self, batch: Batch, draws: Mapping[str, np.ndarray]) -> Staged:
        """Return what a step reads on the device, labels in the dtype of the parameters."""
        label = np.zeros(batch.n_rows) if batch.label is None else batch.label
        host = host_batch(batch._replace(label=label), self.dtype)
        typed = {n: x.astype(self.dtype) if x.dtype.kind == "f" else x for n, x in draws.items()}
        arrays = named_arrays(host, typed)
        layout, n_bytes = layout_of(arrays)
        if self.device == "cpu":
            rows = min(rows_per_tile(self.model), -(-batch.n_rows // self.n_threads))
            if self.tiles is None or self.tiles.rows != rows:
                self.tiles = Tiles(rows, self.n_threads)
        memory = np.zeros(n_bytes, np.uint8)
        pack(arrays, layout, memory)
        with self.stream:
            return Staged(host, to_device(memory, self.device), layout)

    def _result(self, batch: Batch, draws: Mapping[str, Array]) -> StepResult:
        loss = CROSS_ENTROPIES["full"]
        return training_step(self.model, loss, self.params, batch, draws, tiles=self.tiles)

    def _whole_step(self, batch: Batch, draws: Mapping[str, Array]) -> StepResult:
        result = self._result(batch, draws)
        self.adam.update(self.params, result.grads, self.state)
        advance_in_place(self.model, self.params, result.cache)
        return result

    def _count(self) -> None:
        self.state.step += 1

    def loss_and_grads(self, staged: Staged) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and all gradients by path."""
        with self.stream, self.loops:
            result = self._result(*staged.inputs)
            grads = tree_flatten(result.grads)
            return float(result.losses["loss"]), {name: _whole(x) for name, x in grads.items()}

    def step(self, staged: Staged) -> None:
        """Take one step."""
        with self.stream, self.loops:
            if self.captured is not None:
                self.captured(staged.packed, staged.layout)
                return
            self.adam.prepare(self.params, self.state, rows_read(self.model, staged.host))
            self._whole_step(*staged.inputs)

    def wait(self) -> None:
        """Wait for the device: reading one number does."""
        if self.device != "cpu":
            with self.stream:
                to_numpy(next(iter(tree_flatten(self.params).values())).reshape(-1)[:1])

    def predict(self, staged: Staged) -> np.ndarray:
        """Return the logits (B,)."""
        model, params = self.model, self.params
        with self.stream, self.loops:
            if hasattr(model, "serving_form"):
                model, params = model.serving_form(params)
            batch = staged.inputs[0]
            if self.device != "cpu":
                return to_numpy(model.forward(params, batch)[0].logit)
            if self.rows_predicted is None:
                self.rows_predicted = rows_per_batch(model, params)
            return logits_in_batches(model, params, batch, self.rows_predicted, "cpu")

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters by path."""
        with self.stream:
            return {name: to_numpy(x) for name, x in tree_flatten(self.params).items()}


def _whole(gradient: Any) -> np.ndarray:
    dense = gradient.dense() if isinstance(gradient, RowGradient) else gradient
    return to_numpy(dense)
