"""Affine maps and ReLU around a matrix product: bias and activation in one pass over memory.

``x`` may be of any shape; with a bias, batch last: (features, B), or batch first: (B, features).
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import CHUNK, Launcher, Source, n_chunks, total

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

// The same two, batch first: a block walks down 32 columns of a chunk, a warp to each row.
#define COLUMNS 32
#define STEP (THREADS / COLUMNS)

extern "C" __global__ void bias_relu_batch_first(
    REAL* P, const REAL* bias, REAL* H, bool* is_positive, wide B, int O, wide chunk
) {
    int o = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    if (o >= O) return;
    for (wide b = start + threadIdx.x / COLUMNS; b < stop; b += STEP) {
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
    __shared__ REAL part[STEP][COLUMNS];
    int column = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
    int o = blockIdx.x * COLUMNS + column;
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum = 0;
    if (o < O)
        for (wide b = start + row; b < stop; b += STEP) {
            wide i = b * O + o;
            REAL da = dH[i] * (REAL)is_positive[i];
            dH[i] = da;
            sum += da;
        }
    part[row][column] = sum;
    __syncthreads();
    if (row > 0 || o >= O) return;
    for (int y = 1; y < STEP; ++y) sum += part[y][column];
    partial[(wide)blockIdx.y * O + o] = sum;
}
""")
COLUMNS = 32
ROWS_OF_BLOCK = 64  # of a batch stored first, where nothing is added up
ROWS_OF_SUM = 512


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
    (n_samples, n_features), size = P.shape, ROWS_OF_BLOCK
    H, is_positive = launch.empty(*P.shape), launch.xp.empty(P.shape, dtype=np.bool_)
    args = P, b, H, is_positive, np.int64(n_samples), np.int32(n_features), np.int64(size)
    grid = -(-n_features // COLUMNS), -(-n_samples // size)
    launch.blocks(ELEMENTWISE, "bias_relu_batch_first", *grid, *args)
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
    (n_samples, n_features), size = dH.shape, ROWS_OF_SUM
    chunks = max(1, -(-n_samples // size))
    partial = launch.empty(chunks, n_features)
    args = dH, is_positive, partial, np.int64(n_samples), np.int32(n_features), np.int64(size)
    n_tiles = -(-n_features // COLUMNS)
    launch.blocks(ELEMENTWISE, "bias_relu_batch_first_backward", n_tiles, chunks, *args)
    return dH, (partial.reshape(-1) if chunks == 1 else total(launch, partial, 1.0))


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
