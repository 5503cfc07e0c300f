"""Affine maps and ReLU around a matrix product: bias and activation in one pass over memory.

``x`` may be of any shape; with a bias, batch last: (features, B), or batch first: (B, features).
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import CHUNK, ROWS_OF_BLOCK, Launcher, Source, n_chunks, total

ELEMENTWISE = Source(r"""
extern "C" __global__ void relu(const REAL* x, REAL* y, bool* is_positive, wide n) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    bool keep = x[i] > (REAL)0;
    y[i] = keep || x[i] != x[i] ? x[i] : (REAL)0;  // NaN stays NaN, as NumPy's maximum has it
    is_positive[i] = keep;
}

extern "C" __global__ void relu_backward(REAL* dy, const bool* is_positive, wide n) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) dy[i] *= (REAL)is_positive[i];
}

// A = P + b in the memory of P, H = max(A, 0); grid: (features, blocks of samples).
extern "C" __global__ void bias_relu(
    REAL* P, const REAL* bias, REAL* H, bool* is_positive, wide B
) {
    wide b = sample();
    if (b >= B) return;
    wide i = (wide)blockIdx.x * B + b;
    REAL a = P[i] + bias[blockIdx.x];
    bool keep = a > (REAL)0;
    P[i] = a;
    H[i] = keep || a != a ? a : (REAL)0;
    is_positive[i] = keep;
}

// partial[chunk, d] = sum over the chunk of x[d, b]; grid: (features, chunks).
extern "C" __global__ void sum_samples(const REAL* x, REAL* partial, wide B, wide chunk) {
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum = 0;
    for (wide b = start + threadIdx.x; b < stop; b += blockDim.x) sum += x[blockIdx.x * B + b];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[(wide)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// dA = dH where A > 0, else 0, in the memory of dH, and its sum over a chunk of the batch; grid:
// (features, chunks).
extern "C" __global__ void bias_relu_backward(
    REAL* dH, const bool* is_positive, REAL* partial, wide B, wide chunk
) {
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum = 0;
    for (wide b = start + threadIdx.x; b < stop; b += blockDim.x) {
        wide i = (wide)blockIdx.x * B + b;
        REAL da = dH[i] * (REAL)is_positive[i];
        dH[i] = da;
        sum += da;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[(wide)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// The same two, batch first.
extern "C" __global__ void bias_relu_batch_first(
    REAL* P, const REAL* bias, REAL* H, bool* is_positive, wide B, int O, wide chunk
) {
    int o = feature();
    if (o >= O) return;
    for (wide b = first_sample(chunk); b < last_sample(B, chunk); b += ROWS_AT_ONCE) {
        wide i = b * O + o;
        REAL a = P[i] + bias[o];
        bool keep = a > (REAL)0;
        P[i] = a;
        H[i] = keep || a != a ? a : (REAL)0;
        is_positive[i] = keep;
    }
}

extern "C" __global__ void bias_relu_batch_first_backward(
    REAL* dH, const bool* is_positive, REAL* partial, wide B, int O, wide chunk
) {
    int o = feature();
    REAL sum = 0;
    if (o < O)
        for (wide b = first_sample(chunk); b < last_sample(B, chunk); b += ROWS_AT_ONCE) {
            wide i = b * O + o;
            REAL da = dH[i] * (REAL)is_positive[i];
            dH[i] = da;
            sum += da;
        }
    column_sum(sum, partial, O);
}
""")


def _relu_on_device(launch: Launcher, x: Array) -> tuple[Array, Array]:
    (x,) = launch.inputs(x)
    y, is_positive = launch.empty(*x.shape), launch.xp.empty(x.shape, dtype=np.bool_)
    launch.each(ELEMENTWISE, "relu", x.size, x, y, is_positive, np.int64(x.size))
    return y, is_positive


@fused(_relu_on_device, compiled="elementwise")
def relu(x: Array) -> tuple[Array, Array]:
    """Return max(x, 0) and where x > 0."""
    return get_xp(x).maximum(x, 0), x > 0


def _relu_backward_on_device(launch: Launcher, dy: Array, is_positive: Array) -> Array:
    dy, is_positive = launch.inputs(dy, is_positive)
    launch.each(ELEMENTWISE, "relu_backward", dy.size, dy, is_positive, np.int64(dy.size))
    return dy


@fused(_relu_backward_on_device, compiled="elementwise")
def relu_backward(dy: Array, is_positive: Array) -> Array:
    """Return dx = dy where x > 0, else 0; it may lie in the memory of dy, which is given up."""
    dy *= is_positive
    return dy


def _bias_relu_on_device(launch: Launcher, P: Array, b: Array) -> tuple[Array, Array, Array]:
    P, b = launch.inputs(P, b)
    H, is_positive = launch.empty(*P.shape), launch.xp.empty(P.shape, dtype=np.bool_)
    args = P, b, H, is_positive, np.int64(P.shape[1])
    launch.rows(ELEMENTWISE, "bias_relu", *P.shape, *args)
    return P, H, is_positive


@fused(_bias_relu_on_device, compiled="elementwise")
def bias_relu(P: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return A = P + b, in the memory of P, which is given up; H = max(A, 0); and where A > 0.

    Shapes
    ------
    P : (O, B)
    b : (O,)
    A, H : (O, B)
    """
    P += b[:, None]
    return P, get_xp(P=P).maximum(P, 0), P > 0


def _bias_relu_batch_first_on_device(
    launch: Launcher, P: Array, b: Array
) -> tuple[Array, Array, Array]:
    P, b = launch.inputs(P, b)
    H, is_positive = launch.empty(*P.shape), launch.xp.empty(P.shape, dtype=np.bool_)
    args = P, b, H, is_positive
    launch.columns(ELEMENTWISE, "bias_relu_batch_first", P.shape, ROWS_OF_BLOCK, *args)
    return P, H, is_positive


@fused(_bias_relu_batch_first_on_device, compiled="elementwise")
def bias_relu_batch_first(P: Array, b: Array) -> tuple[Array, Array, Array]:
    """As ``bias_relu``, with P, A and H (B, O)."""
    P += b
    return P, get_xp(P=P).maximum(P, 0), P > 0


def _bias_relu_backward_on_device(
    launch: Launcher, dH: Array, is_positive: Array
) -> tuple[Array, Array]:
    dH, is_positive = launch.inputs(dH, is_positive)
    (n_features, n_samples), chunks = dH.shape, n_chunks(dH.shape[1])
    partial = launch.empty(chunks, n_features)
    args = dH, is_positive, partial, np.int64(n_samples), np.int64(CHUNK)
    launch.blocks(ELEMENTWISE, "bias_relu_backward", n_features, chunks, *args)
    return dH, (partial.reshape(-1) if chunks == 1 else total(launch, partial, 1.0))


@fused(_bias_relu_backward_on_device, compiled="elementwise")
def bias_relu_backward(dH: Array, is_positive: Array) -> tuple[Array, Array]:
    """Return dA = dH where A > 0, else 0, and db = sum of dA over the batch.

    dA may lie in the memory of dH, which is given up.

    Shapes
    ------
    dH, dA : (O, B)
    db : (O,)
    """
    dH *= is_positive
    return dH, dH.sum(axis=1)


def _bias_relu_batch_first_backward_on_device(
    launch: Launcher, dH: Array, is_positive: Array
) -> tuple[Array, Array]:
    dH, is_positive = launch.inputs(dH, is_positive)
    name = "bias_relu_batch_first_backward"
    return dH, launch.column_sums(ELEMENTWISE, name, dH.shape, dH, is_positive)


@fused(_bias_relu_batch_first_backward_on_device, compiled="elementwise")
def bias_relu_batch_first_backward(dH: Array, is_positive: Array) -> tuple[Array, Array]:
    """As ``bias_relu_backward``, with dH and dA (B, O)."""
    dH *= is_positive
    return dH, dH.sum(axis=0)


def _sum_samples_on_device(launch: Launcher, x: Array) -> Array:
    (x,) = launch.inputs(x)
    (n_features, n_samples), chunks = x.shape, n_chunks(x.shape[1])
    partial = launch.empty(chunks, n_features)
    args = x, partial, np.int64(n_samples), np.int64(CHUNK)
    launch.blocks(ELEMENTWISE, "sum_samples", n_features, chunks, *args)
    return partial.reshape(-1) if chunks == 1 else total(launch, partial, 1.0)


@fused(_sum_samples_on_device, compiled="elementwise")
def sum_samples(x: Array) -> Array:
    """Sum over the batch.

    Shapes
    ------
    x : (d, B)
    sum : (d,)
    """
    return x.sum(axis=1)
