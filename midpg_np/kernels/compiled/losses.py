"""Losses on logits as loops; functions and shapes as in ``kernels.losses``."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops, sigmoid, softplus
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def jensen_shannon(t_pos: Array, t_neg: Array) -> Array:
    """As ``kernels.jensen_shannon``."""
    t_pos, t_neg = contiguous(t_pos), contiguous(t_neg)
    loss = empty(np, (1,), t_pos.dtype)
    run(_jensen_shannon, t_pos, t_neg, loss)
    return loss.reshape(())


def jensen_shannon_backward(d_loss: Any, t_pos: Array, t_neg: Array) -> tuple[Array, Array]:
    """As ``kernels.jensen_shannon_backward``."""
    t_pos, t_neg = contiguous(t_pos), contiguous(t_neg)
    dt_pos, dt_neg = (empty(np, x.shape, x.dtype) for x in (t_pos, t_neg))
    scale = t_pos.dtype.type(float(d_loss) / t_pos.size)
    run(_jensen_shannon_backward, scale, t_pos, t_neg, dt_pos, dt_neg)
    return dt_pos, dt_neg


def cross_entropy(z: Array, y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """As ``kernels.cross_entropy``."""
    z, y = contiguous(z), contiguous(y)
    weight = np.full(1, 1.0 / z.size, z.dtype) if weight is None else contiguous(weight)
    dz = empty(np, z.shape, z.dtype)
    loss = empty(np, (1,), z.dtype)
    run(_cross_entropy, z, y, weight, dz, loss)
    return loss.reshape(()), dz


@fast_loops
def _jensen_shannon(t_pos, t_neg, loss):
    total = 0.0
    for b in range(t_pos.size):
        total += softplus(-t_pos[b]) + softplus(t_neg[b])
    loss[0] = total / t_pos.size


@fast_loops
def _jensen_shannon_backward(scale, t_pos, t_neg, dt_pos, dt_neg):
    for b in range(t_pos.size):
        dt_pos[b] = -scale * sigmoid(-t_pos[b])
        dt_neg[b] = scale * sigmoid(t_neg[b])


@fast_loops
def _cross_entropy(z, y, weight, dz, loss):
    """Weights of one entry are those of all rows."""
    total = 0.0
    for b in range(z.size):
        w = weight[b if weight.size > 1 else 0]
        total += w * (softplus(z[b]) - y[b] * z[b])
        dz[b] = (sigmoid(z[b]) - y[b]) * w
    loss[0] = total
