"""The modulated product A_bj = sum_i S_b,ij W_ij H_bi, in four forms with one signature.

``textbook`` builds S and S * W and multiplies, line for line derivations 3.2 and 3.4: the oracle
and the lesson.  ``row`` and ``column`` never build a (B, d_m, d_n) array (derivations 3.5): all
inputs of a row group meet the same core row, so they can be multiplied with W first and weighted
after (``row``); all outputs of a column group meet the same core column, so the inputs can be
weighted first and multiplied after (``column``).  Both need as many multiplications as a plain
layer plus d_r * d_n, or d_c * d_m, for the weighting; ``grouped`` takes the cheaper one.

How the two are made fast (docs/decisions/0006-batch-last.md): the batch lies last in memory and
the groups right before it, so that weighting runs over d_c * B numbers in a row; and a few groups
are done at a time, so that their Z or G stays in the cache.  The backward pass makes Z and G again:
that costs less than to fetch them from memory.  ``fused`` leaves the whole product to kernels, on
a GPU or compiled for a CPU, which need neither Z nor G.
"""

from __future__ import annotations

from typing import NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.layers.repeat import merge_axis, repeat, repeat_backward, split_axis
from midpg_np.ops import Pair
from midpg_np.workspace import Workspace, common_dtype, einsum_into, empty, groups_at_once, slices

# (dH, dW, dQ)
ModulatedAdjoints = tuple[Array, Array, Array]


def _members_first(
    x: Array, axis: int, n_groups: int, mode: str, workspace: Workspace | None = None
) -> Array:
    """Reorder an axis from (group, member) to (member, group), joined; tile order is that already.

    One core row then weighs each of the f_c stretches of d_c * B numbers.
    """
    if mode == "tile":
        return x
    return _joined(split_axis(x, axis, n_groups, mode).swapaxes(axis, axis + 1), axis, workspace)


def _members_back(
    x: Array, axis: int, n_groups: int, mode: str, workspace: Workspace | None = None
) -> Array:
    """Inverse of ``_members_first``."""
    if mode == "tile":
        return x
    n_members = x.shape[axis] // n_groups
    return _joined(split_axis(x, axis, n_members, mode).swapaxes(axis, axis + 1), axis, workspace)


def _joined(x: Array, axis: int, workspace: Workspace | None) -> Array:
    copy = empty(get_xp(x), x.shape, x.dtype, workspace)
    copy[...] = x
    return merge_axis(copy, axis, "block")


class TextbookCache(NamedTuple):
    """H (B, d_m), W (d_m, d_n), S and V = S * W, both (B, d_m, d_n)."""

    H: Array
    W: Array
    S: Array
    V: Array
    d_r: int
    d_c: int
    mode: str


def textbook(
    H: Array, W: Array, Q: Array, mode: str, workspace: Workspace | None = None
) -> tuple[Array, TextbookCache]:
    """Build S = psi(Q) and V = S * W, then A_b = H_b V_b; a workspace is not used.

    See derivations 3.2f, 3.8a.

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


def textbook_backward(
    dA: Array, cache: TextbookCache, workspace: Workspace | None = None
) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ``: one line back for one line forth (derivations 3.4c, 3.4d, 3.4e)."""
    H, W, S, V, d_r, d_c, mode = cache
    dV = H[:, :, None] * dA[:, None, :]
    dH = get_xp(dA=dA, V=V).einsum("bij,bj->bi", V, dA)
    dS = dV * W
    dW = (dV * S).sum(axis=0)
    dQ = repeat_backward(dS, d_r, d_c, mode)
    return dH, dW, dQ


class RowCache(NamedTuple):
    """H (d_r, f_r, B), W (d_r, f_r, d_n) with columns members first, Q (d_r, d_c * B)."""

    H: Array
    W: Array
    Q: Array
    d_c: int
    mode: str


def row_grouped(
    H: Array, W: Array, Q: Array, mode: str, workspace: Workspace | None = None
) -> tuple[Array, RowCache]:
    """Multiply within each row group, Z_r,j,b = sum_{i in r} W_ij H_bi, then weight with Q.

    See derivations 3.5a.

    A_bj = sum_r Q_b,r,c(j) Z_r,j,b.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    xp, dtype = get_xp(H=H, W=W, Q=Q), common_dtype(H, W, Q)
    (n_rows, d_r, d_c), d_n = Q.shape, W.shape[1]
    H_r = split_axis(H.T, 0, d_r, mode)
    W_r = split_axis(_members_first(W, 1, d_c, mode), 0, d_r, mode)
    Q_r = Q.transpose(1, 2, 0).reshape(d_r, d_c * n_rows)
    size = groups_at_once(xp, d_r, d_n * n_rows * dtype.itemsize)
    Z = empty(xp, (size, d_n, n_rows), dtype, workspace)
    A, A_chunk = (empty(xp, (d_n // d_c, d_c * n_rows), dtype, workspace) for _ in range(2))
    for r in slices(d_r, size):
        Z_r = xp.matmul(W_r[r].swapaxes(1, 2), H_r[r], out=Z[: r.stop - r.start])
        Z_c = Z_r.reshape(len(Z_r), *A.shape)
        einsum_into(xp, "rx,rjx->jx", Q_r[r], Z_c, out=A_chunk if r.start else A)
        if r.start:
            A += A_chunk
    A = _members_back(A.reshape(d_n, n_rows), 0, d_c, mode, workspace)
    return A.T, RowCache(H_r, W_r, Q_r, d_c, mode)


def row_grouped_backward(
    dA: Array, cache: RowCache, workspace: Workspace | None = None
) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ`` (derivations 3.5b)."""
    H_r, W_r, Q_r, d_c, mode = cache
    xp, dtype = get_xp(dA=dA, Q=Q_r), dA.dtype
    (d_r, _, n_rows), d_n = H_r.shape, W_r.shape[2]
    dA_c = _members_first(dA.T, 0, d_c, mode, workspace).reshape(-1, d_c * n_rows)
    dH = empty(xp, H_r.shape, dtype, workspace)
    dW = empty(xp, W_r.shape, dtype, workspace)
    dQ = empty(xp, Q_r.shape, dtype, workspace)
    size = groups_at_once(xp, d_r, d_n * n_rows * dtype.itemsize)
    Z = empty(xp, (size, d_n, n_rows), dtype, workspace)
    for r in slices(d_r, size):
        Z_r = xp.matmul(W_r[r].swapaxes(1, 2), H_r[r], out=Z[: r.stop - r.start])
        Z_c = Z_r.reshape(len(Z_r), *dA_c.shape)
        einsum_into(xp, "rjx,jx->rx", Z_c, dA_c, out=dQ[r])
        dZ = xp.multiply(Q_r[r][:, None], dA_c, out=Z_c).reshape(Z_r.shape)
        xp.matmul(H_r[r], dZ.swapaxes(1, 2), out=dW[r])
        xp.matmul(W_r[r], dZ, out=dH[r])
    dQ = dQ.reshape(d_r, d_c, n_rows).transpose(2, 0, 1)
    dW = _members_back(merge_axis(dW, 0, mode), 1, d_c, mode)
    return merge_axis(dH, 0, mode).T, dW, dQ


class ColumnCache(NamedTuple):
    """H (d_m, B) and W (d_c, d_m, f_c) with inputs members first, Q (d_c, d_r * B)."""

    H: Array
    W: Array
    Q: Array
    d_r: int
    mode: str


def column_grouped(
    H: Array, W: Array, Q: Array, mode: str, workspace: Workspace | None = None
) -> tuple[Array, ColumnCache]:
    """Weight the inputs once per column group, G_c,i,b = Q_b,r(i),c H_bi, then multiply with W.

    See derivations 3.5c.

    A_bj = sum_i W_ij G_c(j),i,b.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    xp, dtype = get_xp(H=H, W=W, Q=Q), common_dtype(H, W, Q)
    (n_rows, d_r, d_c), (d_m, d_n) = Q.shape, W.shape
    H_r = _members_first(H.T, 0, d_r, mode, workspace)
    W_c = split_axis(_members_first(W, 0, d_r, mode), 1, d_c, mode).swapaxes(0, 1)
    Q_c = Q.transpose(2, 1, 0).reshape(d_c, d_r * n_rows)
    size = groups_at_once(xp, d_c, d_m * n_rows * dtype.itemsize)
    G = empty(xp, (size, d_m // d_r, d_r * n_rows), dtype, workspace)
    A = empty(xp, (d_c, d_n // d_c, n_rows), dtype, workspace)
    for c in slices(d_c, size):
        G_c = xp.multiply(Q_c[c][:, None], H_r.reshape(G.shape[1:]), out=G[: c.stop - c.start])
        xp.matmul(W_c[c].swapaxes(1, 2), G_c.reshape(len(G_c), d_m, n_rows), out=A[c])
    return merge_axis(A, 0, mode).T, ColumnCache(H_r, W_c, Q_c, d_r, mode)


def column_grouped_backward(
    dA: Array, cache: ColumnCache, workspace: Workspace | None = None
) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ`` (derivations 3.5d)."""
    H_r, W_c, Q_c, d_r, mode = cache
    xp, dtype = get_xp(dA=dA, Q=Q_c), dA.dtype
    (d_m, n_rows), d_c = H_r.shape, len(Q_c)
    dA_c = split_axis(dA.T, 0, d_c, mode)  # (d_c, f_c, B)
    H_r = H_r.reshape(d_m // d_r, d_r * n_rows)
    dH, dH_chunk = (empty(xp, H_r.shape, dtype, workspace) for _ in range(2))
    dW = empty(xp, W_c.shape, dtype, workspace)
    dQ = empty(xp, Q_c.shape, dtype, workspace)
    size = groups_at_once(xp, d_c, d_m * n_rows * dtype.itemsize)
    G = empty(xp, (size, *H_r.shape), dtype, workspace)
    for c in slices(d_c, size):
        G_c = xp.multiply(Q_c[c][:, None], H_r, out=G[: c.stop - c.start])
        as_product = (len(G_c), d_m, n_rows)
        xp.matmul(G_c.reshape(as_product), dA_c[c].swapaxes(1, 2), out=dW[c])
        dG = xp.matmul(W_c[c], dA_c[c], out=G_c.reshape(as_product)).reshape(G_c.shape)
        einsum_into(xp, "cix,ix->cx", dG, H_r, out=dQ[c])
        einsum_into(xp, "cix,cx->ix", dG, Q_c[c], out=dH_chunk if c.start else dH)
        if c.start:
            dH += dH_chunk
    dH = _members_back(dH.reshape(d_m, n_rows), 0, d_r, mode, workspace)
    dW = _members_back(merge_axis(dW.swapaxes(0, 1), 1, mode), 0, d_r, mode)
    return dH.T, dW, dQ.reshape(d_c, d_r, n_rows).transpose(2, 1, 0)


class FusedCache(NamedTuple):
    """H (d_m, B), W (d_m, d_n), Q (d_r, d_c, B)."""

    H: Array
    W: Array
    Q: Array
    mode: str


def fused(
    H: Array, W: Array, Q: Array, mode: str, workspace: Workspace | None = None
) -> tuple[Array, FusedCache]:
    """By kernels, which keep Z or G in registers; for arrays that ``kernels.fuses`` accepts.

    See derivations 3.5a, 3.5c.

    Shapes
    ------
    H : (B, d_m)
    W : (d_m, d_n)
    Q : (B, d_r, d_c)
    A : (B, d_n)
    """
    cache = FusedCache(H.T, W, Q.transpose(1, 2, 0), mode)
    return kernels.modulated_product(*cache).T, cache


def fused_backward(
    dA: Array, cache: FusedCache, workspace: Workspace | None = None
) -> ModulatedAdjoints:
    """Return ``dH, dW, dQ`` (derivations 3.5b, 3.5d)."""
    dH, dW, dQ = kernels.modulated_product_backward(dA.T, *cache)
    return dH.T, dW, dQ.transpose(2, 0, 1)


FORMS: dict[str, Pair] = {
    "textbook": Pair(textbook, textbook_backward),
    "row": Pair(row_grouped, row_grouped_backward),
    "column": Pair(column_grouped, column_grouped_backward),
    "fused": Pair(fused, fused_backward),
}


def cheaper_form(d_m: int, d_n: int, d_r: int, d_c: int) -> str:
    """Return "row" or "column", whichever weights fewer numbers per sample."""
    return "row" if d_r * d_n <= d_c * d_m else "column"
