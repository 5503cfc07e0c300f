"""The low-rank map A_b = U S_b V H_b with a core S_b per row, in two forms with one signature.

``textbook`` builds the weights U S_b V of every row and multiplies, as the definition reads: the
oracle and the lesson.  ``grouped`` never does: it sends the rows through V, then each through its
own small core, then through U, which costs K (I + K + O) multiplications per row in place of
K O (I + K) + I O.

Rows lie in H, so what the definition writes S_b q_b with a column q_b is Q_b S_b^T for the row
Q_b: entry i of the result meets row i of S_b.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp, matmul
from midpg_np.ops import Pair

# (dH, dU, dV, dS)
LowRankAdjoints = tuple[Array, Array, Array, Array]


class ThinCache(NamedTuple):
    """Inputs, and between them Q = H V^T and R_b = S_b Q_b, both (B, K)."""

    H: Array
    U: Array
    V: Array
    S: Array
    Q: Array
    R: Array


def low_rank(H: Array, U: Array, V: Array, S: Array) -> tuple[Array, ThinCache]:
    """Q = H V^T, R_b = S_b Q_b, A = R U^T (derivations 9.1b).

    Backward (derivations 9.3b, 9.3c, 9.3d), from the output to the input: dR = dA U, dU = dA^T R,
    dS_b = dR_b Q_b^T, dQ_b = S_b^T dR_b, dH = dQ V, dV = dQ^T H.

    Shapes
    ------
    H : (B, I)
    U : (O, K)
    V : (K, I)
    S : (B, K, K)
    A : (B, O)
    """
    get_xp(H=H, U=U, V=V, S=S)
    Q = matmul(H, V.T)
    R = _row_products(S, Q)
    return matmul(R, U.T), ThinCache(H, U, V, S, Q, R)


def low_rank_backward(dA: Array, cache: ThinCache) -> LowRankAdjoints:
    """Return ``dH, dU, dV, dS`` (derivations 9.3b, 9.3c, 9.3d)."""
    H, U, V, S, Q, R = cache
    dR, dU = matmul(dA, U), matmul(dA.T, R)
    dQ, dS = _row_products_backward(dR, S, Q)
    return matmul(dQ, V), dU, matmul(dQ.T, H), dS


def _row_products(S: Array, Q: Array) -> Array:
    """R_b = S_b Q_b, as a product that a CUDA graph can hold where there is a GPU."""
    xp = get_xp(S=S, Q=Q)
    if xp is np:
        return xp.einsum("bij,bj->bi", S, Q)
    return matmul(S, Q[:, :, None])[:, :, 0]


def _row_products_backward(dR: Array, S: Array, Q: Array) -> tuple[Array, Array]:
    """Return dQ_b = S_b^T dR_b and dS_b = dR_b Q_b^T."""
    xp = get_xp(dR=dR, S=S, Q=Q)
    if xp is np:
        return xp.einsum("bij,bi->bj", S, dR), xp.einsum("bi,bj->bij", dR, Q)
    return matmul(dR[:, None, :], S)[:, 0], dR[:, :, None] * Q[:, None, :]


class RowWeightsCache(NamedTuple):
    """Inputs, and of each row U S_b (B, O, K) and its weights T_b = U S_b V (B, O, I)."""

    H: Array
    U: Array
    V: Array
    S: Array
    US: Array
    T: Array


def row_weights(H: Array, U: Array, V: Array, S: Array) -> tuple[Array, RowWeightsCache]:
    """Textbook form of ``low_rank``: T_b = U S_b V, then A_b = T_b H_b (derivations 9.1a).

    Shapes
    ------
    H : (B, I)
    U : (O, K)
    V : (K, I)
    S : (B, K, K)
    A : (B, O)
    """
    US = U @ S
    T = US @ V
    return get_xp(H=H, T=T).einsum("boi,bi->bo", T, H), RowWeightsCache(H, U, V, S, US, T)


def row_weights_backward(dA: Array, cache: RowWeightsCache) -> LowRankAdjoints:
    """Return ``dH, dU, dV, dS`` (derivations 9.3h)."""
    H, U, V, S, US, T = cache
    xp = get_xp(dA=dA, T=T)
    dT = xp.einsum("bo,bi->boi", dA, H)
    dH = xp.einsum("boi,bo->bi", T, dA)
    dUS = dT @ V.T
    dV = (US.swapaxes(1, 2) @ dT).sum(axis=0)
    dU = (dUS @ S.swapaxes(1, 2)).sum(axis=0)
    return dH, dU, dV, U.T @ dUS


LOW_RANK_FORMS: dict[str, Pair] = {
    "grouped": Pair(low_rank, low_rank_backward),
    "textbook": Pair(row_weights, row_weights_backward),
}


class FactorsCache(NamedTuple):
    """The two factors of a matrix that is multiplied out."""

    left: Array
    right: Array


def multiply_out(left: Array, right: Array) -> tuple[Array, FactorsCache]:
    """U = U_left U_right: an over-parameterised matrix, formed once per batch (derivations 9.1c).

    Backward (derivations 9.3e): d_left = dU right^T, d_right = left^T dU.

    Shapes
    ------
    left : (O, P)
    right : (P, K)
    U : (O, K)
    """
    get_xp(left=left, right=right)
    return matmul(left, right), FactorsCache(left, right)


def multiply_out_backward(dU: Array, cache: FactorsCache) -> tuple[Array, Array]:
    """Return ``d_left, d_right`` (derivations 9.3e)."""
    return matmul(dU, cache.right.T), matmul(cache.left.T, dU)
