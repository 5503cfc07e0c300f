"""Losses on logits in one pass: the regulariser's, and cross-entropy with its gradient.

The sum over the batch is taken by blocks of ``CHUNK`` samples in a fixed order, without atomics:
the same inputs give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import CHUNK, Launcher, Source, n_chunks, total

LOSSES = Source(r"""
// partial[chunk] = sum over the chunk of softplus(-t_pos) + softplus(t_neg), / divisor.
extern "C" __global__ void jensen_shannon(
    const REAL* t_pos, const REAL* t_neg, REAL* partial, wide B, wide chunk, REAL divisor
) {
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum = 0;
    for (wide b = start + threadIdx.x; b < stop; b += blockDim.x)
        sum += softplus(-t_pos[b]) + softplus(t_neg[b]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.y] = sum / divisor;
}

// dt_pos = -scale sigmoid(-t_pos), dt_neg = scale sigmoid(t_neg), scale = d_loss / B.
// d_loss is read on the device where it was computed there, else it is the number d_value.
extern "C" __global__ void jensen_shannon_backward(
    const REAL* t_pos, const REAL* t_neg, const REAL* d_loss, REAL* dt_pos, REAL* dt_neg,
    wide B, int is_on_device, REAL d_value
) {
    wide b = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= B) return;
    REAL scale = (is_on_device ? d_loss[0] : d_value) / (REAL)B;
    dt_pos[b] = -scale * sigmoid(-t_pos[b]);
    dt_neg[b] = scale * sigmoid(t_neg[b]);
}

// partial[chunk] = sum over the chunk of w (softplus(z) - y z), dz = (sigmoid(z) - y) w, where w is
// weight[b], or 1 / B (weight is not read then).
extern "C" __global__ void cross_entropy(
    const REAL* z, const REAL* y, const REAL* weight, REAL* partial, REAL* dz,
    wide B, wide chunk, int is_weighted, REAL divisor
) {
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum = 0;
    for (wide b = start + threadIdx.x; b < stop; b += blockDim.x) {
        REAL term = softplus(z[b]) - y[b] * z[b], slope = sigmoid(z[b]) - y[b];
        sum += is_weighted ? weight[b] * term : term;
        dz[b] = is_weighted ? slope * weight[b] : slope / (REAL)B;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.y] = sum / divisor;
}
""")


def _sum_over_chunks(
    launch: Launcher, name: str, divisor: float, before: tuple[Any, ...], after: tuple[Any, ...]
) -> Array:
    """Run a kernel that leaves one partial sum per chunk; return their sum / divisor, a scalar.

    Its arguments are ``before``, the partial sums, ``after`` and the divisor of one chunk.
    """
    chunks = n_chunks(before[0].size)
    partial = launch.empty(chunks, 1)
    in_block = launch.real(divisor if chunks == 1 else 1.0)
    launch.blocks(LOSSES, name, 1, chunks, *before, partial, *after, in_block)
    return (partial if chunks == 1 else total(launch, partial, divisor)).reshape(())


def _softplus(x: Array) -> Array:
    xp = get_xp(x)
    is_positive = x.real > 0
    return x * is_positive + xp.log1p(xp.exp(xp.where(is_positive, -x, x)))


def _sigmoid(x: Array) -> Array:
    return 0.5 + 0.5 * get_xp(x).tanh(0.5 * x)


def _jensen_shannon_on_device(launch: Launcher, t_pos: Array, t_neg: Array) -> Array:
    sizes = np.int64(t_pos.size), np.int64(CHUNK)
    inputs = launch.inputs(t_pos, t_neg)
    return _sum_over_chunks(launch, "jensen_shannon", t_pos.size, inputs, sizes)


@fused(_jensen_shannon_on_device, compiled="losses")
def jensen_shannon(t_pos: Array, t_neg: Array) -> Array:
    """Mean of softplus(-t_pos) + softplus(t_neg), a scalar (derivations 3.3b).

    Shapes
    ------
    t_pos, t_neg : (B,)
    """
    return (_softplus(-t_pos) + _softplus(t_neg)).mean()


def _jensen_shannon_backward_on_device(
    launch: Launcher, d_loss: Any, t_pos: Array, t_neg: Array
) -> tuple[Array, Array]:
    t_pos, t_neg = launch.inputs(t_pos, t_neg)
    dt_pos, dt_neg = launch.empty(*t_pos.shape), launch.empty(*t_neg.shape)
    is_on_device = isinstance(d_loss, type(t_pos))
    pointer = d_loss if is_on_device else t_pos  # any valid address; it is not read then
    value = launch.real(0.0 if is_on_device else d_loss)
    tail = np.int64(t_pos.size), np.int32(is_on_device), value
    args = t_pos, t_neg, pointer, dt_pos, dt_neg, *tail
    launch.each(LOSSES, "jensen_shannon_backward", t_pos.size, *args)
    return dt_pos, dt_neg


@fused(_jensen_shannon_backward_on_device, compiled="losses")
def jensen_shannon_backward(d_loss: Any, t_pos: Array, t_neg: Array) -> tuple[Array, Array]:
    """dt_pos = -(d_loss / B) sigmoid(-t_pos), dt_neg = (d_loss / B) sigmoid(t_neg).

    ``d_loss`` is a number, or a scalar on the device of the logits: it is not read on the host.
    """
    scale = d_loss / t_pos.shape[0]
    return -scale * _sigmoid(-t_pos), scale * _sigmoid(t_neg)


def _cross_entropy_on_device(
    launch: Launcher, z: Array, y: Array, weight: Array | None = None
) -> tuple[Array, Array]:
    z, y = launch.inputs(z, y)
    # Any valid address stands for the weights that there are not; they are not read then.
    (weights,) = (z,) if weight is None else launch.inputs(weight)
    dz = launch.empty(*z.shape)
    divisor = z.size if weight is None else 1.0
    tail = dz, np.int64(z.size), np.int64(CHUNK), np.int32(weight is not None)
    return _sum_over_chunks(launch, "cross_entropy", divisor, (z, y, weights), tail), dz


@fused(_cross_entropy_on_device, compiled="losses")
def cross_entropy(z: Array, y: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Return the mean of softplus(z) - y z, or its weighted sum, and dz for d_loss = 1.

    dz = (sigmoid(z) - y) / B, or (sigmoid(z) - y) weight (derivations 2.5b).

    Shapes
    ------
    z, y : (B,)
    weight : (B,)
        Weights of the rows, summing to 1; None means 1 / B for each.
    """
    terms, slope = _softplus(z) - y * z, _sigmoid(z) - y
    if weight is None:
        return terms.mean(), slope / z.shape[0]
    return (weight * terms).sum(), slope * weight
