"""Rules of a dynamically weighted layer: S and S * W are built (derivations 3.2, 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand.calculation import Rule


def repeat(d_m: int, d_n: int, mode: str) -> Rule:
    """S = psi(Q): copy a core (B, d_r, d_c) to the shape (B, d_m, d_n) of W.

    Block: S_ij = Q at (i // f_r, j // f_c).  Tile: S_ij = Q at (i mod d_r, j mod d_c).  Written as
    a product with zeros and ones, S = R Q C^T, its adjoint is R^T dS C: the sum over the copies.
    """

    def forward(Q: Any) -> Any:
        R, C = copies(d_m, Q.shape[1], mode), copies(d_n, Q.shape[2], mode)
        return R @ Q @ C.T

    def backward(dS: Any, _: Any, Q: Any) -> tuple[Any, ...]:
        R, C = copies(d_m, Q.shape[1], mode), copies(d_n, Q.shape[2], mode)
        return (R.T @ dS @ C,)

    return Rule(forward, backward)


def copies(n: int, d: int, mode: str) -> np.ndarray:
    """Return the matrix (n, d) with a one where place i of the large axis copies place r."""
    source = np.arange(n) // (n // d) if mode == "block" else np.arange(n) % d
    return (source[:, None] == np.arange(d)).astype(np.float32)


def _weighted_product(subscripts: str) -> Rule:
    """A_bj = sum_i (S*W)_bij H_bi; adjoints H_bi dA_bj and sum_j (S*W)_bij dA_bj."""
    matrix, vector = subscripts.split("->")[0].split(",")
    out = subscripts.split("->")[1]
    return Rule(
        lambda SW, H: np.einsum(subscripts, SW, H),
        lambda dA, _, SW, H: (
            np.einsum(f"{vector},{out}->{matrix}", H, dA),
            np.einsum(f"{matrix},{out}->{vector}", SW, dA),
        ),
    )


PRODUCTS = {"in_out": _weighted_product("bij,bi->bj"), "out_in": _weighted_product("bji,bi->bj")}


def mean_over_inputs(w_layout: str) -> Rule:
    """Mean of S over the inputs of the layer, (B, d_out): what weighs a modulated bias."""
    axis = 1 if w_layout == "in_out" else 2

    def backward(dm: Any, _: Any, S: Any) -> tuple[Any, ...]:
        return (np.broadcast_to(np.expand_dims(dm, axis), S.shape) / S.shape[axis],)

    return Rule(lambda S: S.mean(axis=axis), backward)


BILINEAR = Rule(
    lambda e, q, M, b: np.einsum("bi,ij,bj->b", e, M, q)[:, None] + b,
    lambda dt, _, e, q, M, b: (
        dt * (q @ M.T),
        dt * (e @ M),
        e.T @ (dt * q),
        dt.sum(axis=0),
    ),
)
"""t = e M q^T + b, the bilinear discriminator (derivations 3.8, row 23)."""
