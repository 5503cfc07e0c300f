"""The modulated product A_jb = sum_i S_ijb W_ij H_ib with S = psi(Q), which is never built.

Batch last: H (d_m, B), Q (d_r, d_c, B).  Input i belongs to row group r(i), output j to column
group c(j), by block or by tile (derivations 3.2, 3.5).  The grouped forms of
``layers/modulated.py`` leave the sums over i to a library's matrix products, and so write Z (row
form) or G (column form) to memory and read it back; these kernels keep both in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import (
    THREADS,
    Launcher,
    Source,
    groups,
    largest_divisor,
    split,
    total,
)

# A thread holds one sample and a block of F inputs of a row group, or of J outputs of a column
# group; F divides f_r and J divides f_c.  All threads of a block need the same weights and meet at
# the barriers, so those beyond the batch work on its last sample and keep the result to themselves.
PRODUCT = Source(
    r"""
#define STAGED 128  // inputs, or outputs, whose weights wait in shared memory

// A[j,b] = sum_r Q[r,c,b] (sum over i in r of W[i,j] H[i,b]); grid: (d_n / J, blocks of samples).
extern "C" __global__ void product_forward(
    const REAL* H, const REAL* W, const REAL* Q, REAL* A,
    int d_r, int f_r, int d_c, int f_c, wide B, int is_tile
) {
    __shared__ __align__(16) REAL w[STAGED * J];
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
    __shared__ __align__(16) REAL w[STAGED * F];
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

// partial[chunk,i,j] = sum over the chunk of H[i,b] Q[r(i),c(j),b] dA[j,b]; grid: (blocks of tiles,
// chunks).  A tile is F inputs of a row group by J outputs of a column group; a warp holds one, and
// each of its lanes every 32nd sample.
extern "C" __global__ void product_dW(
    const REAL* dA, const REAL* H, const REAL* Q, REAL* partial,
    int d_r, int f_r, int d_c, int f_c, wide B, wide chunk, int is_tile
) {
    int d_m = d_r * f_r, d_n = d_c * f_c, n_tiles = d_m / F * (d_n / J);
    int lane = threadIdx.x % 32, tile = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    bool is_mine = tile < n_tiles;
    if (!is_mine) tile = n_tiles - 1;
    int i = tile / (d_n / J) * F, j = tile % (d_n / J) * J, r = i / f_r, c = j / f_c;
    int i0 = member(r, i % f_r, d_r, f_r, is_tile), step_i = is_tile ? d_r : 1;
    int j0 = member(c, j % f_c, d_c, f_c, is_tile), step_j = is_tile ? d_c : 1;
    wide start = (wide)blockIdx.y * chunk, stop = start + chunk < B ? start + chunk : B;
    REAL sum[F][J];
    for (int l = 0; l < F; ++l)
        for (int t = 0; t < J; ++t) sum[l][t] = 0;
    for (wide b = start + lane; b < stop; b += 32) {
        REAL q = Q[(wide)(r * d_c + c) * B + b], dz[J];
        for (int t = 0; t < J; ++t) dz[t] = q * dA[(wide)(j0 + t * step_j) * B + b];
        for (int l = 0; l < F; ++l) {
            REAL h = H[(wide)(i0 + l * step_i) * B + b];
            for (int t = 0; t < J; ++t) sum[l][t] += h * dz[t];
        }
    }
    for (int l = 0; l < F; ++l)
        for (int t = 0; t < J; ++t) {
            REAL all = warp_sum(sum[l][t]);
            wide entry = (wide)(i0 + l * step_i) * d_n + j0 + t * step_j;
            if (is_mine && lane == 0) partial[(wide)blockIdx.y * d_m * d_n + entry] = all;
        }
}
""",
    is_exact=False,
)
MOST_AT_ONCE = 8  # inputs or outputs of a thread
FEW_SAMPLES, FEW_THREADS = 8192, 64  # below so many samples, small blocks fill the device better
LEAST_CHUNK, WARPS = 128, 16384  # samples that a warp of product_dW adds up, warps that are enough


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
    source, (F, J), sizes, threads = _plan(W, Q, mode)
    (d_r, _, n_samples), n_tiles = Q.shape, W.size // (F * J)
    dH, dQ = launch.empty(*H.shape), launch.empty(*Q.shape)
    args = dA, H, W, Q, dH, dQ, *sizes
    launch.rows(source, "product_dH_dQ", d_r, n_samples, *args, most=threads)
    chunk = max(-(-n_samples * n_tiles // (32 * WARPS)) * 32, LEAST_CHUNK)
    n_chunks = max(1, -(-n_samples // chunk))
    partial = launch.empty(n_chunks, W.size)
    args = dA, H, Q, partial, *sizes[:-1], np.int64(chunk), sizes[-1]
    launch.blocks(source, "product_dW", -(-32 * n_tiles // THREADS), n_chunks, *args)
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
