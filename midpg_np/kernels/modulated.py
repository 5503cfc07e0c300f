"""The modulated product with kernels: the row- and column-grouped forms of ``layers/modulated.py``.

A_bj = sum_i S_b,ij W_ij H_bi (equations.md 3.2, 3.5).  One batched matrix product and one kernel
each way; the matrix products are the library's (cuBLAS on a GPU).  Logical shapes have the batch
first, as everywhere; arrays that are stored with the batch last are read without a copy.
"""

from __future__ import annotations

from typing import NamedTuple

from midpg_np.backend import Array
from midpg_np.kernels.launch import split
from midpg_np.kernels.weighting import (
    weighted_inputs,
    weighted_inputs_backward,
    weighted_sum,
    weighted_sum_backward,
)


class ProductCache(NamedTuple):
    """H and W in groups, Q with the batch last, and Z (row form) or G (column form)."""

    H: Array
    W: Array
    Q: Array
    inner: Array
    mode: str


def row_product(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, ProductCache]:
    """Z_r,j,b = sum_{i in r} W_ij H_bi, then A_bj = sum_r Q_b,r,c(j) Z_r,j,b.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    d_r = Q.shape[1]
    H_r, W_r = split(H.T, 0, d_r, mode), split(W, 0, d_r, mode)
    Q_r = Q.transpose(1, 2, 0)
    Z = W_r.swapaxes(1, 2) @ H_r
    return weighted_sum(Q_r, Z, mode).T, ProductCache(H_r, W_r, Q_r, Z, mode)


def row_product_backward(dA: Array, cache: ProductCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, dQ``."""
    H_r, W_r, Q_r, Z, mode = cache
    dQ, dZ = weighted_sum_backward(dA.T, Q_r, Z, mode)
    dW = _merge(H_r @ dZ.swapaxes(1, 2), mode)
    return _merge(W_r @ dZ, mode).T, dW, dQ.transpose(2, 0, 1)


def column_product(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, ProductCache]:
    """G_c,i,b = Q_b,r(i),c H_bi, then A_bj = sum_i W_ij G_c(j),i,b.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    W_c = split(W.T, 0, Q.shape[2], mode)
    Q_r = Q.transpose(1, 2, 0)
    G = weighted_inputs(Q_r, H.T, mode)
    return _merge(W_c @ G, mode).T, ProductCache(H.T, W_c, Q_r, G, mode)


def column_product_backward(dA: Array, cache: ProductCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, dQ``."""
    H_l, W_c, Q_r, G, mode = cache
    dA_c = split(dA.T, 0, len(W_c), mode)
    dW = _merge(dA_c @ G.swapaxes(1, 2), mode).T
    dQ, dH = weighted_inputs_backward(W_c.swapaxes(1, 2) @ dA_c, Q_r, H_l, mode)
    return dH.T, dW, dQ.transpose(2, 0, 1)


def _merge(x: Array, mode: str) -> Array:
    """Join groups and members, the first two axes: the inverse of ``split``."""
    x = x.swapaxes(0, 1) if mode == "tile" else x
    return x.reshape(-1, *x.shape[2:])
