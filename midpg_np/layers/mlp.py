"""Multi-layer perceptron: affine maps with an activation between them and none after the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.initial import init_affine
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    add_to,
    biased,
    biased_backward,
    check_activation,
    product,
    product_backward,
    sum_rows,
)
from midpg_np.tree import Tree


class MLPCache(NamedTuple):
    """Per layer: the affine cache, the pre-activation A (B, width), the activation's cache."""

    affine: tuple[AffineCache, ...]
    A: tuple[Array, ...]
    activation: tuple[Any, ...]


def mlp_multiply_adds(dims: Sequence[int]) -> int:
    """Count the multiplications of one row's way through an MLP, or the entries of its kernels."""
    return sum(dim_in * dim_out for dim_in, dim_out in pairwise(dims))


@dataclass(frozen=True)
class MLP:
    """MLP(d_0 -> d_1 -> ... -> d_m) of derivations 2.2d.

    Parameters
    ----------
    dims : tuple of int
        Widths d_0 ... d_m, input and output included; two widths are a single affine map.
    activation : str
        A name in ``ops.ACTIVATIONS``.

    Raises
    ------
    ValueError
        If ``activation`` is no known name, or there are not two widths of at least 1.
    """

    dims: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if len(self.dims) < 2 or min(self.dims) < 1:
            raise ValueError(f"dims must be at least 2 widths of at least 1; got {self.dims}.")

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of the parameter tree, in order."""
        return tuple(f"layer_{i}" for i in range(1, len(self.dims)))

    @cached_property
    def tail(self) -> MLP:
        """The network behind its first affine map and activation; not of a single affine map."""
        return MLP(self.dims[1:], self.activation)

    def tail_tree(self, tree: Tree) -> Tree:
        """Of parameters or gradients those of the tail, under its own names."""
        names = zip(self.tail.layer_names, self.layer_names[1:], strict=True)
        return {tail: tree[name] for tail, name in names}

    def whole_tree(self, first: Tree, tail_tree: Tree) -> Tree:
        """Inverse of ``tail_tree``, given those of the first layer as well."""
        layers = first, *(tail_tree[name] for name in self.tail.layer_names)
        return dict(zip(self.layer_names, layers, strict=True))

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels and zero biases."""
        return {
            name: init_affine(rng, dim_in, dim_out)
            for name, dim_in, dim_out in zip(
                self.layer_names, self.dims[:-1], self.dims[1:], strict=True
            )
        }

    def forward(self, params: Tree, x: Array) -> tuple[Array, MLPCache]:
        """Return the output of the last affine map (derivations 2.2d).

        Shapes
        ------
        x : (B, d_0)
        y : (B, d_m)
        """
        activation = ACTIVATIONS[self.activation]
        affine_caches, pre_activations, activation_caches = [], [], []
        H = x
        for name in self.layer_names:
            W, b = params[name]["W"], params[name]["b"]
            affine_caches.append(AffineCache(H, W))
            P = product(H, W)
            if name == self.layer_names[-1]:
                A = add_to(P, b)
            else:
                A, H, c_activation = biased(P, b, activation)
                pre_activations.append(A)
                activation_caches.append(c_activation)
        return A, MLPCache(tuple(affine_caches), tuple(pre_activations), tuple(activation_caches))

    def backward(self, dy: Array, cache: MLPCache) -> tuple[Array, Tree]:
        """Return ``dx`` and the gradients of all kernels and biases (derivations 2.2d, 4b, 4c)."""
        activation = ACTIVATIONS[self.activation]
        grads: Tree = {}
        dA, db = dy, sum_rows(dy)
        for i in reversed(range(len(self.layer_names))):
            dH, dW = product_backward(dA, cache.affine[i])
            grads[self.layer_names[i]] = {"W": dW, "b": db}
            if i > 0:
                dA, db = biased_backward(dH, cache.activation[i - 1], activation)
        return dH, {name: grads[name] for name in self.layer_names}

    def kinks(self, cache: MLPCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        return {f"{name}.b": A for name, A in zip(self.layer_names[:-1], cache.A, strict=True)}
