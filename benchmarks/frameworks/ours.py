"""Our own training step behind the same interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from midpg_np.backend import to_numpy
from midpg_np.batch import Batch
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.optim import Adam
from midpg_np.training.step import draws_to_device, host_batch, training_step
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
        self.params = tree_to_device(tree_astype(params, dtype), device)
        self.adam = Adam()
        self.state = self.adam.init(self.params, getattr(model, "buffers", ()))

    def stage(self, batch: Batch, draws: Mapping[str, np.ndarray]) -> Any:
        """Return ``(batch, draws)`` on the device, labels in the dtype of the parameters."""
        if batch.label is not None:
            batch = host_batch(batch, self.dtype)
        return batch.to(self.device), draws_to_device(draws, self.dtype, self.device)

    def _result(self, staged: Any) -> Any:
        return training_step(self.model, CROSS_ENTROPIES["full"], self.params, *staged)

    def loss_and_grads(self, staged: Any) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and all gradients by path."""
        result = self._result(staged)
        grads = tree_flatten(result.grads)
        return float(result.losses["loss"]), {name: _whole(x) for name, x in grads.items()}

    def step(self, staged: Any) -> None:
        """Take one step."""
        result = self._result(staged)
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
        return to_numpy(model.forward(params, staged[0])[0].logit)

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters by path."""
        return {name: to_numpy(x) for name, x in tree_flatten(self.params).items()}


def _whole(gradient: Any) -> np.ndarray:
    dense = gradient.dense() if isinstance(gradient, RowGradient) else gradient
    return to_numpy(dense)
