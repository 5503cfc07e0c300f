"""Factors of AdaSparse's "fusion": pi = v 1[v > epsilon], v = gain sigmoid(alpha v_in).

Element by element (derivations 8.1), arrays of any shape; the temperature alpha is an array (1,),
for it belongs to the state of the training.
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import Launcher, Source

PRUNING = Source(r"""
extern "C" __global__ void pruning_factors(
    const REAL* v_in, const REAL* alpha, REAL* y, REAL* pi, bool* is_kept, wide n,
    REAL gain, REAL epsilon
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    REAL share = sigmoid(alpha[0] * v_in[i]), v = gain * share;
    bool keep = v > epsilon;
    y[i] = share;
    pi[i] = v * (REAL)keep;
    is_kept[i] = keep;
}

extern "C" __global__ void pruning_factors_backward(
    const REAL* d_pi, const REAL* y, const bool* is_kept, const REAL* scale, REAL* dv_in, wide n
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dv_in[i] = d_pi[i] * y[i] * ((REAL)1 - y[i]) * (REAL)is_kept[i] * scale[0];
}
""")


def _pruning_factors_on_device(
    launch: Launcher, v_in: Array, alpha: Array, gain: float, epsilon: float
) -> tuple[Array, Array, Array]:
    v_in, alpha = launch.inputs(v_in, alpha)
    y, pi = launch.empty(*v_in.shape), launch.empty(*v_in.shape)
    is_kept = launch.xp.empty(v_in.shape, dtype=np.bool_)
    limits = launch.real(gain), launch.real(epsilon)
    args = v_in, alpha, y, pi, is_kept, np.int64(v_in.size), *limits
    launch.each(PRUNING, "pruning_factors", v_in.size, *args)
    return y, pi, is_kept


@fused(_pruning_factors_on_device, compiled="pruning")
def pruning_factors(
    v_in: Array, alpha: Array, gain: float, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return y = sigmoid(alpha v_in), the factors pi, and where they are kept."""
    y = 0.5 + 0.5 * get_xp(v_in=v_in).tanh(0.5 * (alpha * v_in))
    v = gain * y
    is_kept = v > epsilon
    return y, v * is_kept, is_kept


def _pruning_factors_backward_on_device(
    launch: Launcher, d_pi: Array, y: Array, is_kept: Array, scale: Array
) -> Array:
    d_pi, y, is_kept, scale = launch.inputs(d_pi, y, is_kept, scale)
    dv_in = launch.empty(*y.shape)
    args = d_pi, y, is_kept, scale, dv_in, np.int64(y.size)
    launch.each(PRUNING, "pruning_factors_backward", y.size, *args)
    return dv_in


@fused(_pruning_factors_backward_on_device, compiled="pruning")
def pruning_factors_backward(d_pi: Array, y: Array, is_kept: Array, scale: Array) -> Array:
    """Return dv_in = scale d_pi y (1 - y) where kept, else 0; scale = gain alpha, (1,)."""
    return d_pi * y * (1.0 - y) * is_kept * scale
