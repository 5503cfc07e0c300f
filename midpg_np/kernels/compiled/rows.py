"""Rows of tables and samples in another order as loops; functions as in ``kernels.rows``."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, sorted_positions
from midpg_np.kernels.compiled.loops import exact_loops
from midpg_np.kernels.dispatch import empty

SIDE = 64  # samples of a block: its columns, and its rows of a table, stay in the cache


def lookup(table: Array, ids: Array) -> Array:
    """As ``kernels.lookup``."""
    n_samples, n_fields = ids.shape
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):  # loops do not look
        raise IndexError(f"ids must lie in [0, {len(table)}); got {ids.min()} to {ids.max()}.")
    E = empty(np, (n_fields * table.shape[1], n_samples), table.dtype)
    _lookup(_wide_rows(table), table.shape[1], np.ascontiguousarray(ids), E)
    return E


def _wide_rows(table: Array) -> Array:
    """Return the table, or as rows what lies from the beginning of one of its rows to the next.

    So a table whose rows lie apart (``training.row_moments``) is read where it is.
    """
    apart, number = table.strides
    if table.flags.c_contiguous or number != table.itemsize or apart % number or apart <= 0:
        return np.ascontiguousarray(table)
    return np.lib.stride_tricks.as_strided(table, (len(table), apart // number), writeable=False)


def lookup_rows_backward(dE: Array, ids: Array) -> tuple[Array, Array]:
    """As ``kernels.lookup_rows_backward``."""
    n_samples, n_fields = ids.shape
    rows = empty(np, (n_fields, n_samples, dE.shape[0] // n_fields), dE.dtype)
    _rows_of(np.ascontiguousarray(dE), rows)
    return sum_by_id(ids.T.reshape(-1), rows.reshape(ids.size, -1))


def sum_by_id(ids: Array, rows: Array) -> tuple[Array, Array]:
    """As ``kernels.sum_by_id``."""
    rows = np.ascontiguousarray(rows)
    sorted_ids, order = sorted_positions(ids)
    unique_ids, sums = np.empty_like(sorted_ids), empty(np, rows.shape, rows.dtype)
    n_distinct = _sum_segments(sorted_ids, order, rows, unique_ids, sums)
    return unique_ids[:n_distinct], sums[:n_distinct]


def take_samples(x: Array, partner: Array) -> Array:
    """As ``kernels.take_samples``."""
    x = np.ascontiguousarray(x)
    y = empty(np, x.shape, x.dtype)
    _take(x, partner, y)
    return y


def give_samples(dy: Array, partner: Array) -> Array:
    """As ``kernels.give_samples``."""
    dy = np.ascontiguousarray(dy)
    dx = empty(np, dy.shape, dy.dtype)
    _give(dy, partner, dx)
    return dx


@exact_loops
def _lookup(table, k, ids, E):
    for start in range(0, ids.shape[0], SIDE):
        stop = min(start + SIDE, ids.shape[0])
        for f in range(ids.shape[1]):
            for b in range(start, stop):
                row = table[ids[b, f]]
                for i in range(k):
                    E[f * k + i, b] = row[i]


@exact_loops
def _rows_of(dE, rows):
    """rows[f, b, i] = dE[f k + i, b]: field by field, so that memory is written in its order."""
    n_fields, n_samples, k = rows.shape
    for f in range(n_fields):
        for b in range(n_samples):
            for i in range(k):
                rows[f, b, i] = dE[f * k + i, b]


@exact_loops
def _sum_segments(sorted_ids, order, rows, unique_ids, sums):
    """Add the rows of equal ids in the order in which they stand; return how many ids there are."""
    m = -1
    for n in range(order.size):
        row = rows[order[n]]
        if n == 0 or sorted_ids[n] != sorted_ids[n - 1]:
            m += 1
            unique_ids[m] = sorted_ids[n]
            for i in range(row.size):
                sums[m, i] = row[i]
        else:
            for i in range(row.size):
                sums[m, i] += row[i]
    return m + 1


@exact_loops
def _take(x, partner, y):
    for j in range(x.shape[0]):
        for b in range(partner.size):
            y[j, b] = x[j, partner[b]]


@exact_loops
def _give(dy, partner, dx):
    dx[:] = 0.0
    for j in range(dy.shape[0]):
        for b in range(partner.size):
            dx[j, partner[b]] += dy[j, b]
