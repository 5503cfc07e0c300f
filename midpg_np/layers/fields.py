"""Embeddings of some fields, taken out of those of all fields, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.ops import concat, split


class PickedFields(NamedTuple):
    """Which columns of X (B, d) were taken, as runs of neighbours, and the width d."""

    runs: list[slice]
    width: int


def pick_fields(X: Array, fields: Sequence[int], n_fields: int) -> tuple[Array, PickedFields]:
    """E_prior = [E_f for f in fields], a field at most once; a view if they are neighbours.

    See derivations 7.1d.

    Backward: what was read gets its adjoint, the other fields get zero.

    Shapes
    ------
    X : (B, F*k)
    E_prior : (B, P*k)
    """
    dim = X.shape[1] // n_fields
    runs: list[slice] = []
    for field in fields:
        if runs and runs[-1].stop == field * dim:
            runs[-1] = slice(runs[-1].start, (field + 1) * dim)
        else:
            runs.append(slice(field * dim, (field + 1) * dim))
    cache = PickedFields(runs, X.shape[1])
    return X[:, runs[0]] if len(runs) == 1 else concat([X[:, run] for run in runs])[0], cache


def pick_fields_backward(dE_prior: Array, cache: PickedFields, onto: Array | None = None) -> Array:
    """Return ``dX``, or ``onto`` with dX added in place (derivations 7.3f, 7.3g)."""
    dX = onto
    if dX is None:
        dX = get_xp(dE_prior).zeros((len(dE_prior), cache.width), dtype=dE_prior.dtype)
    widths = [run.stop - run.start for run in cache.runs]
    for run, part in zip(cache.runs, split(dE_prior, widths)[0], strict=True):
        dX[:, run] += part
    return dX
