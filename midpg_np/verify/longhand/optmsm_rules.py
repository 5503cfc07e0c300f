"""Rules of the shared set, its orthogonality loss and a generated tower (derivations 10.3)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from midpg_np.ops import softmax, softmax_backward
from midpg_np.verify.longhand.calculation import Rule

SET_OF_MAPS = Rule(
    lambda E, A, a: np.einsum("bi,kiq->bkq", E, A) + a,
    lambda dG, _, E, A, a: (
        np.einsum("bkq,kiq->bi", dG, A),
        np.einsum("bi,bkq->kiq", E, dG),
        dG.sum(axis=0),
    ),
)
"""g_b,k = E_b A_k + a_k; E is read by every map and gets the sum over k."""

SOFTMAX = Rule(lambda alpha: softmax(alpha)[0], lambda dw, w, _: (softmax_backward(dw, w),))
"""w = softmax(alpha); d_alpha = w (dw - <w, dw>) row by row (derivations 2.4)."""


def one_hot(n: int) -> Rule:
    """One at the scenario and zero elsewhere, (B, n): integers, which have no adjoint."""
    return Rule(lambda scenario: np.eye(n, dtype=int)[scenario], lambda dw, _, scenario: (None,))


MIX = Rule(
    lambda w, G: np.einsum("bk,bkq->bq", w, G),
    lambda dm, _, w, G: (
        np.einsum("bq,bkq->bk", dm, G),
        np.einsum("bk,bq->bkq", w, dm),
    ),
)
"""m_b = sum_k w_b,k g_b,k (derivations 2.4)."""


def norm(eps: float) -> Rule:
    """nu = sqrt(<g, g> + eps) along the last axis, which stays; dg = g / nu d_nu."""

    def forward(G: Any) -> Any:
        return np.sqrt((G * G).sum(axis=-1, keepdims=True) + eps)

    return Rule(forward, lambda d_nu, nu, G: (d_nu * G / nu,))


DIVIDE = Rule(
    lambda G, nu: G / nu,
    lambda dy, y, G, nu: (dy / nu, -(dy * y).sum(axis=-1, keepdims=True) / nu),
)
"""g_hat = g / nu; with the adjoint of ``norm`` dg is (dg_hat - g_hat <g_hat, dg_hat>) / nu."""


def off_diagonal(n: int) -> Any:
    """Return ones off the diagonal of an (n, n) matrix, and zeros on it."""
    return 1.0 - np.eye(n, dtype=np.float32)


OFF_DIAGONAL_PRODUCTS = Rule(
    lambda G: np.einsum("bjq,bkq->bjk", G, G) * off_diagonal(G.shape[1]),
    lambda dO, _, G: (
        np.einsum("bjk,bkq->bjq", (dO + dO.swapaxes(1, 2)) * off_diagonal(G.shape[1]), G),
    ),
)
"""O_jk = <g_j, g_k> for j != k; g_j stands in row j and in column j."""


def n_pairs(n: int) -> int:
    """D (D - 1); a single embedding has no pair, its loss is 0 and not 0 / 0."""
    return max(n * (n - 1), 1)


def n_terms(products: Any) -> int:
    """B D (D - 1), the entries of O off its diagonals."""
    return len(products) * n_pairs(products.shape[1])


PAIR_MEAN = Rule(
    lambda products: np.asarray((products * products).sum() / n_terms(products)),
    lambda dy, _, products: (2.0 * dy * products / n_terms(products),),
)
"""1 / (B D (D - 1)) sum over b of |O_b|^2."""


def _join_backward(dy: Any, _: Any, *parts: Any) -> tuple[Any, ...]:
    stops = np.cumsum([part.size for part in parts])[:-1]
    return tuple(d.reshape(p.shape) for d, p in zip(np.split(dy, stops), parts, strict=True))


JOIN = Rule(lambda *parts: np.concatenate([p.reshape(-1) for p in parts]), _join_backward)
"""All entries of several arrays, row by row, one after the other in one vector."""


def cut(start: int, *shape: int) -> Rule:
    """Read an array of a shape from each row of theta, from an offset on."""
    stop = start + prod(shape)

    def backward(dy: Any, _: Any, theta: Any) -> tuple[Any, ...]:
        d_theta = np.zeros_like(theta)
        d_theta[:, start:stop] = dy.reshape(len(theta), -1)
        return (d_theta,)

    return Rule(lambda theta: theta[:, start:stop].reshape(len(theta), *shape), backward)


ROW_AFFINE = Rule(
    lambda H, W, b: np.einsum("bi,bio->bo", H, W) + b,
    lambda dA, _, H, W, b: (
        np.einsum("bo,bio->bi", dA, W),
        np.einsum("bi,bo->bio", H, dA),
        dA,
    ),
)
"""A_b = H_b W_b + b_b, with a map per row."""
