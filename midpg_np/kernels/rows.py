"""Rows of an embedding table, read and summed with the batch last; samples in another order.

Field f of sample b reads row ids[b,f] of a table (V, k); its embedding is the features f k to
(f + 1) k of that sample (derivations 2.1a, 2.1b).
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, gather_rows, get_xp, scatter_add_rows, segment_sum_rows
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import Launcher, Source

ROWS = Source(r"""
// E[f k + i, b] = table[ids[b,f], i]; grid: (F k, blocks of samples).
extern "C" __global__ void lookup(
    const REAL* table, const wide* ids, REAL* E, int F, int k, wide B
) {
    wide b = sample();
    if (b >= B) return;
    int f = blockIdx.x / k, i = blockIdx.x % k;
    E[(wide)blockIdx.x * B + b] = table[ids[b * F + f] * k + i];
}

// y[:,b] = x[:,partner[b]]; grid: (d, blocks of samples).
extern "C" __global__ void take_samples(const REAL* x, const wide* partner, REAL* y, wide B) {
    wide b = sample();
    if (b < B) y[(wide)blockIdx.x * B + b] = x[(wide)blockIdx.x * B + partner[b]];
}

// dx[:,partner[b]] += dy[:,b]; additions in any order.
extern "C" __global__ void give_samples(const REAL* dy, const wide* partner, REAL* dx, wide B) {
    wide b = sample();
    if (b < B) atomicAdd(dx + (wide)blockIdx.x * B + partner[b], dy[(wide)blockIdx.x * B + b]);
}
""")


def _lookup_on_device(launch: Launcher, table: Array, ids: Array) -> Array:
    table, ids = launch.inputs(table, ids)
    (n_samples, n_fields), k = ids.shape, table.shape[1]
    E = launch.empty(n_fields * k, n_samples)
    args = table, ids, E, np.int32(n_fields), np.int32(k), np.int64(n_samples)
    launch.rows(ROWS, "lookup", n_fields * k, n_samples, *args)
    return E


@fused(_lookup_on_device, compiled="rows")
def lookup(table: Array, ids: Array) -> Array:
    """E[f*k + i, b] = table[ids[b,f], i].

    Shapes
    ------
    table : (V, k)
    ids : (B, F)
    E : (F*k, B)
    """
    return gather_rows(table, ids).reshape(ids.shape[0], -1).T


@fused(None, compiled="rows")
def lookup_rows_backward(dE: Array, ids: Array) -> tuple[Array, Array]:
    """Return the distinct ids, ascending, and for each the sum of dE over its places (b, f).

    Shapes
    ------
    dE : (F*k, B)
    ids : (B, F)
    unique_ids : (M,)
    sums : (M, k)
    """
    k = dE.shape[0] // ids.shape[1]
    return segment_sum_rows(ids.reshape(-1), dE.T.reshape(-1, k))


@fused(None, compiled="rows")
def sum_by_id(ids: Array, rows: Array) -> tuple[Array, Array]:
    """Return the distinct ids, ascending, and for each the sum of its rows.

    Shapes
    ------
    ids : (N,)
    rows : (N, k)
    unique_ids : (M,)
    sums : (M, k)
    """
    return segment_sum_rows(ids, rows)


def _take_samples_on_device(launch: Launcher, x: Array, partner: Array) -> Array:
    x, partner = launch.inputs(x, partner)
    y = launch.empty(*x.shape)
    launch.rows(ROWS, "take_samples", *x.shape, x, partner, y, np.int64(x.shape[1]))
    return y


@fused(_take_samples_on_device, compiled="rows")
def take_samples(x: Array, partner: Array) -> Array:
    """y[:,b] = x[:,partner[b]].

    Shapes
    ------
    x, y : (d, B)
    partner : (B,)
    """
    return x[:, partner]


def _give_samples_on_device(launch: Launcher, dy: Array, partner: Array) -> Array:
    dy, partner = launch.inputs(dy, partner)
    dx = launch.xp.zeros(dy.shape, dtype=launch.dtype)
    launch.rows(ROWS, "give_samples", *dy.shape, dy, partner, dx, np.int64(dy.shape[1]))
    return dx


@fused(_give_samples_on_device, compiled="rows")
def give_samples(dy: Array, partner: Array) -> Array:
    """Return dx, the adjoint of ``take_samples``: dx[:,partner[b]] += dy[:,b].

    Shapes
    ------
    dx, dy : (d, B)
    partner : (B,)
    """
    dx = get_xp(dy=dy).zeros(dy.shape, dtype=dy.dtype)
    scatter_add_rows(dx.T, partner, dy.T)
    return dx
