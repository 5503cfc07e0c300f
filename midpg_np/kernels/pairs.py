"""Discriminator with one hidden layer behind its first products (derivations 3.3, 3.4).

Two logits for each sample b of B: of its matching pair, column b, and of its shuffled pair, column
B + b.  Both read the same signal, so A_v = e_v + (s_v + bias_v) with e the projected contexts of
2B pairs and s the projected signals of B samples; t = sum_v w_v max(A_v, 0) + c.
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import CHUNK, Launcher, Source, n_chunks, total

PAIRS = Source(r"""
// One thread for each pair; A is written over e.
extern "C" __global__ void pair_scores(
    REAL* A, const REAL* s, const REAL* bias, const REAL* w, const REAL* c, REAL* t,
    int n_hidden, wide B
) {
    wide pair = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= 2 * B) return;
    REAL sum = 0;
    for (int v = 0; v < n_hidden; ++v) {
        wide i = v * 2 * B + pair;
        REAL a = A[i] + (s[v * B + pair % B] + bias[v]);
        A[i] = a;
        if (!(a <= (REAL)0)) sum += w[v] * a;  // NaN passes
    }
    t[pair] = sum + c[0];
}

// dA = dt w where A > 0, ds = dA of the matching plus that of the shuffled pair; and, summed over a
// chunk of the samples, ds and max(A, 0) dt; grid: (hidden units, chunks).
extern "C" __global__ void pair_scores_backward(
    const REAL* dt, const REAL* A, const REAL* w, REAL* dA, REAL* ds, REAL* partial,
    wide B, wide chunk
) {
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    int v = blockIdx.x;
    REAL sum_ds = 0, sum_dw = 0;
    for (wide b = start + threadIdx.x; b < stop; b += blockDim.x) {
        wide pos = v * 2 * B + b, neg = pos + B;
        REAL p = A[pos] > (REAL)0 ? dt[b] : (REAL)0, n = A[neg] > (REAL)0 ? dt[B + b] : (REAL)0;
        dA[pos] = p * w[v];
        dA[neg] = n * w[v];
        REAL both = p * w[v] + n * w[v];
        ds[v * B + b] = both;
        sum_ds += both;
        sum_dw += p * A[pos] + n * A[neg];
    }
    sum_ds = block_sum(sum_ds);
    __syncthreads();
    sum_dw = block_sum(sum_dw);
    if (threadIdx.x == 0) {
        REAL* mine = partial + (wide)blockIdx.y * 2 * gridDim.x;
        mine[v] = sum_ds;
        mine[gridDim.x + v] = sum_dw;
    }
}
""")


def _pair_scores_on_device(
    launch: Launcher, e: Array, s: Array, bias: Array, w: Array, c: Array
) -> tuple[Array, Array]:
    e, s, bias, w, c = launch.inputs(e, s, bias, w, c)
    t = launch.empty(e.shape[1])
    args = e, s, bias, w, c, t, np.int32(e.shape[0]), np.int64(s.shape[1])
    launch.each(PAIRS, "pair_scores", e.shape[1], *args)
    return t, e


@fused(_pair_scores_on_device, compiled="pairs")
def pair_scores(e: Array, s: Array, bias: Array, w: Array, c: Array) -> tuple[Array, Array]:
    """Return t and A; A takes the memory of e, which is given up.

    Shapes
    ------
    e, A : (v, 2*B)
        Projected contexts.
    s : (v, B)
        Projected signals.
    bias, w : (v,)
    c : (1,)
    t : (2*B,)
    """
    n_samples = s.shape[1]
    e[:, :n_samples] += s + bias[:, None]
    e[:, n_samples:] += s + bias[:, None]
    return w @ get_xp(e=e).maximum(e, 0) + c, e


def _pair_scores_backward_on_device(
    launch: Launcher, dt: Array, A: Array, w: Array
) -> tuple[Array, ...]:
    dt, A, w = launch.inputs(dt, A, w)
    n_hidden, n_samples = A.shape[0], A.shape[1] // 2
    chunks = n_chunks(n_samples)
    dA, ds = launch.empty(*A.shape), launch.empty(n_hidden, n_samples)
    partial = launch.empty(chunks, 2 * n_hidden)
    args = dt, A, w, dA, ds, partial, np.int64(n_samples), np.int64(CHUNK)
    launch.blocks(PAIRS, "pair_scores_backward", n_hidden, chunks, *args)
    sums = partial.reshape(-1) if chunks == 1 else total(launch, partial, 1.0)
    return dA, ds, sums[:n_hidden], sums[n_hidden:]


@fused(_pair_scores_backward_on_device, compiled="pairs")
def pair_scores_backward(dt: Array, A: Array, w: Array) -> tuple[Array, ...]:
    """Return dA, ds, d_bias and dw; dc is the sum of dt.

    Shapes
    ------
    dt : (2*B,)
    A, dA : (v, 2*B)
    ds : (v, B)
    w, dw, d_bias : (v,)
    """
    n_samples = A.shape[1] // 2
    is_on = A > 0
    dA = w[:, None] * dt * is_on
    ds = dA[:, :n_samples] + dA[:, n_samples:]
    return dA, ds, ds.sum(axis=1), (A * is_on) @ dt
