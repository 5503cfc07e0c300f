"""A training step in PyTorch, eager or compiled, for any ``Network``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from frameworks import Network, Rows
from midpg_np.batch import Batch
from midpg_np.tree import Tree, tree_flatten


class TorchStep:
    """Loss by the network's forward, gradients by autograd, fused Adam.

    Parameters
    ----------
    network : Network
    params : Tree
        Initial parameters; copied.
    dtype : str
    device : str
        "cpu" or "cuda".
    compile_mode : str, optional
        A mode of ``torch.compile``; None runs eagerly.
    """

    def __init__(
        self,
        network: Network,
        params: Tree,
        dtype: str = "float32",
        device: str = "cpu",
        compile_mode: str | None = None,
    ) -> None:
        self.network, self.device, self.dtype = network, device, getattr(torch, dtype)
        buffers = getattr(network.model, "buffers", ())
        stored = network.pack(tree_flatten(params))
        self.params = {
            name: torch.tensor(leaf, dtype=self.dtype, device=device)
            for name, leaf in stored.items()
        }
        self.trained = {
            name: x.requires_grad_() for name, x in self.params.items() if name not in buffers
        }
        self.adam = torch.optim.Adam(self.trained.values(), lr=1e-3, eps=1e-8, fused=True)
        self.is_captured = device == "cuda" and compile_mode is not None
        self.forward: Any = network.forward
        self.loss: Any = self._loss
        if compile_mode is not None:
            torch._dynamo.config.cache_size_limit = 64
            self.forward = torch.compile(self.forward, mode=compile_mode, dynamic=False)
            self.loss = torch.compile(self.loss, mode=compile_mode, dynamic=False)

    def stage(self, batch: Batch, draws: Mapping[str, np.ndarray]) -> Any:
        """Return ``(rows, draws)`` on the device."""
        label = np.zeros(batch.n_rows) if batch.label is None else batch.label
        rows = Rows(
            torch.as_tensor(batch.codes, device=self.device, dtype=torch.int64),
            torch.as_tensor(batch.scenario, device=self.device, dtype=torch.int64),
            torch.as_tensor(label, device=self.device, dtype=self.dtype),
        )
        return rows, {name: self._draw(x) for name, x in draws.items()}

    def _draw(self, x: np.ndarray) -> torch.Tensor:
        tensor = torch.as_tensor(np.ascontiguousarray(x), device=self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _loss(self, params: Any, rows: Rows, draws: Any) -> tuple[torch.Tensor, Any]:
        output = self.network.forward(params, rows, draws)
        loss = functional.binary_cross_entropy_with_logits(output.logit, rows.label)
        for name, weight in self.network.model.auxiliary_weights.items():
            loss = loss + weight * output.auxiliary[name]
        return loss, output.buffers

    def _begin(self) -> None:
        """Let go of the last gradients; a captured graph may then write over them."""
        self.adam.zero_grad(set_to_none=True)
        if self.is_captured:
            torch.compiler.cudagraph_mark_step_begin()

    def loss_and_grads(self, staged: Any) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and all gradients by the package's paths."""
        self._begin()
        loss, _ = self.loss(self.params, *staged)
        loss.backward()
        grads = {
            name: np.zeros(x.shape) if x.grad is None else x.grad.cpu().numpy()
            for name, x in self.trained.items()
        }
        return float(loss.detach()), self.network.unpack(grads)

    def step(self, staged: Any) -> None:
        """Take one step."""
        self._begin()
        loss, buffers = self.loss(self.params, *staged)
        loss.backward()
        self.adam.step()
        for name, value in buffers.items():
            self.params[name].copy_(value)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def predict(self, staged: Any) -> np.ndarray:
        """Return the logits (B,)."""
        with torch.inference_mode():
            return self.forward(self.params, staged[0], None).logit.cpu().numpy()

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters by the package's paths."""
        stored = {name: x.detach().cpu().numpy() for name, x in self.params.items()}
        return self.network.unpack(stored)
