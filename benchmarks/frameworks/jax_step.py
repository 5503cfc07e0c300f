"""A training step in JAX for any ``Network``: one compiled function, parameters donated."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frameworks import Network, Rows
from midpg_np.batch import Batch
from midpg_np.tree import Tree, tree_flatten

LR, BETA_1, BETA_2, EPS = 1e-3, 0.9, 0.999, 1e-8


class JaxStep:
    """Loss by the network's forward, gradients by ``jax.grad``, Adam by hand, all in one ``jit``.

    Parameters
    ----------
    network : Network
    params : Tree
        Initial parameters; copied.
    dtype : str
        "float64" switches JAX to 64 bits for the whole process.
    device : str
        "cpu" or "cuda".
    """

    def __init__(
        self, network: Network, params: Tree, dtype: str = "float32", device: str = "cpu"
    ) -> None:
        if dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        self.network, self.dtype = network, dtype
        self.device = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        buffers = getattr(network.model, "buffers", ())
        stored = {
            name: self._put(leaf) for name, leaf in network.pack(tree_flatten(params)).items()
        }
        self.buffers = {name: x for name, x in stored.items() if name in buffers}
        self.params = {name: x for name, x in stored.items() if name not in buffers}
        zeros = {name: np.zeros(x.shape) for name, x in self.params.items()}
        self.m = {name: self._put(x) for name, x in zeros.items()}
        self.v = {name: self._put(x) for name, x in zeros.items()}
        self.t = jnp.zeros((), dtype=jnp.int32)
        self._differentiate = jax.jit(jax.value_and_grad(self._loss, has_aux=True))
        self._step = jax.jit(self._whole_step, donate_argnums=(0, 1, 2, 3, 4))
        self._predict = jax.jit(lambda params, rows: network.forward(params, rows, None).logit)

    def _put(self, x: np.ndarray) -> Any:
        dtype = self.dtype if x.dtype.kind == "f" else np.int32
        return jax.device_put(np.array(x, dtype=dtype), self.device)

    def stage(self, batch: Batch, draws: Mapping[str, np.ndarray]) -> Any:
        """Return ``(rows, draws)`` on the device."""
        label = np.zeros(batch.n_rows) if batch.label is None else batch.label
        rows = Rows(self._put(batch.codes), self._put(batch.scenario), self._put(label))
        return rows, {name: self._put(x) for name, x in draws.items()}

    def _loss(self, params: Any, buffers: Any, rows: Rows, draws: Any) -> tuple[Any, Any]:
        output = self.network.forward({**params, **buffers}, rows, draws)
        z, y = output.logit, rows.label
        loss = (jax.nn.softplus(z) - y * z).mean()
        for name, weight in self.network.model.auxiliary_weights.items():
            loss = loss + weight * output.auxiliary[name]
        return loss, {**buffers, **output.buffers}

    def _whole_step(self, params: Any, buffers: Any, m: Any, v: Any, t: Any, *staged: Any) -> Any:
        grads, buffers = jax.grad(self._loss, has_aux=True)(params, buffers, *staged)
        t = t + 1
        power = t.astype(self.dtype)
        size = LR / (1.0 - BETA_1**power)
        root = jnp.sqrt(1.0 - BETA_2**power)
        m = jax.tree.map(lambda m, g: BETA_1 * m + (1.0 - BETA_1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA_2 * v + (1.0 - BETA_2) * g * g, v, grads)
        move = partial(jax.tree.map, lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + EPS))
        return move(params, m, v), buffers, m, v, t

    def loss_and_grads(self, staged: Any) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and all gradients by the package's paths."""
        (loss, _), grads = self._differentiate(self.params, self.buffers, *staged)
        return float(loss), self.network.unpack({name: np.asarray(g) for name, g in grads.items()})

    def step(self, staged: Any) -> None:
        """Take one step."""
        self.params, self.buffers, self.m, self.v, self.t = self._step(
            self.params, self.buffers, self.m, self.v, self.t, *staged
        )

    def wait(self) -> None:
        """Wait for the steps that were started."""
        jax.block_until_ready(self.params)

    def predict(self, staged: Any) -> np.ndarray:
        """Return the logits (B,)."""
        return np.asarray(self._predict({**self.params, **self.buffers}, staged[0]))

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters by the package's paths."""
        stored = {**self.params, **self.buffers}
        return self.network.unpack({name: np.asarray(x) for name, x in stored.items()})
