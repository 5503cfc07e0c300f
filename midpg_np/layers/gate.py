"""Gate NU: a small network whose output in (0, gamma) multiplies a vector (derivations 7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, is_batch_last, matmul
from midpg_np.layers.blocks import BLOCK_FORMS, block_form
from midpg_np.layers.groups import Groups
from midpg_np.layers.initial import init_affine, init_scenario_affine
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    biased,
    biased_backward,
    product,
    product_backward,
    scaled_sigmoid,
    scaled_sigmoid_backward,
    times_to,
)
from midpg_np.tree import Tree

RELU = ACTIVATIONS["relu"]


class GateCache(NamedTuple):
    """Intermediates: A and R = ReLU(A) are those of the hidden layer.

    Shapes
    ------
    A : (B, u)
    delta : (B, O)
    """

    layer_1: AffineCache
    A: Array
    activation: Array
    layer_2: Any
    delta: Array


@dataclass(frozen=True)
class Gate:
    """delta = gamma sigmoid(ReLU(U W_1 + b_1) W_2 + b_2).

    Parameters
    ----------
    dim_in, dim_out : int
        Width of U and of delta.
    hidden : int or None
        Width u of the hidden layer; None is ``dim_out``.
    gamma : float
        Upper end of delta; 2 centres it at 1.
    n_towers : int or None
        Number T of towers, each with a block of the second layer: ``W`` is (T, u, O), ``b`` (T, O),
        and a row uses the block of its scenario.  None: one for all rows, without that axis.
    dim_live : int or None
        How many columns of U carry gradient, the first ones.  The others stand behind a
        stop-gradient and their adjoint is not formed.  None: all.
    form : str
        "grouped" or "textbook"; see ``layers.blocks``.

    Raises
    ------
    ValueError
        If ``form`` is no known name, ``gamma`` is not above 0, or the hidden width is below 1.
    """

    dim_in: int
    dim_out: int
    hidden: int | None = 32
    gamma: float = 2.0
    n_towers: int | None = None
    dim_live: int | None = None
    form: str = "grouped"

    def __post_init__(self) -> None:
        if self.form not in BLOCK_FORMS:
            raise ValueError(f"form must be one of {tuple(BLOCK_FORMS)}; got {self.form!r}.")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0; got {self.gamma}.")
        if self.dim_hidden < 1:
            raise ValueError(f"gate_hidden must be None or at least 1; got {self.hidden}.")

    @property
    def dim_hidden(self) -> int:
        """Width u of the hidden layer."""
        return self.dim_out if self.hidden is None else self.hidden

    @property
    def multiply_adds(self) -> int:
        """Multiplications of one row in both layers, of the second one block."""
        return (self.dim_in + self.dim_out) * self.dim_hidden

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels, each block its own, and zero biases."""
        layer_1 = init_affine(rng, self.dim_in, self.dim_hidden)
        if self.n_towers is None:
            return {"layer_1": layer_1, "layer_2": init_affine(rng, self.dim_hidden, self.dim_out)}
        blocks = init_scenario_affine(rng, self.n_towers, self.dim_hidden, self.dim_out)
        return {"layer_1": layer_1, "layer_2": blocks}

    def forward(
        self, params: Tree, U: Array, groups: Groups | None = None
    ) -> tuple[Array, GateCache]:
        """Return the gate; with blocks, the rows are sorted by scenario as ``groups`` says.

        See derivations 7.1a, 7.1f.

        Shapes
        ------
        U : (B, I)
        delta : (B, O)
        """
        W, b = params["layer_1"]["W"], params["layer_1"]["b"]
        A, R, c_activation = biased(product(U, W), b, RELU)
        A_2, c_2 = self._second.forward(R, **params["layer_2"], groups=groups)
        delta, _ = scaled_sigmoid(A_2, self.gamma)
        return delta, GateCache(AffineCache(U, W), A, c_activation, c_2, delta)

    def backward(self, d_delta: Array, cache: GateCache) -> tuple[Array, Tree]:
        """Return ``dU``, its live columns only, and the gradients (derivations 7.3c, 7.3d)."""
        dA_2 = scaled_sigmoid_backward(d_delta, (cache.delta, self.gamma))
        dR, dW_2, db_2 = self._second.backward(dA_2, cache.layer_2)
        return self._hidden_backward(dR, cache, {"W": dW_2, "b": db_2})

    def times(
        self, params: Tree, U: Array, x: Array, groups: Groups | None = None
    ) -> tuple[Array, GateCache]:
        """Return delta x, the gated vector; delta is in the cache (derivations 7.1b, 7.1e).

        Shapes
        ------
        U : (B, I)
        x : (B, O)
        y : (B, O)
        """
        W, b = params["layer_2"]["W"], params["layer_2"]["b"]
        if not self._is_one_kernel(U, x, b):
            delta, cache = self.forward(params, U, groups)
            return delta * x, cache
        W_1, b_1 = params["layer_1"]["W"], params["layer_1"]["b"]
        A, R, c_activation = biased(product(U, W_1), b_1, RELU)
        delta, y = kernels.gate(product(R, W), b, x, self.gamma)
        return y, GateCache(AffineCache(U, W_1), A, c_activation, AffineCache(R, W), delta)

    def times_backward(self, dy: Array, x: Array, cache: GateCache) -> tuple[Array, Array, Tree]:
        """Return ``dx = dy delta``, ``dU`` and the gradients; dy is given up.

        See derivations 7.3b, 7.3e: d_delta = dy x.
        """
        if not self._is_one_kernel(dy, x, cache.delta):
            dU, grads = self.backward(dy * x, cache)
            return times_to(dy, cache.delta), dU, grads
        dA_2, dx, db_2 = kernels.gate_backward(dy, x, cache.delta, self.gamma)
        dR, dW_2 = product_backward(dA_2, cache.layer_2)
        return dx, *self._hidden_backward(dR, cache, {"W": dW_2, "b": db_2})

    def _is_one_kernel(self, like: Array, *others: Array) -> bool:
        """Whether sigmoid and product are one kernel: of one block, in a batch stored first."""
        return self.n_towers is None and not is_batch_last(like) and kernels.fuses(like, *others)

    def _hidden_backward(self, dR: Array, cache: GateCache, g_2: Tree) -> tuple[Array, Tree]:
        """Return ``dU`` and all gradients, ``g_2`` those of the second layer."""
        dA, db = biased_backward(dR, cache.activation, RELU)
        U, W = cache.layer_1
        dU = matmul(dA, W[: self.dim_live].T)
        return dU, {"layer_1": {"W": matmul(U.T, dA), "b": db}, "layer_2": g_2}

    @property
    def _second(self) -> Any:
        return block_form(self.n_towers, self.form)

    def kinks(self, cache: GateCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        return {"layer_1.b": cache.A}
