"""Weighting with the core: S * W as a whole, and the row- and column-grouped forms without S.

Batch last: Q (d_r, d_c, B).  Input i belongs to row group r(i), output j to column group c(j), by
block or by tile (equations.md 3.2, 3.5).
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.launch import Launcher, fused, groups, split

WEIGHTING = r"""
// V[i,j,b] = Q[r(i),c(j),b] W[i,j]; grid: (d_m d_n, blocks of samples).
extern "C" __global__ void scaled_weights(
    const REAL* Q, const REAL* W, REAL* V,
    int d_r, int d_c, int d_m, int d_n, wide B, int is_tile
) {
    wide b = sample();
    if (b >= B) return;
    int i = blockIdx.x / d_n, j = blockIdx.x % d_n;
    int r = group_of(i, d_r, d_m / d_r, is_tile), c = group_of(j, d_c, d_n / d_c, is_tile);
    V[(wide)blockIdx.x * B + b] = Q[(wide)(r * d_c + c) * B + b] * W[blockIdx.x];
}

// dQ[r,c,b] = sum over the copies (i, j) of entry (r, c) of dV[i,j,b] W[i,j]; grid: (d_r d_c, ..).
extern "C" __global__ void scaled_weights_dQ(
    const REAL* dV, const REAL* W, REAL* dQ,
    int d_r, int d_c, int d_m, int d_n, wide B, int is_tile
) {
    wide b = sample();
    if (b >= B) return;
    int r = blockIdx.x / d_c, c = blockIdx.x % d_c, f_r = d_m / d_r, f_c = d_n / d_c;
    REAL sum = 0;
    for (int l = 0; l < f_r; ++l) {
        int i = member(r, l, d_r, f_r, is_tile);
        for (int t = 0; t < f_c; ++t) {
            int ij = i * d_n + member(c, t, d_c, f_c, is_tile);
            sum += dV[(wide)ij * B + b] * W[ij];
        }
    }
    dQ[(wide)blockIdx.x * B + b] = sum;
}

// dW[i,j] = sum_b dV[i,j,b] Q[r(i),c(j),b]; one block for each entry.
extern "C" __global__ void scaled_weights_dW(
    const REAL* dV, const REAL* Q, REAL* dW,
    int d_r, int d_c, int d_m, int d_n, wide B, int is_tile
) {
    int i = blockIdx.x / d_n, j = blockIdx.x % d_n;
    int r = group_of(i, d_r, d_m / d_r, is_tile), c = group_of(j, d_c, d_n / d_c, is_tile);
    const REAL *mine = dV + (wide)blockIdx.x * B, *weight = Q + (wide)(r * d_c + c) * B;
    REAL sum = 0;
    for (wide b = threadIdx.x; b < B; b += blockDim.x) sum += mine[b] * weight[b];
    sum = block_sum(sum);
    if (threadIdx.x == 0) dW[blockIdx.x] = sum;
}

// A[j,b] = sum_r Q[r,c(j),b] Z[r,j,b]; grid: (d_n, blocks of samples).
extern "C" __global__ void weighted_sum(
    const REAL* Q, const REAL* Z, REAL* A, int d_r, int d_c, int d_n, wide B, int is_tile
) {
    wide b = sample();
    if (b >= B) return;
    int j = blockIdx.x, c = group_of(j, d_c, d_n / d_c, is_tile);
    REAL sum = 0;
    for (int r = 0; r < d_r; ++r)
        sum += Q[(wide)(r * d_c + c) * B + b] * Z[(wide)(r * d_n + j) * B + b];
    A[(wide)j * B + b] = sum;
}

// dQ[r,c,b] = sum_{j in c} Z[r,j,b] dA[j,b] and dZ[r,j,b] = Q[r,c(j),b] dA[j,b] in one pass over Z.
extern "C" __global__ void weighted_sum_backward(
    const REAL* dA, const REAL* Q, const REAL* Z, REAL* dQ, REAL* dZ,
    int d_r, int d_c, int d_n, wide B, int is_tile
) {
    wide b = sample();
    if (b >= B) return;
    int r = blockIdx.x / d_c, c = blockIdx.x % d_c, f_c = d_n / d_c;
    wide entry = (wide)blockIdx.x * B + b;
    REAL q = Q[entry], sum = 0;
    for (int t = 0; t < f_c; ++t) {
        int j = member(c, t, d_c, f_c, is_tile);
        wide z = (wide)(r * d_n + j) * B + b;
        REAL da = dA[(wide)j * B + b];
        sum += Z[z] * da;
        dZ[z] = q * da;
    }
    dQ[entry] = sum;
}

// G[c,i,b] = Q[r(i),c,b] H[i,b]; grid: (d_c d_m, blocks of samples).
extern "C" __global__ void weighted_inputs(
    const REAL* Q, const REAL* H, REAL* G, int d_r, int d_c, int d_m, wide B, int is_tile
) {
    wide b = sample();
    if (b >= B) return;
    int c = blockIdx.x / d_m, i = blockIdx.x % d_m;
    int r = group_of(i, d_r, d_m / d_r, is_tile);
    G[(wide)blockIdx.x * B + b] = Q[(wide)(r * d_c + c) * B + b] * H[(wide)i * B + b];
}

// dQ[r,c,b] = sum_{i in r} dG[c,i,b] H[i,b] in the first d_r d_c rows of the grid,
// dH[i,b] = sum_c dG[c,i,b] Q[r(i),c,b] in the d_m rows after.
extern "C" __global__ void weighted_inputs_backward(
    const REAL* dG, const REAL* Q, const REAL* H, REAL* dQ, REAL* dH,
    int d_r, int d_c, int d_m, wide B, int is_tile
) {
    wide b = sample();
    if (b >= B) return;
    int row = blockIdx.x, f_r = d_m / d_r;
    REAL sum = 0;
    if (row < d_r * d_c) {
        int r = row / d_c, c = row % d_c;
        for (int l = 0; l < f_r; ++l) {
            int i = member(r, l, d_r, f_r, is_tile);
            sum += dG[(wide)(c * d_m + i) * B + b] * H[(wide)i * B + b];
        }
        dQ[(wide)row * B + b] = sum;
    } else {
        int i = row - d_r * d_c, r = group_of(i, d_r, f_r, is_tile);
        for (int c = 0; c < d_c; ++c)
            sum += dG[(wide)(c * d_m + i) * B + b] * Q[(wide)(r * d_c + c) * B + b];
        dH[(wide)i * B + b] = sum;
    }
}
"""


def _sizes(n_samples: int, mode: str, *widths: int) -> tuple[np.generic, ...]:
    return *map(np.int32, widths), np.int64(n_samples), np.int32(mode == "tile")


def _scaled_weights_on_device(launch: Launcher, Q: Array, W: Array, mode: str) -> Array:
    Q, W = launch.inputs(Q, W)
    (d_r, d_c, n_samples), (d_m, d_n) = Q.shape, W.shape
    V = launch.empty(d_m, d_n, n_samples)
    sizes = _sizes(n_samples, mode, d_r, d_c, d_m, d_n)
    launch.rows(WEIGHTING, "scaled_weights", d_m * d_n, n_samples, Q, W, V, *sizes)
    return V


@fused(_scaled_weights_on_device)
def scaled_weights(Q: Array, W: Array, mode: str) -> Array:
    """V[i,j,b] = S[i,j,b] W[i,j] with S = psi(Q); S itself is not stored.

    Shapes
    ------
    Q : (d_r, d_c, B)
    W : (d_m, d_n)
    V : (d_m, d_n, B)
    """
    xp = get_xp(Q=Q, W=W)
    r = groups(W.shape[0], Q.shape[0], mode, xp)
    c = groups(W.shape[1], Q.shape[1], mode, xp)
    return Q[r[:, None], c] * W[:, :, None]


def _scaled_weights_backward_on_device(
    launch: Launcher, dV: Array, Q: Array, W: Array, mode: str
) -> tuple[Array, Array]:
    dV, Q, W = launch.inputs(dV, Q, W)
    (d_r, d_c, n_samples), (d_m, d_n) = Q.shape, W.shape
    dQ, dW = launch.empty(*Q.shape), launch.empty(*W.shape)
    sizes = _sizes(n_samples, mode, d_r, d_c, d_m, d_n)
    launch.rows(WEIGHTING, "scaled_weights_dQ", d_r * d_c, n_samples, dV, W, dQ, *sizes)
    launch.blocks(WEIGHTING, "scaled_weights_dW", d_m * d_n, 1, dV, Q, dW, *sizes)
    return dQ, dW


@fused(_scaled_weights_backward_on_device)
def scaled_weights_backward(dV: Array, Q: Array, W: Array, mode: str) -> tuple[Array, Array]:
    """Return dQ, the sum of dV * W over the copies of each entry, and dW = sum_b dV * S."""
    xp = get_xp(dV=dV, Q=Q, W=W)
    (d_r, d_c, _), (d_m, d_n) = Q.shape, W.shape
    r, c = groups(d_m, d_r, mode, xp), groups(d_n, d_c, mode, xp)
    dW = (dV * Q[r[:, None], c]).sum(axis=2)
    dQ = split(split(dV * W[:, :, None], 1, d_c, mode), 0, d_r, mode).sum(axis=(1, 3))
    return dQ, dW


def _weighted_sum_on_device(launch: Launcher, Q: Array, Z: Array, mode: str) -> Array:
    Q, Z = launch.inputs(Q, Z)
    (d_r, d_c, n_samples), d_n = Q.shape, Z.shape[1]
    A = launch.empty(d_n, n_samples)
    sizes = _sizes(n_samples, mode, d_r, d_c, d_n)
    launch.rows(WEIGHTING, "weighted_sum", d_n, n_samples, Q, Z, A, *sizes)
    return A


@fused(_weighted_sum_on_device)
def weighted_sum(Q: Array, Z: Array, mode: str) -> Array:
    """A[j,b] = sum_r Q[r,c(j),b] Z[r,j,b]: the end of the row-grouped form.

    Shapes
    ------
    Q : (d_r, d_c, B)
    Z : (d_r, d_n, B)
    A : (d_n, B)
    """
    c = groups(Z.shape[1], Q.shape[1], mode, get_xp(Q=Q, Z=Z))
    return (Q[:, c] * Z).sum(axis=0)


def _weighted_sum_backward_on_device(
    launch: Launcher, dA: Array, Q: Array, Z: Array, mode: str
) -> tuple[Array, Array]:
    dA, Q, Z = launch.inputs(dA, Q, Z)
    (d_r, d_c, n_samples), d_n = Q.shape, Z.shape[1]
    dQ, dZ = launch.empty(*Q.shape), launch.empty(*Z.shape)
    sizes = _sizes(n_samples, mode, d_r, d_c, d_n)
    args = dA, Q, Z, dQ, dZ, *sizes
    launch.rows(WEIGHTING, "weighted_sum_backward", d_r * d_c, n_samples, *args)
    return dQ, dZ


@fused(_weighted_sum_backward_on_device)
def weighted_sum_backward(dA: Array, Q: Array, Z: Array, mode: str) -> tuple[Array, Array]:
    """Return dQ[r,c,b] = sum_{j in c} Z[r,j,b] dA[j,b] and dZ[r,j,b] = Q[r,c(j),b] dA[j,b]."""
    c = groups(Z.shape[1], Q.shape[1], mode, get_xp(dA=dA, Q=Q, Z=Z))
    dQ = split(Z * dA, 1, Q.shape[1], mode).sum(axis=2)
    return dQ, Q[:, c] * dA


def _weighted_inputs_on_device(launch: Launcher, Q: Array, H: Array, mode: str) -> Array:
    Q, H = launch.inputs(Q, H)
    (d_r, d_c, n_samples), d_m = Q.shape, H.shape[0]
    G = launch.empty(d_c, d_m, n_samples)
    sizes = _sizes(n_samples, mode, d_r, d_c, d_m)
    launch.rows(WEIGHTING, "weighted_inputs", d_c * d_m, n_samples, Q, H, G, *sizes)
    return G


@fused(_weighted_inputs_on_device)
def weighted_inputs(Q: Array, H: Array, mode: str) -> Array:
    """G[c,i,b] = Q[r(i),c,b] H[i,b]: the beginning of the column-grouped form.

    Shapes
    ------
    Q : (d_r, d_c, B)
    H : (d_m, B)
    G : (d_c, d_m, B)
    """
    r = groups(H.shape[0], Q.shape[0], mode, get_xp(Q=Q, H=H))
    return Q[r].swapaxes(0, 1) * H


def _weighted_inputs_backward_on_device(
    launch: Launcher, dG: Array, Q: Array, H: Array, mode: str
) -> tuple[Array, Array]:
    dG, Q, H = launch.inputs(dG, Q, H)
    (d_r, d_c, n_samples), d_m = Q.shape, H.shape[0]
    dQ, dH = launch.empty(*Q.shape), launch.empty(*H.shape)
    args = dG, Q, H, dQ, dH, *_sizes(n_samples, mode, d_r, d_c, d_m)
    launch.rows(WEIGHTING, "weighted_inputs_backward", d_r * d_c + d_m, n_samples, *args)
    return dQ, dH


@fused(_weighted_inputs_backward_on_device)
def weighted_inputs_backward(dG: Array, Q: Array, H: Array, mode: str) -> tuple[Array, Array]:
    """Return dQ[r,c,b] = sum_{i in r} dG[c,i,b] H[i,b], dH[i,b] = sum_c dG[c,i,b] Q[r(i),c,b]."""
    d_r = Q.shape[0]
    r = groups(H.shape[0], d_r, mode, get_xp(dG=dG, Q=Q, H=H))
    dQ = split(dG * H, 1, d_r, mode).sum(axis=2).swapaxes(0, 1)
    dH = (dG * Q[r].swapaxes(0, 1)).sum(axis=0)
    return dQ, dH
