"""The modulated product A_bj = sum_i S_b,ij W_ij H_bi, in three forms with one signature.

``textbook`` builds S and S * W and multiplies, line for line equations.md 3.2 and 3.4: the oracle
and the lesson.  ``row`` and ``column`` never build a (B, d_m, d_n) array (equations.md 3.5): all
inputs of a row group meet the same core row, so they can be multiplied with W first and weighted
after (``row``); all outputs of a column group meet the same core column, so the inputs can be
weighted first and multiplied after (``column``).  Both need as many multiplications as a plain
layer plus d_r * d_n, or d_c * d_m, for the weighting; ``grouped`` takes the cheaper one.

The two store the batch along the last axis, where weighting with Q is a long contiguous row per
group: five times faster than with the features last (docs/decisions/0006-batch-last.md).
"""

from __future__ import annotations

from typing import NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.layers.repeat import merge_axis, repeat, repeat_backward, split_axis
from midpg_np.ops import Pair

# (dH, dW, dQ)
ModulatedAdjoints = tuple[Array, Array, Array]


class TextbookCache(NamedTuple):
    """H (B, d_m), W (d_m, d_n), S and V = S * W, both (B, d_m, d_n)."""

    H: Array
    W: Array
    S: Array
    V: Array
    d_r: int
    d_c: int
    mode: str


def textbook(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, TextbookCache]:
    """Build S = psi(Q) and V = S * W, then A_b = H_b V_b.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    xp = get_xp(H=H, W=W, Q=Q)
    d_m, d_n = W.shape
    _, d_r, d_c = Q.shape
    S = repeat(Q, d_m, d_n, mode)
    V = S * W
    A = xp.einsum("bi,bij->bj", H, V)
    return A, TextbookCache(H, W, S, V, d_r, d_c, mode)


def textbook_backward(dA: Array, cache: TextbookCache) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ``: one line back for one line forth."""
    H, W, S, V, d_r, d_c, mode = cache
    dV = H[:, :, None] * dA[:, None, :]
    dH = get_xp(dA=dA, V=V).einsum("bij,bj->bi", V, dA)
    dS = dV * W
    dW = (dV * S).sum(axis=0)
    dQ = repeat_backward(dS, d_r, d_c, mode)
    return dH, dW, dQ


class RowCache(NamedTuple):
    """H (d_r, f_r, B), W (d_r, f_r, d_n), Q (d_r, d_c, B), Z (d_r, d_c, f_c, B)."""

    H: Array
    W: Array
    Q: Array
    Z: Array
    mode: str


def row_grouped(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, RowCache]:
    """Multiply within each row group, Z_r,j,b = sum_{i in r} W_ij H_bi, then weight with Q.

    A_bj = sum_r Q_b,r,c(j) Z_r,j,b.  Memory d_r * d_n per sample.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    xp = get_xp(H=H, W=W, Q=Q)
    d_r, d_c = Q.shape[1:]
    H_r = split_axis(H.T, 0, d_r, mode)
    W_r = split_axis(W, 0, d_r, mode)
    Q_r = Q.transpose(1, 2, 0)
    Z = split_axis(W_r.swapaxes(1, 2) @ H_r, 1, d_c, mode)
    A = xp.einsum("rcb,rcjb->cjb", Q_r, Z)
    return merge_axis(A, 0, mode).T, RowCache(H_r, W_r, Q_r, Z, mode)


def row_grouped_backward(dA: Array, cache: RowCache) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ``."""
    H_r, W_r, Q_r, Z, mode = cache
    dA_c = split_axis(dA.T, 0, Q_r.shape[1], mode)  # (d_c, f_c, B)
    dQ = get_xp(dA=dA, Z=Z).einsum("rcjb,cjb->rcb", Z, dA_c)
    dZ = merge_axis(Q_r[:, :, None] * dA_c, 1, mode)  # (d_r, d_n, B)
    dW = merge_axis(H_r @ dZ.swapaxes(1, 2), 0, mode)
    dH = merge_axis(W_r @ dZ, 0, mode)
    return dH.T, dW, dQ.transpose(2, 0, 1)


class ColumnCache(NamedTuple):
    """H (d_r, f_r, B), W (d_c, f_c, d_m), Q (d_c, d_r, B), G (d_c, d_m, B)."""

    H: Array
    W: Array
    Q: Array
    G: Array
    mode: str


def column_grouped(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, ColumnCache]:
    """Weight the inputs once per column group, G_c,i,b = Q_b,r(i),c H_bi, then multiply with W.

    A_bj = sum_i W_ij G_c(j),i,b.  Memory d_c * d_m per sample.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    get_xp(H=H, W=W, Q=Q)
    d_r, d_c = Q.shape[1:]
    H_r = split_axis(H.T, 0, d_r, mode)
    W_c = split_axis(W.T, 0, d_c, mode)
    Q_c = Q.transpose(2, 1, 0)
    G = merge_axis(Q_c[:, :, None] * H_r, 1, mode)
    A = merge_axis(W_c @ G, 0, mode)
    return A.T, ColumnCache(H_r, W_c, Q_c, G, mode)


def column_grouped_backward(dA: Array, cache: ColumnCache) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ``."""
    H_r, W_c, Q_c, G, mode = cache
    xp = get_xp(dA=dA, G=G)
    d_c, d_r = Q_c.shape[:2]
    dA_c = split_axis(dA.T, 0, d_c, mode)  # (d_c, f_c, B)
    dW = merge_axis(dA_c @ G.swapaxes(1, 2), 0, mode).T
    dG = split_axis(W_c.swapaxes(1, 2) @ dA_c, 1, d_r, mode)  # (d_c, d_r, f_r, B)
    dQ = xp.einsum("crib,rib->crb", dG, H_r).transpose(2, 1, 0)
    dH = merge_axis(xp.einsum("crib,crb->rib", dG, Q_c), 0, mode)
    return dH.T, dW, dQ


FORMS: dict[str, Pair] = {
    "textbook": Pair(textbook, textbook_backward),
    "row": Pair(row_grouped, row_grouped_backward),
    "column": Pair(column_grouped, column_grouped_backward),
}


def cheaper_form(d_m: int, d_n: int, d_r: int, d_c: int) -> str:
    """Return "row" or "column", whichever weights fewer numbers per sample."""
    return "row" if d_r * d_n <= d_c * d_m else "column"
