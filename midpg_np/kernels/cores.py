"""The core of a weighting matrix, Q = gain sigmoid(R C), and Q = gain sigmoid(P) of ``non``.

All arrays have the batch as their last axis; a factor that all samples share has no batch axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import CHUNK, Launcher, Source, n_chunks, total

CORE = Source(r"""
// Q[r,c,b] = gain sigmoid(sum_k R[r,k,b] C[k,c,b]); grid: (d_r d_c, blocks of samples).
extern "C" __global__ void core_forward(
    const REAL* R, const REAL* C, REAL* Q, int d_k, int d_c, wide B,
    int is_shared_R, int is_shared_C, REAL gain
) {
    wide b = sample();
    if (b >= B) return;
    int r = blockIdx.x / d_c, c = blockIdx.x % d_c;
    REAL P = 0;
    for (int k = 0; k < d_k; ++k)
        P += R[at(r * d_k + k, b, B, is_shared_R)] * C[at(k * d_c + c, b, B, is_shared_C)];
    Q[(wide)blockIdx.x * B + b] = gain * sigmoid(P);
}

// dP = gain dQ y (1 - y) with y = Q / gain.
__device__ __forceinline__ REAL d_product(REAL dQ, REAL Q, REAL gain) {
    REAL y = Q / gain;
    return dQ * gain * y * ((REAL)1 - y);
}

// The same at place q; the core's adjoint has a second part, where it has a second reader.
__device__ __forceinline__ REAL d_product_at(
    wide q, const REAL* dQ, const REAL* other, int has_other, const REAL* Q, REAL gain
) {
    return d_product(has_other ? dQ[q] + other[q] : dQ[q], Q[q], gain);
}

// Factors with a batch axis: dR[r,k,b] = sum_c dP[r,c,b] C[k,c,b] in the first rows of the grid,
// dC[k,c,b] = sum_r R[r,k,b] dP[r,c,b] in those after.
extern "C" __global__ void core_backward_generated(
    const REAL* dQ, const REAL* other, int has_other, const REAL* Q,
    const REAL* R, const REAL* C, REAL* dR, REAL* dC,
    int d_r, int d_k, int d_c, wide B, int is_shared_R, int is_shared_C, REAL gain
) {
    wide b = sample();
    if (b >= B) return;
    int row = blockIdx.x, n_R = is_shared_R ? 0 : d_r * d_k;
    REAL sum = 0;
    if (row < n_R) {
        int r = row / d_k, k = row % d_k;
        for (int c = 0; c < d_c; ++c) {
            wide q = (wide)(r * d_c + c) * B + b;
            REAL dP = d_product_at(q, dQ, other, has_other, Q, gain);
            sum += dP * C[at(k * d_c + c, b, B, is_shared_C)];
        }
        dR[(wide)row * B + b] = sum;
    } else {
        row -= n_R;
        int k = row / d_c, c = row % d_c;
        for (int r = 0; r < d_r; ++r) {
            wide q = (wide)(r * d_c + c) * B + b;
            REAL dP = d_product_at(q, dQ, other, has_other, Q, gain);
            sum += R[at(r * d_k + k, b, B, is_shared_R)] * dP;
        }
        dC[(wide)row * B + b] = sum;
    }
}

// The factor without a batch axis: the same sums, added over a chunk of the batch by each block.
// Only one of R and C is shared.  partial: (chunks, entries of the factor).
extern "C" __global__ void core_backward_shared(
    const REAL* dQ, const REAL* other, int has_other, const REAL* Q, const REAL* factor,
    REAL* partial, int d_r, int d_k, int d_c, wide B, wide chunk, int is_R, REAL gain
) {
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum = 0;
    for (wide b = start + threadIdx.x; b < stop; b += blockDim.x) {
        if (is_R) {  // factor is C
            int r = blockIdx.x / d_k, k = blockIdx.x % d_k;
            for (int c = 0; c < d_c; ++c) {
                wide q = (wide)(r * d_c + c) * B + b;
                REAL dP = d_product_at(q, dQ, other, has_other, Q, gain);
                sum += dP * factor[(wide)(k * d_c + c) * B + b];
            }
        } else {  // factor is R
            int k = blockIdx.x / d_c, c = blockIdx.x % d_c;
            for (int r = 0; r < d_r; ++r) {
                wide q = (wide)(r * d_c + c) * B + b;
                REAL dP = d_product_at(q, dQ, other, has_other, Q, gain);
                sum += factor[(wide)(r * d_k + k) * B + b] * dP;
            }
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[(wide)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void bounded_forward(const REAL* P, REAL* Q, wide n, REAL gain) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) Q[i] = gain * sigmoid(P[i]);
}

extern "C" __global__ void bounded_backward(
    const REAL* dQ, const REAL* Q, REAL* dP, wide n, REAL gain
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dP[i] = d_product(dQ[i], Q[i], gain);
}
""")


def _core_on_device(launch: Launcher, R: Array, C: Array, gain: float) -> Array:
    R, C = launch.inputs(R, C)
    d_r, d_k, d_c = R.shape[0], R.shape[1], C.shape[1]
    n_samples = max(R.shape[2:] + C.shape[2:])
    Q = launch.empty(d_r, d_c, n_samples)
    sizes = np.int32(d_k), np.int32(d_c), np.int64(n_samples)
    shared = np.int32(R.ndim == 2), np.int32(C.ndim == 2)
    args = (R, C, Q, *sizes, *shared, launch.real(gain))
    launch.rows(CORE, "core_forward", d_r * d_c, n_samples, *args)
    return Q


@fused(_core_on_device, compiled="cores")
def core(R: Array, C: Array, gain: float) -> Array:
    """Q[r,c,b] = gain sigmoid(sum_k R[r,k,b] C[k,c,b]); at most one factor has no batch axis.

    Shapes
    ------
    R : (d_r, d_k, B) or (d_r, d_k)
    C : (d_k, d_c, B) or (d_k, d_c)
    Q : (d_r, d_c, B)
    """
    P = get_xp(R=R, C=C).einsum(_product(R, C, "rcb"), R, C)
    return gain * (0.5 + 0.5 * get_xp(P).tanh(0.5 * P))


def _product(R: Array, C: Array, result: str) -> str:
    return f"{'rkb'[: R.ndim]},{'kcb'[: C.ndim]}->{result}"


def _core_backward_on_device(
    launch: Launcher,
    dQ: Array,
    Q: Array,
    R: Array,
    C: Array,
    gain: float,
    dQ_other: Array | None = None,
) -> tuple[Array, Array]:
    dQ, Q, R, C = launch.inputs(dQ, Q, R, C)
    (other,) = (dQ,) if dQ_other is None else launch.inputs(dQ_other)
    adjoints = dQ, other, np.int32(dQ_other is not None), Q
    d_r, d_c, n_samples = Q.shape
    d_k = R.shape[1]
    is_shared_R, is_shared_C = R.ndim == 2, C.ndim == 2
    dR, dC = launch.empty(*R.shape), launch.empty(*C.shape)
    widths = np.int32(d_r), np.int32(d_k), np.int32(d_c), np.int64(n_samples)
    flags = np.int32(is_shared_R), np.int32(is_shared_C)
    args: tuple[Any, ...] = (*adjoints, R, C, dR, dC, *widths, *flags, launch.real(gain))
    n_rows = (0 if is_shared_R else d_r * d_k) + (0 if is_shared_C else d_k * d_c)
    launch.rows(CORE, "core_backward_generated", n_rows, n_samples, *args)
    if is_shared_R or is_shared_C:
        mine, factor = (R, C) if is_shared_R else (C, R)
        n, chunks = mine.size, n_chunks(n_samples)
        partial = launch.empty(chunks, n)
        tail = (*widths, np.int64(CHUNK), np.int32(is_shared_R), launch.real(gain))
        args = (*adjoints, factor, partial, *tail)
        launch.blocks(CORE, "core_backward_shared", n, chunks, *args)
        summed = (partial if chunks == 1 else total(launch, partial, 1.0)).reshape(mine.shape)
        dR, dC = (summed, dC) if is_shared_R else (dR, summed)
    return dR, dC


@fused(_core_backward_on_device, compiled="cores")
def core_backward(
    dQ: Array, Q: Array, R: Array, C: Array, gain: float, dQ_other: Array | None = None
) -> tuple[Array, Array]:
    """Return dR = dP C^T and dC = R^T dP per sample; summed over the batch for a shared factor.

    dP = gain dQ y (1 - y) with y = Q / gain; ``dQ_other``, the adjoint from a second reader of the
    core, is added to dQ.  Shapes as in ``core``.
    """
    xp = get_xp(dQ=dQ, Q=Q, R=R, C=C)
    dP = bounded_backward(dQ if dQ_other is None else dQ + dQ_other, Q, gain)
    dR = xp.einsum(f"rcb,{'kcb'[: C.ndim]}->{'rkb'[: R.ndim]}", dP, C)
    dC = xp.einsum(f"{'rkb'[: R.ndim]},rcb->{'kcb'[: C.ndim]}", R, dP)
    return dR, dC


def _bounded_on_device(launch: Launcher, P: Array, gain: float) -> Array:
    (P,) = launch.inputs(P)
    Q = launch.empty(*P.shape)
    launch.each(CORE, "bounded_forward", P.size, P, Q, np.int64(P.size), launch.real(gain))
    return Q


@fused(_bounded_on_device, compiled="cores")
def bounded(P: Array, gain: float) -> Array:
    """Q = gain sigmoid(P), element by element, any shape."""
    return gain * (0.5 + 0.5 * get_xp(P).tanh(0.5 * P))


def _bounded_backward_on_device(launch: Launcher, dQ: Array, Q: Array, gain: float) -> Array:
    dQ, Q = launch.inputs(dQ, Q)
    dP = launch.empty(*Q.shape)
    args = dQ, Q, dP, np.int64(Q.size), launch.real(gain)
    launch.each(CORE, "bounded_backward", Q.size, *args)
    return dP


@fused(_bounded_backward_on_device, compiled="cores")
def bounded_backward(dQ: Array, Q: Array, gain: float) -> Array:
    """dP = gain dQ y (1 - y) with y = Q / gain, element by element, any shape."""
    y = Q / gain
    return dQ * gain * y * (1.0 - y)
