"""The modulated product A_jb = sum_i S_ijb W_ij H_ib with S = psi(Q), which is never built.

Batch last: H (d_m, B), Q (d_r, d_c, B).  Input i belongs to row group r(i), output j to column
group c(j), by block or by tile (equations.md 3.2, 3.5).  The grouped forms of
``layers/modulated.py`` leave the sums over i to a library's matrix products, and so write Z (row
form) or G (column form) to memory and read it back; these kernels keep both in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import Launcher, Source, groups, largest_divisor, split, total

# A thread holds one sample and a block of F inputs of a row group, or of J outputs of a column
# group; F divides f_r and J divides f_c.  All threads of a block need the same weights and meet at
# the barriers, so those beyond the batch work on its last sample and keep the result to themselves.
PRODUCT = Source(
    r"""
#define STAGED 128     // inputs, or outputs, whose weights wait in shared memory
#define COLUMNS 64     // outputs of product_dW at a time
#define PARTS (THREADS / COLUMNS)
#define TILE 32        // samples of product_dW at a time

// A[j,b] = sum_r Q[r,c,b] (sum over i in r of W[i,j] H[i,b]); grid: (d_n / J, blocks of samples).
extern "C" __global__ void product_forward(
    const REAL* H, const REAL* W, const REAL* Q, REAL* A,
    int d_r, int f_r, int d_c, int f_c, wide B, int is_tile
) {
    __shared__ REAL w[STAGED * J];
    int c = blockIdx.x / (f_c / J), first = blockIdx.x % (f_c / J) * J, d_n = d_c * f_c;
    wide b = sample();
    bool is_mine = b < B;
    if (!is_mine) b = B - 1;
    REAL a[J], z[J];
    for (int t = 0; t < J; ++t) a[t] = z[t] = 0;
    int staged = 0;  // inputs of w still to be read
    for (int r = 0; r < d_r; ++r) {
        for (int l0 = 0; l0 < f_r; l0 += F) {
            if (staged == 0) {
                int n = r * f_r + l0, left = d_r * f_r - n;
                staged = left < STAGED / F * F ? left : STAGED / F * F;
                __syncthreads();
                for (int m = threadIdx.x; m < staged * J; m += blockDim.x) {
                    int i = member((n + m / J) / f_r, (n + m / J) % f_r, d_r, f_r, is_tile);
                    w[m] = W[(wide)i * d_n + member(c, first + m % J, d_c, f_c, is_tile)];
                }
                __syncthreads();
            }
            int read = (r * f_r + l0) % (STAGED / F * F) * J;
            for (int l = 0; l < F; ++l) {
                REAL h = H[(wide)member(r, l0 + l, d_r, f_r, is_tile) * B + b];
                for (int t = 0; t < J; ++t) z[t] += w[read + l * J + t] * h;
            }
            staged -= F;
        }
        REAL q = Q[(wide)(r * d_c + c) * B + b];
        for (int t = 0; t < J; ++t) {
            a[t] += q * z[t];
            z[t] = 0;
        }
    }
    if (is_mine)
        for (int t = 0; t < J; ++t) A[(wide)member(c, first + t, d_c, f_c, is_tile) * B + b] = a[t];
}

// With z_j = sum over i in r of W[i,j] H[i,b]: dQ[r,c,b] = sum_{j in c} z_j dA[j,b] and
// dH[i,b] = sum_j W[i,j] Q[r,c(j),b] dA[j,b]; grid: (d_r, blocks of samples).
extern "C" __global__ void product_dH_dQ(
    const REAL* dA, const REAL* H, const REAL* W, const REAL* Q, REAL* dH, REAL* dQ,
    int d_r, int f_r, int d_c, int f_c, wide B, int is_tile
) {
    __shared__ REAL w[STAGED * F];
    int r = blockIdx.x, d_n = d_c * f_c;
    wide b = sample();
    bool is_mine = b < B;
    if (!is_mine) b = B - 1;
    for (int l0 = 0; l0 < f_r; l0 += F) {
        REAL h[F], dh[F];
        for (int l = 0; l < F; ++l) {
            h[l] = H[(wide)member(r, l0 + l, d_r, f_r, is_tile) * B + b];
            dh[l] = 0;
        }
        for (int c = 0; c < d_c; ++c) {
            wide entry = (wide)(r * d_c + c) * B + b;
            REAL q = Q[entry], dq = 0;
            for (int t = 0; t < f_c; ++t) {
                int n = c * f_c + t;
                if (n % STAGED == 0) {
                    int count = d_n - n < STAGED ? d_n - n : STAGED;
                    __syncthreads();
                    for (int m = threadIdx.x; m < count * F; m += blockDim.x) {
                        int i = member(r, l0 + m % F, d_r, f_r, is_tile);
                        int j = member((n + m / F) / f_c, (n + m / F) % f_c, d_c, f_c, is_tile);
                        w[m] = W[(wide)i * d_n + j];
                    }
                    __syncthreads();
                }
                const REAL* mine = w + n % STAGED * F;
                REAL da = dA[(wide)member(c, t, d_c, f_c, is_tile) * B + b], z = 0, dz = q * da;
                for (int l = 0; l < F; ++l) {
                    z += mine[l] * h[l];
                    dh[l] += mine[l] * dz;
                }
                dq += z * da;
            }
            if (is_mine) dQ[entry] = l0 ? dQ[entry] + dq : dq;
        }
        if (is_mine)
            for (int l = 0; l < F; ++l)
                dH[(wide)member(r, l0 + l, d_r, f_r, is_tile) * B + b] = dh[l];
    }
}

// partial[chunk,i,j] = sum over the chunk of H[i,b] Q[r(i),c(j),b] dA[j,b] for F inputs of a row
// group; grid: (d_m / F, chunks).  A thread holds one output and every PARTS-th sample of a tile.
extern "C" __global__ void product_dW(
    const REAL* dA, const REAL* H, const REAL* Q, REAL* partial,
    int d_r, int f_r, int d_c, int f_c, wide B, wide chunk, int is_tile
) {
    __shared__ REAL dz[COLUMNS][TILE + 1], h[TILE][F], sums[PARTS][COLUMNS][F];
    int r = blockIdx.x / (f_r / F), l0 = blockIdx.x % (f_r / F) * F, d_n = d_c * f_c;
    int column = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    for (int first = 0; first < d_n; first += COLUMNS) {
        REAL sum[F];
        for (int l = 0; l < F; ++l) sum[l] = 0;
        for (wide at = start; at < stop; at += TILE) {
            __syncthreads();
            for (int m = threadIdx.x; m < COLUMNS * TILE; m += THREADS) {
                int j = first + m / TILE;
                wide b = at + m % TILE;
                REAL value = 0;
                if (j < d_n && b < stop) {
                    int c = group_of(j, d_c, f_c, is_tile);
                    value = Q[(wide)(r * d_c + c) * B + b] * dA[(wide)j * B + b];
                }
                dz[m / TILE][m % TILE] = value;
            }
            for (int m = threadIdx.x; m < TILE * F; m += THREADS) {
                wide b = at + m % TILE;
                int i = member(r, l0 + m / TILE, d_r, f_r, is_tile);
                h[m % TILE][m / TILE] = b < stop ? H[(wide)i * B + b] : (REAL)0;
            }
            __syncthreads();
            for (int s = part; s < TILE; s += PARTS)
                for (int l = 0; l < F; ++l) sum[l] += dz[column][s] * h[s][l];
        }
        __syncthreads();
        for (int l = 0; l < F; ++l) sums[part][column][l] = sum[l];
        __syncthreads();
        for (int m = threadIdx.x; m < COLUMNS * F; m += THREADS) {
            int j = first + m % COLUMNS, l = m / COLUMNS;
            REAL all = 0;
            for (int p = 0; p < PARTS; ++p) all += sums[p][m % COLUMNS][l];
            int i = member(r, l0 + l, d_r, f_r, is_tile);
            if (j < d_n) partial[((wide)blockIdx.y * d_r * f_r + i) * d_n + j] = all;
        }
    }
}
""",
    is_exact=False,
)
MOST_AT_ONCE = 8  # inputs or outputs of a thread
FEW_SAMPLES, FEW_THREADS = 8192, 64  # below so many samples, small blocks fill the device better
LEAST_CHUNK, MOST_CHUNK, MOST_CHUNKS = 128, 4096, 32  # samples that a block of product_dW adds up


def _plan(W: Array, Q: Array, mode: str) -> tuple[Source, tuple[int, int], tuple[Any, ...], int]:
    """Return the source, (F, J), the arguments that all kernels share and threads per block."""
    (d_r, d_c, n_samples), (d_m, d_n) = Q.shape, W.shape
    f_r, f_c = d_m // d_r, d_n // d_c
    F, J = largest_divisor(f_r, MOST_AT_ONCE), largest_divisor(f_c, MOST_AT_ONCE)
    widths: tuple[Any, ...] = tuple(map(np.int32, (d_r, f_r, d_c, f_c)))
    threads = FEW_THREADS if n_samples < FEW_SAMPLES else 2 * FEW_THREADS
    sizes = *widths, np.int64(n_samples), np.int32(mode == "tile")
    return PRODUCT.having(F=F, J=J), (F, J), sizes, threads


def _modulated_product_on_device(
    launch: Launcher, H: Array, W: Array, Q: Array, mode: str
) -> Array:
    H, W, Q = launch.inputs(H, W, Q)
    source, (_, J), sizes, threads = _plan(W, Q, mode)
    A = launch.empty(W.shape[1], H.shape[1])
    args = H, W, Q, A, *sizes
    launch.rows(source, "product_forward", W.shape[1] // J, H.shape[1], *args, most=threads)
    return A


@fused(_modulated_product_on_device, compiled="modulated")
def modulated_product(H: Array, W: Array, Q: Array, mode: str) -> Array:
    """A[j,b] = sum_i Q[r(i),c(j),b] W[i,j] H[i,b].

    Shapes
    ------
    H : (d_m, B)
    W : (d_m, d_n)
    Q : (d_r, d_c, B)
    A : (d_n, B)
    """
    _, V = _repeated(W, Q, mode)
    return get_xp(H=H).einsum("ijb,ib->jb", V, H)


def _repeated(W: Array, Q: Array, mode: str) -> tuple[Array, Array]:
    """Return S = psi(Q) and V = S * W, both (d_m, d_n, B)."""
    xp = get_xp(W=W, Q=Q)
    r = groups(W.shape[0], Q.shape[0], mode, xp)
    c = groups(W.shape[1], Q.shape[1], mode, xp)
    S = Q[r[:, None], c]
    return S, S * W[:, :, None]


def _modulated_product_backward_on_device(
    launch: Launcher, dA: Array, H: Array, W: Array, Q: Array, mode: str
) -> tuple[Array, Array, Array]:
    dA, H, W, Q = launch.inputs(dA, H, W, Q)
    source, (F, _), sizes, threads = _plan(W, Q, mode)
    (d_m, n_samples), d_r = H.shape, Q.shape[0]
    dH, dQ = launch.empty(*H.shape), launch.empty(*Q.shape)
    args = dA, H, W, Q, dH, dQ, *sizes
    launch.rows(source, "product_dH_dQ", d_r, n_samples, *args, most=threads)
    chunk = min(max(-(-n_samples // MOST_CHUNKS), LEAST_CHUNK), MOST_CHUNK)
    n_chunks = max(1, -(-n_samples // chunk))
    partial = launch.empty(n_chunks, W.size)
    args = dA, H, Q, partial, *sizes[:-1], np.int64(chunk), sizes[-1]
    launch.blocks(source, "product_dW", d_m // F, n_chunks, *args)
    dW = partial if n_chunks == 1 else total(launch, partial, 1.0)
    return dH, dW.reshape(W.shape), dQ


@fused(_modulated_product_backward_on_device, compiled="modulated")
def modulated_product_backward(
    dA: Array, H: Array, W: Array, Q: Array, mode: str
) -> tuple[Array, Array, Array]:
    """Return dH[i,b] = sum_j V dA, dW[i,j] = sum_b S H dA, and dQ, W H dA summed over the copies.

    S = psi(Q) and V = S * W, with indices i, j, b.  Shapes as in ``modulated_product``.
    """
    d_r, d_c = Q.shape[:2]
    S, V = _repeated(W, Q, mode)
    dV = H[:, None] * dA
    dH = get_xp(dA=dA).einsum("ijb,jb->ib", V, dA)
    dQ = split(split(dV * W[:, :, None], 1, d_c, mode), 0, d_r, mode).sum(axis=(1, 3))
    return dH, (dV * S).sum(axis=2), dQ
