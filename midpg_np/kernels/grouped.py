"""Products with one matrix for each group of rows, which lie side by side (derivations 2.7a).

``bounds`` (M + 1,) says where: rows ``bounds[m]`` up to ``bounds[m + 1]`` are those of group m,
which may have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from midpg_np.backend import Array, Namespace, get_xp, to_numpy
from midpg_np.kernels.dispatch import empty, fused
from midpg_np.kernels.launch import Launcher, Source, total

# A block of 256 threads works on a tile of 32 rows by 32 columns, a thread on four entries of it.
GROUPED = Source(
    r"""
#define TILE 32
#define STEP (THREADS / TILE)

// The group of a row: the last that begins at or before it.  Groups without rows are skipped.
__device__ __forceinline__ int group_at(const wide* bounds, int M, wide row) {
    int low = 0, high = M;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (bounds[middle] <= row) low = middle; else high = middle;
    }
    return low;
}

// A[b,o] = sum_i H[b,i] W[m,i,o], or of W[m,o,i] if is_transposed, with m the group of b;
// grid: (tiles of rows, tiles of columns).
extern "C" __global__ void multiply_groups(
    const REAL* H, const REAL* W, const wide* bounds, REAL* A,
    int M, wide B, int I, int O, int is_transposed
) {
    __shared__ REAL h[TILE][TILE + 1], w[TILE][TILE + 1];
    int column = threadIdx.x % TILE, row = threadIdx.x / TILE;
    wide first = (wide)blockIdx.x * TILE, last = first + TILE < B ? first + TILE : B;
    int first_o = blockIdx.y * TILE;
    REAL a[TILE / STEP];
    for (int t = 0; t < TILE / STEP; ++t) a[t] = 0;
    for (int m = group_at(bounds, M, first); m < M && bounds[m] < last; ++m) {
        wide start = bounds[m], stop = bounds[m + 1];
        if (start == stop) continue;
        REAL z[TILE / STEP];
        for (int t = 0; t < TILE / STEP; ++t) z[t] = 0;
        for (int i0 = 0; i0 < I; i0 += TILE) {
            __syncthreads();
            for (int y = row; y < TILE; y += STEP) {
                wide b = first + y;
                h[y][column] = b < last && i0 + column < I ? H[b * I + i0 + column] : (REAL)0;
                int i = is_transposed ? i0 + column : i0 + y;
                int o = is_transposed ? first_o + y : first_o + column;
                wide place = is_transposed ? ((wide)m * O + o) * I + i : ((wide)m * I + i) * O + o;
                REAL value = i < I && o < O ? W[place] : (REAL)0;
                if (is_transposed) w[column][y] = value; else w[y][column] = value;
            }
            __syncthreads();
            for (int i = 0; i < TILE; ++i)
                for (int t = 0; t < TILE / STEP; ++t) z[t] += h[row + t * STEP][i] * w[i][column];
        }
        for (int t = 0; t < TILE / STEP; ++t) {
            wide b = first + row + t * STEP;
            if (start <= b && b < stop) a[t] = z[t];
        }
    }
    for (int t = 0; t < TILE / STEP; ++t) {
        wide b = first + row + t * STEP;
        if (b < last && first_o + column < O) A[b * O + first_o + column] = a[t];
    }
}

// partial[chunk,m,i,o] = sum over the rows b of the chunk of group m of H[b,i] dA[b,o]; grid:
// (groups by tiles of inputs by tiles of outputs, chunks).
extern "C" __global__ void multiply_groups_dW(
    const REAL* dA, const REAL* H, const wide* bounds, REAL* partial,
    int M, int I, int O, wide chunk
) {
    __shared__ REAL h[TILE][TILE + 1], d[TILE][TILE + 1];
    int tiles_i = (I + TILE - 1) / TILE, tiles_o = (O + TILE - 1) / TILE;
    int m = blockIdx.x / (tiles_i * tiles_o), tile = blockIdx.x % (tiles_i * tiles_o);
    int first_i = tile / tiles_o * TILE, first_o = tile % tiles_o * TILE;
    int column = threadIdx.x % TILE, row = threadIdx.x / TILE;
    wide start = bounds[m] + blockIdx.y * chunk, stop = bounds[m + 1];
    if (start + chunk < stop) stop = start + chunk;
    REAL sum[TILE / STEP];
    for (int t = 0; t < TILE / STEP; ++t) sum[t] = 0;
    for (wide b0 = start; b0 < stop; b0 += TILE) {
        __syncthreads();
        for (int y = row; y < TILE; y += STEP) {
            wide b = b0 + y;
            int i = first_i + column, o = first_o + column;
            h[y][column] = b < stop && i < I ? H[b * I + i] : (REAL)0;
            d[y][column] = b < stop && o < O ? dA[b * O + o] : (REAL)0;
        }
        __syncthreads();
        for (int t = 0; t < TILE / STEP; ++t) {
            REAL of_tile = 0;  // sums of sums round less
            for (int y = 0; y < TILE; ++y) of_tile += h[y][row + t * STEP] * d[y][column];
            sum[t] += of_tile;
        }
    }
    for (int t = 0; t < TILE / STEP; ++t) {
        int i = first_i + row + t * STEP, o = first_o + column;
        if (i < I && o < O) partial[((wide)(blockIdx.y * M + m) * I + i) * O + o] = sum[t];
    }
}

// partial[chunk,m,i] = sum over the rows b of the chunk of group m of x[b,i]; grid: (groups by
// tiles of columns, chunks).
extern "C" __global__ void sum_groups(
    const REAL* x, const wide* bounds, REAL* partial, int M, int I, wide chunk
) {
    __shared__ REAL part[STEP][TILE];
    int tiles = (I + TILE - 1) / TILE, m = blockIdx.x / tiles;
    int lane = threadIdx.x % TILE, i = blockIdx.x % tiles * TILE + lane, row = threadIdx.x / TILE;
    wide start = bounds[m] + blockIdx.y * chunk, stop = bounds[m + 1];
    if (start + chunk < stop) stop = start + chunk;
    REAL sum = 0;
    if (i < I)
        for (wide b = start + row; b < stop; b += STEP) sum += x[b * I + i];
    part[row][lane] = sum;
    __syncthreads();
    if (row > 0 || i >= I) return;
    for (int y = 1; y < STEP; ++y) sum += part[y][lane];
    partial[(wide)(blockIdx.y * M + m) * I + i] = sum;
}
""",
    is_exact=False,
)
TILE = 32
CHUNK_OF_GROUP = 1024  # rows of a group that one block adds up


def _tiles(n: int) -> int:
    return -(-n // TILE)


def _chunks(n_rows: int) -> int:
    return max(1, -(-n_rows // CHUNK_OF_GROUP))


def _multiply_on_device(
    launch: Launcher, H: Array, W: Array, bounds: Array, is_transposed: bool
) -> Array:
    n_rows, n_inputs = H.shape
    n_outputs = W.shape[1] if is_transposed else W.shape[2]
    A = launch.empty(n_rows, n_outputs)
    sizes = np.int32(len(W)), np.int64(n_rows), np.int32(n_inputs), np.int32(n_outputs)
    args = H, W, bounds, A, *sizes, np.int32(is_transposed)
    launch.blocks(GROUPED, "multiply_groups", _tiles(n_rows), _tiles(n_outputs), *args)
    return A


def _product_by_group_on_device(launch: Launcher, H: Array, W: Array, bounds: Array) -> Array:
    H, W, bounds = launch.inputs(H, W, bounds)
    return _multiply_on_device(launch, H, W, bounds, is_transposed=False)


@fused(_product_by_group_on_device, compiled="grouped")
def product_by_group(H: Array, W: Array, bounds: Array) -> Array:
    """A[b] = H[b] W[m] for the rows b of group m.

    Shapes
    ------
    H : (B, I)
    W : (M, I, O)
    A : (B, O)
    """
    xp = get_xp(H=H, W=W)
    A = empty(xp, (H.shape[0], W.shape[2]), xp.result_type(H, W))
    multiply_groups(xp, H, W, bounds, A)
    return A


def multiply_groups(xp: Namespace, H: Array, W: Array, bounds: Array, A: Array) -> None:
    """Write ``product_by_group`` to A."""
    for m, rows in enumerate(_slices(bounds)):
        xp.matmul(H[rows], W[m], out=A[rows])


def _product_by_group_backward_on_device(
    launch: Launcher, dA: Array, H: Array, W: Array, bounds: Array
) -> tuple[Array, Array]:
    dA, H, W, bounds = launch.inputs(dA, H, W, bounds)
    dH = _multiply_on_device(launch, dA, W, bounds, is_transposed=True)
    (n_groups, n_inputs, n_outputs), n_chunks = W.shape, _chunks(len(H))
    partial = launch.empty(n_chunks, W.size)
    sizes = np.int32(n_groups), np.int32(n_inputs), np.int32(n_outputs), np.int64(CHUNK_OF_GROUP)
    n_blocks = n_groups * _tiles(n_inputs) * _tiles(n_outputs)
    args = dA, H, bounds, partial, *sizes
    launch.blocks(GROUPED, "multiply_groups_dW", n_blocks, n_chunks, *args)
    dW = partial if n_chunks == 1 else total(launch, partial, 1.0)
    return dH, dW.reshape(W.shape)


@fused(_product_by_group_backward_on_device, compiled="grouped")
def product_by_group_backward(dA: Array, H: Array, W: Array, bounds: Array) -> tuple[Array, Array]:
    """Return dH[b] = dA[b] W[m]^T and dW[m] = sum over the rows b of group m of H[b]^T dA[b].

    Shapes
    ------
    dA : (B, O)
    dH : (B, I)
    dW : (M, I, O)
    """
    xp = get_xp(dA=dA, H=H)
    dtype = xp.result_type(dA, H, W)
    dH, dW = empty(xp, H.shape, dtype), empty(xp, W.shape, dtype)
    multiply_groups_backward(xp, dA, H, W, bounds, dH, dW)
    return dH, dW


def multiply_groups_backward(
    xp: Namespace, dA: Array, H: Array, W: Array, bounds: Array, dH: Array, dW: Array
) -> None:
    """Write ``product_by_group_backward`` to dH and dW."""
    for m, rows in enumerate(_slices(bounds)):
        xp.matmul(dA[rows], W[m].T, out=dH[rows])
        xp.matmul(H[rows].T, dA[rows], out=dW[m])


def _sum_by_group_on_device(launch: Launcher, x: Array, bounds: Array) -> Array:
    x, bounds = launch.inputs(x, bounds)
    n_groups, width, n_chunks = len(bounds) - 1, x.shape[1], _chunks(len(x))
    partial = launch.empty(n_chunks, n_groups * width)
    sizes = np.int32(n_groups), np.int32(width), np.int64(CHUNK_OF_GROUP)
    n_blocks = n_groups * _tiles(width)
    launch.blocks(GROUPED, "sum_groups", n_blocks, n_chunks, x, bounds, partial, *sizes)
    y = partial if n_chunks == 1 else total(launch, partial, 1.0)
    return y.reshape(n_groups, width)


@fused(_sum_by_group_on_device, compiled="grouped")
def sum_by_group(x: Array, bounds: Array) -> Array:
    """Sum of the rows of each group, y[m] = sum over the rows b of group m of x[b].

    Shapes
    ------
    x : (B, I)
    y : (M, I)
    """
    return get_xp(x=x).stack([x[rows].sum(axis=0) for rows in _slices(bounds)])


def _slices(bounds: Array) -> Iterator[slice]:
    """Yield the rows of each group; on the host, a GPU is waited for."""
    return (slice(start, stop) for start, stop in pairwise(to_numpy(bounds).tolist()))
