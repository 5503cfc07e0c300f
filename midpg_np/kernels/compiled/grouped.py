"""Products by group as loops, where they are narrow; functions as in ``kernels.grouped``.

A product with few columns is done before BLAS has begun, and there is one for each group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops
from midpg_np.kernels.dispatch import empty

NARROW = 4  # columns


def product_by_group(H: Array, W: Array, bounds: tuple[int, ...]) -> Array:
    """As ``kernels.product_by_group``."""
    if W.shape[2] > NARROW:
        return _array_form(kernels.product_by_group)(H, W, bounds)
    A = empty(np, (H.shape[0], W.shape[2]), H.dtype)
    _product(np.ascontiguousarray(H), _columns(W), np.array(bounds), A)
    return A


def product_by_group_backward(
    dA: Array, H: Array, W: Array, bounds: tuple[int, ...]
) -> tuple[Array, Array]:
    """As ``kernels.product_by_group_backward``."""
    if W.shape[2] > NARROW:
        return _array_form(kernels.product_by_group_backward)(dA, H, W, bounds)
    columns = _columns(W)
    dH, d_columns = empty(np, H.shape, H.dtype), empty(np, columns.shape, W.dtype)
    given = np.ascontiguousarray(dA), np.ascontiguousarray(H), columns
    _product_backward(*given, np.array(bounds), dH, d_columns)
    return dH, d_columns.swapaxes(1, 2)


def _array_form(kernel: Any) -> Any:
    return kernel.__wrapped__


def _columns(W: Array) -> Array:
    """(M, I, O) -> (M, O, I), each column of a matrix contiguous."""
    return np.ascontiguousarray(W.swapaxes(1, 2))


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
