"""A layer whose inputs are pruned per example before they meet its weights (derivations 8.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.layers.initial import init_affine
from midpg_np.layers.pruner import Pruner, PrunerCache, Stop
from midpg_np.ops import AffineCache, add_to, affine, affine_backward, concat, concat_backward
from midpg_np.tree import Tree


class PrunedInputCache(NamedTuple):
    """The factors (B, N) and the inputs that they multiply (B, N)."""

    H_last: Array
    pi: Array


def prune_last(H: Array, pi: Array) -> tuple[Array, PrunedInputCache]:
    """Multiply the last N columns of H by their factors and leave the others as they are.

    See derivations 8.1a.

    Backward: d_pi = dy H and dH = dy pi on those columns, dH = dy on the others.

    Shapes
    ------
    H : (B, I)
    pi : (B, N)
    y : (B, I)
    """
    n_plain = H.shape[1] - pi.shape[1]
    H_last = H[:, n_plain:]
    y = concat([H[:, :n_plain], H_last * pi])[0] if n_plain else H_last * pi
    return y, PrunedInputCache(H_last, pi)


def prune_last_backward(dy: Array, cache: PrunedInputCache) -> tuple[Array, Array]:
    """Return ``dH, d_pi`` (derivations 8.3c)."""
    n_plain = dy.shape[1] - cache.pi.shape[1]
    dy_last = dy[:, n_plain:]
    dH_last = dy_last * cache.pi
    dH = concat([dy[:, :n_plain], dH_last])[0] if n_plain else dH_last
    return dH, dy_last * cache.H_last


class PrunedLayerCache(NamedTuple):
    """The factors, the output, and the caches of the three steps.

    Shapes
    ------
    pi : (B, N)
    A : (B, O)
    """

    pi: Array
    A: Array
    pruner: PrunerCache
    pruned: PrunedInputCache
    affine: AffineCache


@dataclass(frozen=True)
class PrunedLayer:
    """A = (H pi) W + b, with the factors pi made from U = [E_aw, H].

    Parameters
    ----------
    dim_aware, dim_in : int
        Widths of E_aw and of H.
    dim_out : int
        Outputs.
    pruner : Pruner
        Makes the factors of the last ``pruner.dim_out`` inputs; inputs before those are not
        pruned.
    """

    dim_aware: int
    dim_in: int
    dim_out: int
    pruner: Pruner

    @property
    def n_plain(self) -> int:
        """Inputs that are not pruned, the first ones."""
        return self.dim_in - self.pruner.dim_out

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw W, b and the pruner."""
        return init_affine(rng, self.dim_in, self.dim_out) | {"pruner": self.pruner.init(rng)}

    def forward(
        self, params: Tree, H: Array, E_aw: Array, alpha: Any, sg: Stop, *, training: bool
    ) -> tuple[Array, PrunedLayerCache]:
        """Return the pre-activation (derivations 8.1a).

        Shapes
        ------
        H : (B, I)
        E_aw : (B, d_aw)
        A : (B, O)
        """
        U, _ = concat([E_aw, H])
        if self.pruner.is_one_kernel(U, H, alpha):
            H_last = H[:, self.n_plain :]
            y, pi, c_pruner = self.pruner.times(params["pruner"], U, H_last, alpha)
            H_pruned, c_pruned = self._beside(H, y), PrunedInputCache(H_last, pi)
        else:
            pi, c_pruner = self.pruner.forward(params["pruner"], U, alpha, sg, training=training)
            H_pruned, c_pruned = prune_last(H, pi)
        A, c_affine = affine(H_pruned, params["W"], params["b"])
        return A, PrunedLayerCache(pi, A, c_pruner, c_pruned, c_affine)

    def backward(
        self, dA: Array, cache: PrunedLayerCache, d_pi_extra: Array | None = None
    ) -> tuple[Array, Array, Tree]:
        """Return ``dH, dE_aw`` and the gradients of all parameters (derivations 8.3a, 8.3c, 8.3f).

        The factors have two readers if a regulariser sends ``d_pi_extra``; H always has two, the
        product and the pruner.
        """
        dH_pruned, dW, db = affine_backward(dA, cache.affine)
        dH, dU, g_pruner = self._pruned_backward(dH_pruned, cache, d_pi_extra)
        dE_aw, dU_h = concat_backward(dU, (self.dim_aware, self.dim_in))
        return add_to(dH, dU_h), dE_aw, {"W": dW, "b": db, "pruner": g_pruner}

    def _pruned_backward(
        self, dH_pruned: Array, cache: PrunedLayerCache, d_pi_extra: Array | None
    ) -> tuple[Array, Array, Tree]:
        """Return ``dH`` of the product with the factors, ``dU`` and the pruner's gradients."""
        xp, (H_last, pi), c = get_xp(dH_pruned), cache.pruned, cache.pruner
        is_one_number = d_pi_extra is None or d_pi_extra.strides == (0, 0)  # for all factors
        if is_one_number and self.pruner.is_one_kernel(c.affine.x, dH_pruned, c.alpha):
            extra = xp.zeros(1, pi.dtype) if d_pi_extra is None else d_pi_extra[0, :1]
            d_last = dH_pruned[:, self.n_plain :]
            dH, *others = self.pruner.times_backward(d_last, H_last, pi, extra, c)
            return self._beside(dH_pruned, dH), *others
        dH, d_pi = prune_last_backward(dH_pruned, cache.pruned)
        if d_pi_extra is not None:
            d_pi = add_to(d_pi, d_pi_extra)
        return dH, *self.pruner.backward(d_pi, cache.pruner)

    def _beside(self, whole: Array, last: Array) -> Array:
        """Return the first columns of ``whole``, which no factor multiplies, beside ``last``."""
        return concat([whole[:, : self.n_plain], last])[0] if self.n_plain else last

    def kinks(self, cache: PrunedLayerCache) -> dict[str, Array]:
        """Distances of the pruner from its threshold, by the path of the bias."""
        return {f"pruner.{path}": v for path, v in self.pruner.kinks(cache.pruner).items()}
