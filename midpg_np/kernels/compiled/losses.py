"""Losses on logits as loops; functions and shapes as in ``kernels.losses``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops, sigmoid
from midpg_np.kernels.dispatch import empty


def jensen_shannon(t_pos: Array, t_neg: Array) -> Array:
    """As ``kernels.jensen_shannon``."""
    t_pos, t_neg = np.ascontiguousarray(t_pos), np.ascontiguousarray(t_neg)
    return t_pos.dtype.type(_jensen_shannon(t_pos, t_neg) / t_pos.size)


def jensen_shannon_backward(d_loss: Any, t_pos: Array, t_neg: Array) -> tuple[Array, Array]:
    """As ``kernels.jensen_shannon_backward``."""
    t_pos, t_neg = np.ascontiguousarray(t_pos), np.ascontiguousarray(t_neg)
    dt_pos, dt_neg = (empty(np, x.shape, x.dtype) for x in (t_pos, t_neg))
    scale = t_pos.dtype.type(float(d_loss) / t_pos.size)
    _jensen_shannon_backward(scale, t_pos, t_neg, dt_pos, dt_neg)
    return dt_pos, dt_neg


def cross_entropy(z: Array, y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """As ``kernels.cross_entropy``."""
    z, y = np.ascontiguousarray(z), np.ascontiguousarray(y)
    weight = np.full(1, 1.0 / z.size, z.dtype) if weight is None else np.ascontiguousarray(weight)
    dz = empty(np, z.shape, z.dtype)
    return z.dtype.type(_cross_entropy(z, y, weight, dz)), dz


@fast_loops
def _softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@fast_loops
def _jensen_shannon(t_pos, t_neg):
    total = 0.0
    for b in range(t_pos.size):
        total += _softplus(-t_pos[b]) + _softplus(t_neg[b])
    return total


@fast_loops
def _jensen_shannon_backward(scale, t_pos, t_neg, dt_pos, dt_neg):
    for b in range(t_pos.size):
        dt_pos[b] = -scale * sigmoid(-t_pos[b])
        dt_neg[b] = scale * sigmoid(t_neg[b])


@fast_loops
def _cross_entropy(z, y, weight, dz):
    """Weights of one entry are those of all rows."""
    total = 0.0
    for b in range(z.size):
        w = weight[b if weight.size > 1 else 0]
        total += w * (_softplus(z[b]) - y[b] * z[b])
        dz[b] = (sigmoid(z[b]) - y[b]) * w
    return total
