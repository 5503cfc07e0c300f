"""Several affine maps of one input, evaluated by one product."""

from __future__ import annotations

from typing import Any, NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.ops import (
    Activation,
    AffineCache,
    add_to,
    biased,
    biased_backward,
    product,
    product_backward,
    sum_rows,
)


class AffineSetCache(NamedTuple):
    """Input H (B, I) and kernels W (N, I, O)."""

    H: Array
    W: Array


def affine_set(H: Array, W: Array, b: Array) -> tuple[Array, AffineSetCache]:
    """N affine maps of one input: Y_b,n = H_b W_n + b_n (derivations 10.1b).

    The kernels side by side are one matrix (I, N O), so the set is one product.

    Backward (derivations 10.3k, for each n): dW_n = H^T dY_n, db_n = colsum(dY_n),
    dH = sum_n dY_n W_n^T.

    Shapes
    ------
    H : (B, I)
    W : (N, I, O)
    b : (N, O)
    Y : (B, N, O)
    """
    get_xp(H=H, W=W, b=b)
    Y = add_to(product(H, _side_by_side(W)), b.reshape(-1))
    return Y.reshape(H.shape[0], *b.shape), AffineSetCache(H, W)


def affine_set_backward(dY: Array, cache: AffineSetCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db`` (derivations 10.3k)."""
    d_side_by_side = dY.reshape(dY.shape[0], -1)
    dH, dW = _product_backward(d_side_by_side, cache)
    return dH, dW, sum_rows(d_side_by_side).reshape(dY.shape[1:])


def activated_set(
    H: Array, W: Array, b: Array, activation: Activation
) -> tuple[Array, Array, tuple[AffineSetCache, Any]]:
    """Return A = ``affine_set``, Y = act(A), both (B, N, O), and the cache of both steps.

    See derivations 10.1b.
    """
    P = product(H, _side_by_side(W))
    A, Y, c_activation = biased(P, b.reshape(-1), activation)
    shape = H.shape[0], *b.shape
    return A.reshape(shape), Y.reshape(shape), (AffineSetCache(H, W), c_activation)


def activated_set_backward(
    dY: Array, cache: tuple[AffineSetCache, Any], activation: Activation
) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db``; dY is a fresh array that nobody else reads (derivations 10.3k)."""
    c_set, c_activation = cache
    dA, db = biased_backward(dY.reshape(dY.shape[0], -1), c_activation, activation)
    return *_product_backward(dA, c_set), db.reshape(dY.shape[1:])


def _product_backward(d_side_by_side: Array, cache: AffineSetCache) -> tuple[Array, Array]:
    """Return ``dH, dW``, given the adjoints of all maps side by side, (B, N O)."""
    H, W = cache
    dH, d_joined = product_backward(d_side_by_side, AffineCache(H, _side_by_side(W)))
    return dH, d_joined.reshape(H.shape[1], W.shape[0], W.shape[2]).swapaxes(0, 1)


def _side_by_side(W: Array) -> Array:
    """(N, I, O) -> (I, N O)."""
    return W.swapaxes(0, 1).reshape(W.shape[1], -1)
