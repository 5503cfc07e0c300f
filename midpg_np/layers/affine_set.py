"""Several affine maps of one input, evaluated by one product."""

from __future__ import annotations

from typing import NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.ops import add_to, sum_rows


class AffineSetCache(NamedTuple):
    """Input H (B, I) and kernels W (N, I, O)."""

    H: Array
    W: Array


def affine_set(H: Array, W: Array, b: Array) -> tuple[Array, AffineSetCache]:
    """N affine maps of one input: Y_b,n = H_b W_n + b_n.

    The kernels side by side are one matrix (I, N O), so the set is one product.

    Backward (equations.md 2.2, for each n): dW_n = H^T dY_n, db_n = colsum(dY_n),
    dH = sum_n dY_n W_n^T.

    Shapes
    ------
    H : (B, I)
    W : (N, I, O)
    b : (N, O)
    Y : (B, N, O)
    """
    get_xp(H=H, W=W, b=b)
    Y = add_to(H @ _side_by_side(W), b.reshape(-1))
    return Y.reshape(H.shape[0], *b.shape), AffineSetCache(H, W)


def affine_set_backward(dY: Array, cache: AffineSetCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db``."""
    H, W = cache
    d_side_by_side = dY.reshape(H.shape[0], -1)
    dH = d_side_by_side @ _side_by_side(W).T
    dW = (H.T @ d_side_by_side).reshape(H.shape[1], *dY.shape[1:]).swapaxes(0, 1)
    return dH, dW, sum_rows(d_side_by_side).reshape(dY.shape[1:])


def _side_by_side(W: Array) -> Array:
    """(N, I, O) -> (I, N O)."""
    return W.swapaxes(0, 1).reshape(W.shape[1], -1)
