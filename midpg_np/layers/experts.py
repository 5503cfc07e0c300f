"""Experts: MLPs side by side, with an activation after their last layer too (derivations 5.1).

A stack of affine maps multiplies either all rows with every map, or, where each scenario has maps
of its own and only those are asked for, the rows of each scenario with that scenario's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp, matmul
from midpg_np.layers.affine_set import (
    AffineSetCache,
    activated_set,
    activated_set_backward,
    affine_set,
    affine_set_backward,
)
from midpg_np.layers.groups import Groups, of_present
from midpg_np.layers.initial import init_stacked_affine
from midpg_np.layers.scenario_mlp import (
    GroupedAffineCache,
    grouped_affine,
    grouped_affine_backward,
    rows_of,
)
from midpg_np.ops import ACTIVATIONS, activation_backward, add_to, check_activation
from midpg_np.tree import Tree

ROWS = ("all", "own")


class StackedAffineCache(NamedTuple):
    """Inputs of the maps."""

    H: Array
    W: Array


def stacked_affine(H: Array, W: Array, b: Array) -> tuple[Array, StackedAffineCache]:
    """Apply a stack of affine maps, A_e = H_e W_e + b_e; one input may serve several maps.

    See derivations 5.1a.

    The stack may have further axes in front of E, in H of length 1 where one input serves all.
    Backward (derivations 2.2b, 5.3e): dW_e = H_e^T dA_e, db_e = colsum(dA_e), dH_e = dA_e W_e^T; an
    input that serves several maps gets the sum of what they send back.

    Shapes
    ------
    H : (E, B, I) or (1, B, I)
    W : (E, I, O)
    b : (E, O)
    A : (E, B, O)
    """
    get_xp(H=H, W=W, b=b)
    if _serves_all(H):  # one product; its result, (B, E, O) in memory, is what mixtures read
        A = affine_set(*_one_input(H, W), b.reshape(-1, b.shape[-1]))[0].swapaxes(0, 1)
        return A.reshape(*b.shape[:-1], *A.shape[1:]), StackedAffineCache(H, W)
    return add_to(_products(H, W), b[..., None, :]), StackedAffineCache(H, W)


def stacked_affine_backward(dA: Array, cache: StackedAffineCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db`` (derivations 5.3e)."""
    H, W = cache
    if _serves_all(H):
        dY = dA.reshape(-1, *dA.shape[-2:]).swapaxes(0, 1)
        dH, dW, db = affine_set_backward(dY, _one_input(H, W))
        return dH.reshape(H.shape), dW.reshape(W.shape), db.reshape(*W.shape[:-2], -1)
    dH = _products(dA, W.swapaxes(-1, -2))
    serves_several = tuple(axis for axis, n in enumerate(H.shape[:-2]) if n == 1)
    dH = dH.sum(axis=serves_several, keepdims=True)
    return dH, _products(H.swapaxes(-1, -2), dA), dA.sum(axis=-2)


def _products(x: Array, y: Array) -> Array:
    """Return x @ y, the axes in front joined to one: a graph of a GPU holds no more."""
    xp, front = get_xp(x=x, y=y), tuple(map(max, x.shape[:-2], y.shape[:-2]))
    flat = (xp.broadcast_to(z, (*front, *z.shape[-2:])) for z in (x, y))
    product = matmul(*(z.reshape(-1, *z.shape[-2:]) for z in flat))
    return product.reshape(*front, *product.shape[-2:])


def _serves_all(H: Array) -> bool:
    return H.size == H.shape[-2] * H.shape[-1]


def _one_input(H: Array, W: Array) -> AffineSetCache:
    """H (B, I) and W (N, I, O), the stack's axes joined, where one input serves all maps."""
    return AffineSetCache(H.reshape(H.shape[-2:]), W.reshape(-1, *W.shape[-2:]))


class RoutedAffineCache(NamedTuple):
    """Inputs of the maps."""

    H: Array
    W: Array
    groups: Groups


def routed_affine(H: Array, W: Array, b: Array, groups: Groups) -> tuple[Array, RoutedAffineCache]:
    """Stacks of affine maps by scenario, rows sorted: A_e,(d) = H_e,(d) W_d,e + b_d,e.

    See derivations 5.1a.

    Backward: that of ``stacked_affine`` on the rows of each scenario.

    Shapes
    ------
    H : (E, B, I) or (1, B, I)
    W : (M, E, I, O)
        One stack for each of the M scenarios of the batch.
    b : (M, E, O)
    A : (E, B, O)
    """
    A = [grouped_affine(H[e % len(H)], W[:, e], b[:, e], groups)[0] for e in range(W.shape[1])]
    return _stacked(A), RoutedAffineCache(H, W, groups)


def routed_affine_backward(dA: Array, cache: RoutedAffineCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db`` (derivations 5.3e)."""
    H, W, groups = cache
    maps = (GroupedAffineCache(H[e % len(H)], W[:, e], groups) for e in range(W.shape[1]))
    adjoints = zip(*(grouped_affine_backward(dA[e], c) for e, c in enumerate(maps)), strict=True)
    dH, dW, db = (_stacked(parts, axis) for parts, axis in zip(adjoints, (0, 1, 1), strict=True))
    if len(H) < len(dH):  # one input has served all experts
        dH = dH.sum(axis=0, keepdims=True)
    return dH, dW, db


def _stacked(parts: Sequence[Array], axis: int = 0) -> Array:
    """Return the parts along a new axis; no copy of a single one."""
    if len(parts) > 1:
        return get_xp(*parts).stack(parts, axis)
    shape = parts[0].shape
    return parts[0].reshape(*shape[:axis], 1, *shape[axis:])


class ExpertsCache(NamedTuple):
    """Per layer: the maps' cache, the pre-activation A (..., E, B, O), the activation's cache."""

    affine: tuple[Any, ...]
    A: tuple[Array, ...]
    activation: tuple[Any, ...]
    groups: Groups


@dataclass(frozen=True)
class Experts:
    """E experts, or E experts for each of D scenarios.

    Parameters
    ----------
    n_experts : int
        Experts E of one stack.
    dims : tuple of int
        Widths d_0 ... d_m of an expert, input and output included.
    n_scenarios : int, optional
        Number of scenarios D: ``W`` is (D, E, I, O) and ``b`` (D, E, O) in every layer.  None:
        the experts are shared, ``W`` is (E, I, O) and ``b`` (E, O).
    activation : str
        A name in ``ops.ACTIVATIONS``; it follows every layer, the last one included.
    rows : str
        "all": all rows pass all experts.  "own": a row passes those of its scenario only.

    Raises
    ------
    ValueError
        If there is no expert, a width is below 1, ``rows`` is no known name, or "own" is asked of
        experts that belong to no scenario.
    """

    n_experts: int
    dims: tuple[int, ...]
    n_scenarios: int | None = None
    activation: str = "relu"
    rows: str = "all"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.n_experts < 1:
            raise ValueError(f"n_experts must be at least 1; got {self.n_experts}.")
        if len(self.dims) < 2 or min(self.dims) < 1:
            raise ValueError(f"dims must be at least 2 widths of at least 1; got {self.dims}.")
        if self.rows not in ROWS:
            raise ValueError(f"rows must be one of {ROWS}; got {self.rows!r}.")
        if self.rows == "own" and self.n_scenarios is None:
            raise ValueError("rows='own' needs experts by scenario; n_scenarios is None.")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of the parameter tree, in order."""
        return tuple(f"layer_{i}" for i in range(1, len(self.dims)))

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels, each expert its own, and zero biases."""
        stack = (
            (self.n_experts,) if self.n_scenarios is None else (self.n_scenarios, self.n_experts)
        )
        shapes = zip(self.dims[:-1], self.dims[1:], strict=True)
        return {
            name: init_stacked_affine(rng, stack, dim_in, dim_out)
            for name, (dim_in, dim_out) in zip(self.layer_names, shapes, strict=True)
        }

    def forward(self, params: Tree, H: Array, groups: Groups) -> tuple[Array, ExpertsCache]:
        """Return the outputs of the experts, rows sorted by scenario (derivations 5.1a).

        Parameters
        ----------
        H : array
            One input per stack, with an axis of length 1 for its experts: (1, B, d_0), or, for
            all rows through experts by scenario, (D, 1, B, d_0).

        Returns
        -------
        array
            (E, B, d_m), or (D, E, B, d_m) for all rows through experts by scenario.
        """
        affine_caches, pre_activations, activation_caches = [], [], []
        for name in self.layer_names:
            A, H, c_affine, c_act = self._layer(params[name], H, groups)
            affine_caches.append(c_affine)
            pre_activations.append(A)
            activation_caches.append(c_act)
        return H, ExpertsCache(
            tuple(affine_caches), tuple(pre_activations), tuple(activation_caches), groups
        )

    def backward(
        self, dY: Array, cache: ExpertsCache, *, gives_up: bool = False
    ) -> tuple[Array, Tree]:
        """Return ``dH``, summed over the experts that read it, and the gradients.

        See derivations 5.3e.

        ``gives_up``: the caller needs dY no more, its memory may be used.
        """
        dY, grads = dY if gives_up else dY.copy(), {}
        for i, name in reversed(list(enumerate(self.layer_names))):
            dY, grads[name] = self._layer_backward(dY, cache.affine[i], cache.activation[i])
        return dY, {name: grads[name] for name in self.layer_names}

    def _layer(self, params: Tree, H: Array, groups: Groups) -> tuple[Array, Array, Any, Any]:
        """Return A, act(A) and the caches of both steps."""
        act = ACTIVATIONS[self.activation]
        if self.rows == "all" and _serves_all(H):
            W, b = params["W"], params["b"]
            maps, b_n = _one_input(H, W), b.reshape(-1, b.shape[-1])
            *outputs, (_, c_act) = activated_set(*maps, b_n, act)
            A, Y = (y.swapaxes(0, 1).reshape(*b.shape[:-1], *H.shape[-2:-1], -1) for y in outputs)
            return A, Y, StackedAffineCache(H, W), c_act
        c_affine: StackedAffineCache | RoutedAffineCache
        if self.rows == "all":
            A, c_affine = stacked_affine(H, **params)
        else:
            W, b = (of_present(params[key], groups) for key in ("W", "b"))
            A, c_affine = routed_affine(H, W, b, groups)
        Y, c_act = act.forward(A)
        return A, Y, c_affine, c_act

    def _layer_backward(self, dY: Array, c_affine: Any, c_act: Any) -> tuple[Array, Tree]:
        """Return the adjoint of the layer's input and the gradients; dY is given up."""
        act = ACTIVATIONS[self.activation]
        if self.rows == "all" and _serves_all(c_affine.H):
            H, W = c_affine
            dY = dY.reshape(-1, *dY.shape[-2:]).swapaxes(0, 1)
            dH, dW, db = activated_set_backward(dY, (_one_input(H, W), c_act), act)
            grads = {"W": dW.reshape(W.shape), "b": db.reshape(*W.shape[:-2], -1)}
            return dH.reshape(H.shape), grads
        dA = activation_backward(act, dY, c_act)
        if self.rows == "all":
            dH, dW, db = stacked_affine_backward(dA, c_affine)
            return dH, {"W": dW, "b": db}
        dH, dW, db = routed_affine_backward(dA, c_affine)
        groups = c_affine.groups
        return dH, {"W": rows_of(dW, groups), "b": rows_of(db, groups)}

    def kinks(self, cache: ExpertsCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias; experts of a stack are shifted together."""
        return {f"{name}.b": A for name, A in zip(self.layer_names, cache.A, strict=True)}
