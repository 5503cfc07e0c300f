"""Affine map whose weights are, row by row, a sum of basis maps: the code holds the coefficients.

Two forms.  *textbook* forms the weights of every row, (B, I, O), as the definition reads.
*contracted* sends all rows through all basis maps in one product and sums the results with the
code: the same multiplications, but the largest array is (B, R, O).
"""

from __future__ import annotations

from typing import NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.layers.affine_set import AffineSetCache, affine_set, affine_set_backward
from midpg_np.ops import Pair


class ContractedCache(NamedTuple):
    """Coefficients u (B, R), and what each basis map makes of each row, T (B, R, O)."""

    maps: AffineSetCache
    u: Array
    T: Array


def contracted(H: Array, W: Array, b: Array, u: Array) -> tuple[Array, ContractedCache]:
    """A_b = sum_r u_b,r (H_b W_r + b_r), by T_b,r = H_b W_r + b_r first (derivations 10.3e).

    Backward (derivations 10.3f): dT_b,r = u_b,r dA_b and du_b,r = <T_b,r, dA_b>, then the adjoints
    of R affine maps of one input.

    Shapes
    ------
    H : (B, I)
    W : (R, I, O)
    b : (R, O)
    u : (B, R)
    A : (B, O)
    """
    T, maps = affine_set(H, W, b)
    return kernels.mix(u, T), ContractedCache(maps, u, T)


def contracted_backward(dA: Array, cache: ContractedCache) -> tuple[Array, Array, Array, Array]:
    """Return ``dH, dW, db, du`` (derivations 10.3f)."""
    maps, u, T = cache
    du, dT = kernels.mix_backward(dA, u, T)
    return *affine_set_backward(dT, maps), du


class TextbookCache(NamedTuple):
    """Inputs H, W, b and u, and the weights of each row, W_row (B, I, O)."""

    H: Array
    W: Array
    b: Array
    u: Array
    W_row: Array


def textbook(H: Array, W: Array, b: Array, u: Array) -> tuple[Array, TextbookCache]:
    """A_b = H_b (sum_r u_b,r W_r) + sum_r u_b,r b_r (derivations 10.3e).

    Shapes
    ------
    H : (B, I)
    W : (R, I, O)
    b : (R, O)
    u : (B, R)
    A : (B, O)
    """
    xp = get_xp(H=H, W=W, b=b, u=u)
    W_row = xp.einsum("br,rio->bio", u, W)
    A = xp.einsum("bi,bio->bo", H, W_row) + u @ b
    return A, TextbookCache(H, W, b, u, W_row)


def textbook_backward(dA: Array, cache: TextbookCache) -> tuple[Array, Array, Array, Array]:
    """Return ``dH, dW, db, du`` (derivations 10.3f)."""
    H, W, b, u, W_row = cache
    xp = get_xp(dA=dA, H=H)
    dW_row = H[:, :, None] * dA[:, None, :]
    dH = xp.einsum("bo,bio->bi", dA, W_row)
    dW = xp.einsum("br,bio->rio", u, dW_row)
    du = xp.einsum("bio,rio->br", dW_row, W) + dA @ b.T
    return dH, dW, u.T @ dA, du


CODE_FORMS: dict[str, Pair] = {
    "contracted": Pair(contracted, contracted_backward),
    "textbook": Pair(textbook, textbook_backward),
}
