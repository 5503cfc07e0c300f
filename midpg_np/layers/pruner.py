"""Pruner: a factor per example and neuron that scales, removes or keeps it (derivations 8.1, 8.3).

A threshold has no useful derivative, so "binarization", and "fusion" if asked, pass a gradient
straight through it: the value is soft + sg(hard - soft), with sg the stop-gradient.  In floating
point that sum is exactly the hard value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, is_batch_last
from midpg_np.layers.initial import init_affine
from midpg_np.ops import (
    AffineCache,
    affine,
    affine_backward,
    product,
    product_backward,
    sigmoid,
    sigmoid_backward,
    times_to,
)
from midpg_np.tree import Tree

PRUNE_FORMS = ("fusion", "scaling", "binarization")
BINARIZE_GRADS = ("ste", "soft", "zero")
FUSION_GRADS = ("exact", "ste")

# A stop-gradient: ``sg(name, x)`` returns x, or what x was at the base point of a check.
Stop = Callable[[str, Array], Array]


class PrunerCache(NamedTuple):
    """Intermediates; ``alpha`` and ``is_kept`` are those that the forward pass has used.

    Parameters
    ----------
    v_in, y : Array
        (B, N) input of the sigmoid before its temperature, and the sigmoid.
    alpha : Array or float
        Temperature, 1 for "scaling".
    is_kept : Array or None
        (B, N) where the threshold lets a neuron pass; None where there is no threshold.
    slope : Array or float
        Derivative of the factor by the soft value that backward stands for.
    """

    affine: AffineCache
    v_in: Array
    alpha: Any
    y: Array
    is_kept: Array | None
    slope: Any


@dataclass(frozen=True)
class Pruner:
    """pi = v, 1[v > epsilon] or v 1[v > epsilon], with v = gain sigmoid(alpha (U W + b)).

    Parameters
    ----------
    dim_in : int
        Width of U.
    dim_out : int
        Number N of neurons that get a factor.
    prune : str
        "scaling": pi = v, with alpha = 1.  "binarization": pi = 1[v > epsilon], with gain 1.
        "fusion": pi = v 1[v > epsilon].
    beta : float
        Gain of "scaling" and "fusion".
    epsilon : float
        Threshold on v, the gain included.
    binarize_grad : str
        "ste": the gradient passes the threshold as if it were not there.  "soft": pi = v in
        training, the threshold at inference only.  "zero": the true derivative.
    fusion_grad : str
        "exact": what is pruned gets no gradient.  "ste": it gets that of v.

    Raises
    ------
    ValueError
        If ``prune``, ``binarize_grad`` or ``fusion_grad`` is no known name, ``beta`` is not above
        0, or ``epsilon`` lies outside the range of v.
    """

    dim_in: int
    dim_out: int
    prune: str = "fusion"
    beta: float = 2.0
    epsilon: float = 0.25
    binarize_grad: str = "ste"
    fusion_grad: str = "exact"

    def __post_init__(self) -> None:
        for name, choices in (
            ("prune", PRUNE_FORMS),
            ("binarize_grad", BINARIZE_GRADS),
            ("fusion_grad", FUSION_GRADS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {getattr(self, name)!r}.")
        if not self.beta > 0:
            raise ValueError(f"beta must be positive; got {self.beta}.")
        if self.prune != "scaling" and not 0 < self.epsilon < self.gain:
            raise ValueError(
                f"epsilon must lie in (0, {self.gain}), the range of v with prune={self.prune!r}; "
                f"got {self.epsilon}."
            )

    @property
    def gain(self) -> float:
        """Largest value of v."""
        return 1.0 if self.prune == "binarization" else self.beta

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw a Glorot kernel and a zero bias."""
        return init_affine(rng, self.dim_in, self.dim_out)

    def forward(
        self, params: Tree, U: Array, alpha: Any, sg: Stop, *, training: bool
    ) -> tuple[Array, PrunerCache]:
        """Return the factors (derivations 8.1b).

        Shapes
        ------
        U : (B, I)
        pi : (B, N)
        """
        v_in, c_affine = affine(U, **params)
        alpha = 1.0 if self.prune == "scaling" else alpha
        y, _ = sigmoid(alpha * v_in)
        v = self.gain * y
        is_soft = self.prune == "binarization" and self.binarize_grad == "soft" and training
        if self.prune == "scaling" or is_soft:
            return v, PrunerCache(c_affine, v_in, alpha, y, None, 1.0)
        is_kept = v.real > self.epsilon
        pi, slope = self._threshold(v, is_kept, sg)
        return pi, PrunerCache(c_affine, v_in, alpha, y, is_kept, slope)

    def _threshold(self, v: Array, is_kept: Array, sg: Stop) -> tuple[Array, Any]:
        """Return pi and its slope: the derivative by v that the chosen gradient claims.

        ``v`` is given up: pi may lie in its memory.
        """
        if self.prune == "fusion":
            if self.fusion_grad == "exact":
                return times_to(v, is_kept), is_kept
            return v + sg("hard", v * is_kept - v), 1.0
        if self.binarize_grad == "ste":
            return v + sg("hard", is_kept - v), 1.0
        return is_kept.astype(v.dtype), 0.0  # also "soft" at inference

    def backward(self, d_pi: Array, cache: PrunerCache) -> tuple[Array, Tree]:
        """Return ``dU`` and the gradients of kernel and bias (derivations 8.3d, 8.3e, 8.3f)."""
        dv_in = sigmoid_backward(d_pi, cache.y)
        dv_in *= cache.slope
        dv_in *= self.gain * cache.alpha
        dU, dW, db = affine_backward(dv_in, cache.affine)
        return dU, {"W": dW, "b": db}

    def is_one_kernel(self, U: Array, H: Array, alpha: Any) -> bool:
        """Whether ``times`` serves: "fusion" with its true gradient, in a batch stored first.

        U is (B, I), H (B, N).
        """
        is_exact = self.prune == "fusion" and self.fusion_grad == "exact"
        return is_exact and not is_batch_last(U) and kernels.fuses(U, H, alpha)

    def times(
        self, params: Tree, U: Array, H: Array, alpha: Array
    ) -> tuple[Array, Array, PrunerCache]:
        """Return H pi, the factors pi and the cache, as ``forward`` and a product do.

        See derivations 8.1a, 8.1b.

        Shapes
        ------
        U : (B, I)
        H : (B, N)
        """
        W, limits = params["W"], (self.gain, self.epsilon)
        results = kernels.prune(product(U, W), params["b"], H, alpha, *limits)
        v_in, y, pi, is_kept, H_pruned = results
        cache = PrunerCache(AffineCache(U, W), v_in, alpha, y, is_kept, is_kept)
        return H_pruned, pi, cache

    def times_backward(
        self, d_pruned: Array, H: Array, pi: Array, extra: Array, cache: PrunerCache
    ) -> tuple[Array, Array, Tree]:
        """Return ``dH``, ``dU`` and the gradients; d_pruned is given up.

        ``extra``, one number, is what a regulariser sends to every factor.
        See derivations 8.3c, 8.3d, 8.3e, 8.3f.
        """
        factors = cache.y, pi, cache.is_kept
        scale = self.gain * cache.alpha
        dv_in, dH, db = kernels.prune_backward(d_pruned, H, *factors, scale, extra)
        dU, dW = product_backward(dv_in, cache.affine)
        return dH, dU, {"W": dW, "b": db}

    def kinks(self, cache: PrunerCache) -> dict[str, Array]:
        """Distance of ``v_in`` from where v crosses epsilon, by the path of the bias."""
        if cache.is_kept is None:
            return {}
        share = self.epsilon / self.gain
        return {"b": cache.v_in - log(share / (1.0 - share)) / cache.alpha}
