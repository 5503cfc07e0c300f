"""Softmax mixture: a gate weighs candidates, row by row."""

from __future__ import annotations

from typing import NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array
from midpg_np.ops import batch_last, softmax, softmax_backward


class MixtureCache(NamedTuple):
    """Weights w (B, E) and candidates S (B, E, q)."""

    w: Array
    S: Array


def mixture(alpha: Array, S: Array) -> tuple[Array, MixtureCache]:
    """g_b = sum_e w_b,e S_b,e with w = softmax(alpha), row by row (derivations 2.4c).

    Backward (derivations 2.4b, 2.4d): dS_b,e = w_b,e dg_b, dw_b,e = <dg_b, S_b,e>,
    d_alpha_b = w_b (dw_b - <w_b, dw_b>).

    Shapes
    ------
    alpha : (B, E)
    S : (B, E, q)
    g : (B, q)
    """
    w, _ = softmax(batch_last(alpha))  # E is short, and B is long
    return kernels.mix(w, S), MixtureCache(w, S)


def mixture_backward(dg: Array, cache: MixtureCache) -> tuple[Array, Array]:
    """Return ``d_alpha, dS`` (derivations 2.4d)."""
    w, S = cache
    dw, dS = kernels.mix_backward(dg, w, S)
    return softmax_backward(batch_last(dw), w), dS
