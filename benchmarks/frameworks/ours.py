"""Our own training step behind the same interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from midpg_np.backend import keep_freed_memory, to_device, to_numpy
from midpg_np.batch import Batch
from midpg_np.kernels import compiled_loops
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.config import TrainConfig
from midpg_np.training.flat_params import flat_views
from midpg_np.training.step import host_batch, rows_read, training_step
from midpg_np.training.tiles import Tiles, rows_per_tile
from midpg_np.tree import Tree, tree_astype, tree_flatten, tree_to_device


class OurStep:
    """The package's step as its training loop takes it.

    Parameters
    ----------
    model : frozen dataclass of ``midpg_np.models``
    params : Tree
        Initial parameters; copied.
    dtype : str
    device : str
        "cpu" or "cuda".
    n_threads : int
        Tiles of the batch worked on at a time, for models that can.
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
        keep_freed_memory()  # as fit does, which also computes with loops
        self.loops = compiled_loops()
        buffers = getattr(model, "buffers", ())
        self.params = flat_views(tree_to_device(tree_astype(params, dtype), device), buffers)
        self.adam = TrainConfig(device=device).adam
        rows = min(rows_per_tile(model), 512 // n_threads)
        self.tiles = Tiles(rows, n_threads) if device == "cpu" else None
        self.state = self.adam.init(self.params, buffers)

    def stage(self, batch: Batch, draws: Mapping[str, np.ndarray]) -> Any:
        """Return ``(batch, draws)`` on the device, labels in the dtype of the parameters."""
        if batch.label is not None:
            batch = host_batch(batch, self.dtype)
        moved = {}
        for name, x in draws.items():
            x = x.astype(self.dtype) if x.dtype.kind == "f" else x
            moved[name] = to_device(x, self.device)
        return batch.to(self.device), moved

    def _result(self, staged: Any) -> Any:
        loss = CROSS_ENTROPIES["full"]
        with self.loops:
            return training_step(self.model, loss, self.params, *staged, tiles=self.tiles)

    def loss_and_grads(self, staged: Any) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and all gradients by path."""
        result = self._result(staged)
        grads = tree_flatten(result.grads)
        return float(result.losses["loss"]), {name: _whole(x) for name, x in grads.items()}

    def step(self, staged: Any) -> None:
        """Take one step."""
        self.adam.prepare(self.params, self.state, rows_read(self.model, staged[0]))
        result = self._result(staged)
        with self.loops:
            self.adam.update(self.params, result.grads, self.state)
        if hasattr(self.model, "advance"):
            self.params = self.model.advance(self.params, result.cache)

    def wait(self) -> None:
        """Wait for the device: reading one number does."""
        if self.device != "cpu":
            to_numpy(next(iter(tree_flatten(self.params).values())).reshape(-1)[:1])

    def predict(self, staged: Any) -> np.ndarray:
        """Return the logits (B,)."""
        model, params = self.model, self.params
        if hasattr(model, "serving_form"):
            model, params = model.serving_form(params)
        with self.loops:
            return to_numpy(model.forward(params, staged[0])[0].logit)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters by path."""
        return {name: to_numpy(x) for name, x in tree_flatten(self.params).items()}


def _whole(gradient: Any) -> np.ndarray:
    dense = gradient.dense() if isinstance(gradient, RowGradient) else gradient
    return to_numpy(dense)
