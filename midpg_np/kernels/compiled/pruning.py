"""Pruning factors as loops; functions and shapes as in ``kernels.pruning``."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops, sigmoid
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def pruning_factors(
    v_in: Array, alpha: Array, gain: float, epsilon: float
) -> tuple[Array, Array, Array]:
    """As ``kernels.pruning_factors``."""
    v_in = contiguous(v_in)
    y, pi = empty(np, v_in.shape, v_in.dtype), empty(np, v_in.shape, v_in.dtype)
    is_kept = empty(np, v_in.shape, np.dtype(np.bool_))
    numbers = alpha, *map(v_in.dtype.type, (gain, epsilon))
    run(_factors, v_in.reshape(-1), *(x.reshape(-1) for x in (y, pi, is_kept)), *numbers)
    return y, pi, is_kept


def pruning_factors_backward(d_pi: Array, y: Array, is_kept: Array, scale: Array) -> Array:
    """As ``kernels.pruning_factors_backward``."""
    flat = (contiguous(x).reshape(-1) for x in (d_pi, y, is_kept))
    dv_in = empty(np, y.shape, y.dtype)
    run(_factors_backward, *flat, dv_in.reshape(-1), scale)
    return dv_in


@fast_loops
def _factors(v_in, y, pi, is_kept, alpha, gain, epsilon):
    temperature = alpha[0]
    for i in range(v_in.size):
        y[i] = sigmoid(temperature * v_in[i])
    for i in range(v_in.size):  # apart, or the compiler takes one number at a time
        v = gain * y[i]
        pi[i] = v if v > epsilon else v * v_in.dtype.type(0.0)  # NaN stays NaN
        is_kept[i] = v > epsilon


@fast_loops
def _factors_backward(d_pi, y, is_kept, dv_in, scale):
    factor = scale[0]
    for i in range(y.size):
        slope = factor if is_kept[i] else y.dtype.type(0.0)
        dv_in[i] = d_pi[i] * (y[i] - y[i] * y[i]) * slope
