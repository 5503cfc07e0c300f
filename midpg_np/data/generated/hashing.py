"""Random numbers that belong to an identifier: the same wherever it occurs, and never stored."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri


def hashed(ids: np.ndarray, purpose: int) -> np.ndarray:
    """Return a hash (N,) uint64 of integers (N,), another one for each purpose (splitmix64)."""
    with np.errstate(over="ignore"):
        x = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(purpose + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed_uniform(ids: np.ndarray, purpose: int) -> np.ndarray:
    """Return numbers (N,) in (0, 1)."""
    return ((hashed(ids, purpose) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def hashed_normal(ids: np.ndarray, purpose: int) -> np.ndarray:
    """Return standard normal numbers (N,)."""
    return ndtri(hashed_uniform(ids, purpose))
