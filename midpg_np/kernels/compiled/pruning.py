"""Pruning as loops; functions and shapes as in ``kernels.pruning``."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops, sigmoid
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def prune(
    P: Array, b: Array, H: Array, alpha: Array, gain: float, epsilon: float
) -> tuple[Array, ...]:
    """As ``kernels.prune``."""
    P = contiguous(P)
    y, pi, H_pruned = (empty(np, P.shape, P.dtype) for _ in range(3))
    is_kept = empty(np, P.shape, np.dtype(np.bool_))
    numbers = alpha, *map(P.dtype.type, (gain, epsilon))
    run(_prune, P, contiguous(b), contiguous(H), y, pi, is_kept, H_pruned, *numbers)
    return P, y, pi, is_kept, H_pruned


def prune_backward(
    d_pruned: Array, H: Array, y: Array, pi: Array, is_kept: Array,
    scale: Array, d_pi_extra: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """As ``kernels.prune_backward``."""
    d_pruned, *read = map(contiguous, (d_pruned, H, y, pi, is_kept))
    dP, db = empty(np, y.shape, y.dtype), empty(np, y.shape[1:], y.dtype)
    run(_prune_backward, d_pruned, *read, dP, db, scale, d_pi_extra)
    return dP, d_pruned, db


@fast_loops
def _prune(P, b, H, y, pi, is_kept, H_pruned, alpha, gain, epsilon):
    temperature, zero = alpha[0], P.dtype.type(0.0)
    for i in range(P.shape[0]):
        for o in range(P.shape[1]):
            v_in = P[i, o] + b[o]
            P[i, o] = v_in
            y[i, o] = sigmoid(temperature * v_in)
        for o in range(P.shape[1]):  # apart, or the compiler takes one number at a time
            v = gain * y[i, o]
            factor = v if v > epsilon else v * zero  # NaN stays NaN
            pi[i, o] = factor
            is_kept[i, o] = v > epsilon
            H_pruned[i, o] = H[i, o] * factor


@fast_loops
def _prune_backward(d_pruned, H, y, pi, is_kept, dP, db, scale, d_pi_extra):
    factor, extra, zero = scale[0], d_pi_extra[0], y.dtype.type(0.0)
    db[:] = zero
    for i in range(y.shape[0]):
        for o in range(y.shape[1]):
            slope = factor if is_kept[i, o] else zero
            d_pi = d_pruned[i, o] * H[i, o] + extra
            dp = d_pi * (y[i, o] - y[i, o] * y[i, o]) * slope
            dP[i, o] = dp
            d_pruned[i, o] *= pi[i, o]
            db[o] += dp
