"""The modulated product A_bj = sum_i S_b,ij W_ij H_bi, in three forms with one signature.

``textbook`` builds S and S * W and multiplies, line for line equations.md 3.2 and 3.4: the oracle
and the lesson.  ``row`` and ``column`` never build a (B, d_m, d_n) array (equations.md 3.5): all
inputs of a row group meet the same core row, so they can be multiplied with W first and weighted
after (``row``); all outputs of a column group meet the same core column, so the inputs can be
weighted first and multiplied after (``column``).  Both need as many multiplications as a plain
layer plus d_r * d_n, or d_c * d_m, for the weighting; ``grouped`` takes the cheaper one.
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
    """H in row groups (d_r, B, f_r), W (d_r, f_r, d_n), Q (d_r, B, d_c), Z (d_r, B, d_c, f_c)."""

    H: Array
    W: Array
    Q: Array
    Z: Array
    mode: str


def row_grouped(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, RowCache]:
    """Multiply within each row group, Z_b,r,j = sum_{i in r} H_bi W_ij, then weight with Q.

    A_bj = sum_r Q_b,r,c(j) Z_b,r,j.  Memory d_r * d_n per sample.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    xp = get_xp(H=H, W=W, Q=Q)
    d_r, d_c = Q.shape[1:]
    H_r = split_axis(H, 1, d_r, mode).swapaxes(0, 1)  # (d_r, B, f_r)
    W_r = split_axis(W, 0, d_r, mode)  # (d_r, f_r, d_n)
    Q_r = Q.swapaxes(0, 1)  # (d_r, B, d_c)
    Z = split_axis(H_r @ W_r, 2, d_c, mode)  # (d_r, B, d_c, f_c)
    A = merge_axis(xp.einsum("rbc,rbcj->bcj", Q_r, Z), 1, mode)
    return A, RowCache(H_r, W_r, Q_r, Z, mode)


def row_grouped_backward(dA: Array, cache: RowCache) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ``."""
    H_r, W_r, Q_r, Z, mode = cache
    dA_c = split_axis(dA, 1, Q_r.shape[2], mode)  # (B, d_c, f_c)
    dQ = get_xp(dA=dA, Z=Z).einsum("rbcj,bcj->brc", Z, dA_c)
    dZ = merge_axis(Q_r[..., None] * dA_c, 2, mode)  # (d_r, B, d_n)
    dW = merge_axis(H_r.swapaxes(1, 2) @ dZ, 0, mode)
    dH = merge_axis((dZ @ W_r.swapaxes(1, 2)).swapaxes(0, 1), 1, mode)
    return dH, dW, dQ


class ColumnCache(NamedTuple):
    """H (B, d_r, f_r), W in column groups (d_c, d_m, f_c), Q (d_c, B, d_r), G (d_c, B, d_m)."""

    H: Array
    W: Array
    Q: Array
    G: Array
    mode: str


def column_grouped(H: Array, W: Array, Q: Array, mode: str) -> tuple[Array, ColumnCache]:
    """Weight the inputs once per column group, G_b,c,i = Q_b,r(i),c H_bi, then multiply with W.

    A_bj = sum_i G_b,c(j),i W_ij.  Memory d_c * d_m per sample.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    get_xp(H=H, W=W, Q=Q)
    d_r, d_c = Q.shape[1:]
    H_r = split_axis(H, 1, d_r, mode)  # (B, d_r, f_r)
    W_c = split_axis(W, 1, d_c, mode).swapaxes(0, 1)  # (d_c, d_m, f_c)
    Q_c = Q.transpose(2, 0, 1)  # (d_c, B, d_r)
    G = merge_axis(Q_c[..., None] * H_r, 2, mode)  # (d_c, B, d_m)
    A = merge_axis((G @ W_c).swapaxes(0, 1), 1, mode)
    return A, ColumnCache(H_r, W_c, Q_c, G, mode)


def column_grouped_backward(dA: Array, cache: ColumnCache) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ``."""
    H_r, W_c, Q_c, G, mode = cache
    xp = get_xp(dA=dA, G=G)
    d_c, _, d_r = Q_c.shape
    dA_c = split_axis(dA, 1, d_c, mode).swapaxes(0, 1)  # (d_c, B, f_c)
    dW = merge_axis((G.swapaxes(1, 2) @ dA_c).swapaxes(0, 1), 1, mode)
    dG = split_axis(dA_c @ W_c.swapaxes(1, 2), 2, d_r, mode)  # (d_c, B, d_r, f_r)
    dQ = xp.einsum("cbri,bri->brc", dG, H_r)
    dH = merge_axis(xp.einsum("cbri,cbr->bri", dG, Q_c), 1, mode)
    return dH, dW, dQ


FORMS: dict[str, Pair] = {
    "textbook": Pair(textbook, textbook_backward),
    "row": Pair(row_grouped, row_grouped_backward),
    "column": Pair(column_grouped, column_grouped_backward),
}


def cheaper_form(d_m: int, d_n: int, d_r: int, d_c: int) -> str:
    """Return "row" or "column", whichever weights fewer numbers per sample."""
    return "row" if d_r * d_n <= d_c * d_m else "column"
