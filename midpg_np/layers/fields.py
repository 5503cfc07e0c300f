"""Embeddings of some fields, taken out of those of all fields, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from midpg_np.backend import Array, get_xp


class PickedFields(NamedTuple):
    """Which fields were taken, and the shape (B, F, k) they were taken from."""

    fields: list[int]
    shape: tuple[int, int, int]


def pick_fields(X: Array, fields: Sequence[int], n_fields: int) -> tuple[Array, PickedFields]:
    """E_prior = [E_f for f in fields], a field at most once.

    Backward: what was read gets its adjoint, the other fields get zero.

    Shapes
    ------
    X : (B, F*k)
    E_prior : (B, P*k)
    """
    cache = PickedFields(list(fields), (len(X), n_fields, X.shape[1] // n_fields))
    picked = X.reshape(cache.shape)[:, cache.fields]
    return picked.reshape(len(X), -1), cache


def pick_fields_backward(dE_prior: Array, cache: PickedFields) -> Array:
    """Return ``dX``."""
    n_rows, n_fields, dim = cache.shape
    dX = get_xp(dE_prior=dE_prior).zeros(cache.shape, dtype=dE_prior.dtype)
    dX[:, cache.fields] = dE_prior.reshape(n_rows, -1, dim)
    return dX.reshape(n_rows, n_fields * dim)
