"""AdaSparse's "fusion": pi = v 1[v > epsilon], v = gain sigmoid(alpha (P + b)), and H pi.

Batch first (derivations 8.1, 8.3); the temperature alpha is an array (1,), for it belongs to the
state of the training.
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import ROWS_OF_BLOCK, Launcher, Source

PRUNING = Source(r"""
extern "C" __global__ void prune(
    REAL* P, const REAL* bias, const REAL* H, const REAL* alpha, REAL* y, REAL* pi, bool* is_kept,
    REAL* H_pruned, REAL gain, REAL epsilon, wide B, int O, wide chunk
) {
    int o = feature();
    if (o >= O) return;
    for (wide b = first_sample(chunk); b < last_sample(B, chunk); b += ROWS_AT_ONCE) {
        wide i = b * O + o;
        REAL v_in = P[i] + bias[o], share = sigmoid(alpha[0] * v_in), v = gain * share;
        bool keep = v > epsilon;
        REAL factor = v * (REAL)keep;
        P[i] = v_in;
        y[i] = share;
        pi[i] = factor;
        is_kept[i] = keep;
        H_pruned[i] = H[i] * factor;
    }
}

extern "C" __global__ void prune_backward(
    REAL* d_pruned, const REAL* H, const REAL* y, const REAL* pi, const bool* is_kept,
    const REAL* scale, const REAL* d_pi_extra, REAL* dP, REAL* partial, wide B, int O, wide chunk
) {
    int o = feature();
    REAL sum = 0;
    if (o < O)
        for (wide b = first_sample(chunk); b < last_sample(B, chunk); b += ROWS_AT_ONCE) {
            wide i = b * O + o;
            REAL d_pi = d_pruned[i] * H[i] + d_pi_extra[0];
            REAL dp = d_pi * y[i] * ((REAL)1 - y[i]) * (REAL)is_kept[i] * scale[0];
            dP[i] = dp;
            d_pruned[i] *= pi[i];
            sum += dp;
        }
    column_sum(sum, partial, O);
}
""")


def _prune_on_device(
    launch: Launcher, P: Array, b: Array, H: Array, alpha: Array, gain: float, epsilon: float
) -> tuple[Array, ...]:
    P, b, H, alpha = launch.inputs(P, b, H, alpha)
    y, pi, H_pruned = (launch.empty(*P.shape) for _ in range(3))
    is_kept = launch.xp.empty(P.shape, dtype=np.bool_)
    limits = launch.real(gain), launch.real(epsilon)
    args = P, b, H, alpha, y, pi, is_kept, H_pruned, *limits
    launch.columns(PRUNING, "prune", P.shape, ROWS_OF_BLOCK, *args)
    return P, y, pi, is_kept, H_pruned


@fused(_prune_on_device, compiled="pruning")
def prune(
    P: Array, b: Array, H: Array, alpha: Array, gain: float, epsilon: float
) -> tuple[Array, ...]:
    """Return v_in = P + b, y = sigmoid(alpha v_in), the factors pi, where they are kept, and H pi.

    v_in lies in the memory of P, which is given up.

    Shapes
    ------
    P, H, and the results : (B, N)
    b : (N,)
    """
    P += b
    y = 0.5 + 0.5 * get_xp(P=P).tanh(0.5 * (alpha * P))
    v = gain * y
    is_kept = v > epsilon
    pi = v * is_kept
    return P, y, pi, is_kept, H * pi


def _prune_backward_on_device(
    launch: Launcher, d_pruned: Array, H: Array, y: Array, pi: Array, is_kept: Array,
    scale: Array, d_pi_extra: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    arrays = launch.inputs(d_pruned, H, y, pi, is_kept, scale, d_pi_extra)
    dP, shape = launch.empty(*y.shape), y.shape
    return dP, arrays[0], launch.column_sums(PRUNING, "prune_backward", shape, *arrays, dP)


@fused(_prune_backward_on_device, compiled="pruning")
def prune_backward(
    d_pruned: Array, H: Array, y: Array, pi: Array, is_kept: Array,
    scale: Array, d_pi_extra: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return dP = scale d_pi y (1 - y) where kept, else 0; dH = d_pruned pi; db, the sum of dP.

    With d_pi = d_pruned H + d_pi_extra, and scale = gain alpha.  dH may lie in the memory of
    d_pruned, which is given up.

    Shapes
    ------
    d_pruned, H, y, pi, is_kept, dP, dH : (B, N)
    scale, d_pi_extra : (1,)
    db : (N,)
    """
    dP = (d_pruned * H + d_pi_extra) * y * (1.0 - y) * is_kept * scale
    d_pruned *= pi
    return dP, d_pruned, dP.sum(axis=0)
