"""Rules of PEPNet: prior fields, and maps of which a row uses its tower's own (derivations 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from midpg_np.verify.longhand.calculation import Rule


def fields(numbers: Sequence[int], dim: int) -> Rule:
    """E_prior = [E_f for f in numbers], from X (B, F k); a field that was not read gets zero."""
    places = np.concatenate([np.arange(f * dim, (f + 1) * dim) for f in numbers])

    def backward(dy: Any, _: Any, X: Any) -> tuple[Any, ...]:
        dX = np.zeros_like(X)
        dX[:, places] = dy
        return (dX,)

    return Rule(lambda X: X[:, places], backward)


def _tower_affine_backward(
    dA: Any, _: Any, H: Any, W: Any, b: Any, scenario: Any
) -> tuple[Any, ...]:
    dW, db = np.zeros_like(W), np.zeros_like(b)
    np.add.at(dW, scenario, H[:, :, None] * dA[:, None, :])
    np.add.at(db, scenario, dA)
    return np.einsum("bo,bio->bi", dA, W[scenario]), dW, db, None


TOWER_AFFINE = Rule(
    lambda H, W, b, scenario: np.einsum("bi,bio->bo", H, W[scenario]) + b[scenario],
    _tower_affine_backward,
)
"""A_b = H_b W_d + b_d with d = s_b, W (T, I, O) and b (T, O); the towers of absent scenarios get
zero (derivations 2.7)."""
