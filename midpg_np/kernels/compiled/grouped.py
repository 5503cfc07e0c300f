"""Products by group as loops, where they are narrow; functions as in ``kernels.grouped``.

A product with few columns is done before BLAS has begun, and there is one for each group.
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels import grouped
from midpg_np.kernels.compiled.loops import fast_loops
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run

NARROW = 4  # columns


def product_by_group(H: Array, W: Array, bounds: Array) -> Array:
    """As ``kernels.product_by_group``."""
    A = empty(np, (H.shape[0], W.shape[2]), H.dtype)
    if W.shape[2] <= NARROW:
        run(_product, contiguous(H), _columns(W), bounds, A)
    else:
        run(grouped.multiply_groups, np, H, W, bounds, A)
    return A


def product_by_group_backward(dA: Array, H: Array, W: Array, bounds: Array) -> tuple[Array, Array]:
    """As ``kernels.product_by_group_backward``."""
    dH = empty(np, H.shape, H.dtype)
    if W.shape[2] > NARROW:
        dW = empty(np, W.shape, W.dtype)
        run(grouped.multiply_groups_backward, np, dA, H, W, bounds, dH, dW)
        return dH, dW
    columns = _columns(W)
    d_columns = empty(np, columns.shape, W.dtype)
    run(_product_backward, contiguous(dA), contiguous(H), columns, bounds, dH, d_columns)
    return dH, d_columns.swapaxes(1, 2)


def sum_by_group(x: Array, bounds: Array) -> Array:
    """As ``kernels.sum_by_group``."""
    y = empty(np, (len(bounds) - 1, x.shape[1]), x.dtype)
    run(_sum, contiguous(x), bounds, y)
    return y


def _columns(W: Array) -> Array:
    """(M, I, O) -> (M, O, I), each column of a matrix contiguous."""
    return contiguous(W.swapaxes(1, 2))


@fast_loops
def _product(H, columns, bounds, A):
    for m in range(columns.shape[0]):
        for b in range(bounds[m], bounds[m + 1]):
            for o in range(columns.shape[1]):
                dot = H.dtype.type(0.0)
                for i in range(H.shape[1]):
                    dot += H[b, i] * columns[m, o, i]
                A[b, o] = dot


@fast_loops
def _product_backward(dA, H, columns, bounds, dH, d_columns):
    n_inputs = H.shape[1]
    for m in range(columns.shape[0]):
        d_columns[m] = 0.0
        for b in range(bounds[m], bounds[m + 1]):
            for i in range(n_inputs):
                dH[b, i] = 0.0
            for o in range(columns.shape[1]):
                column, d_column, d = columns[m, o], d_columns[m, o], dA[b, o]
                for i in range(n_inputs):
                    dH[b, i] += d * column[i]
                    d_column[i] += d * H[b, i]


@fast_loops
def _sum(x, bounds, y):
    for m in range(y.shape[0]):
        for i in range(y.shape[1]):
            y[m, i] = 0.0
        for b in range(bounds[m], bounds[m + 1]):
            for i in range(y.shape[1]):
                y[m, i] += x[b, i]
