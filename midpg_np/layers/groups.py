"""Rows of a batch, sorted by scenario once, so that each scenario's rows lie side by side."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp, to_numpy

FEW_SCENARIOS = 32


class Groups(NamedTuple):
    """How the rows of a batch fall into scenarios.

    Shapes
    ------
    order : (B,)
        Old place of each sorted row: ``x[order]`` sorts, scenario by scenario.
    place : (B,)
        New place of each row: ``x_sorted[place]`` restores the order of the batch.
    present : tuple of M ints
        Scenarios that have rows, ascending.
    ids : (M,)
        The same on the device of the batch.
    bounds : tuple of M + 1 ints
        Sorted rows of the m-th present scenario: ``bounds[m]`` up to ``bounds[m + 1]``.
    n_scenarios : int
        Number of scenarios D, present or not.
    is_member : (M, B)
        Whether a sorted row belongs to a present scenario; None if these are many.
    """

    order: Array
    place: Array
    present: tuple[int, ...]
    ids: Array
    bounds: tuple[int, ...]
    n_scenarios: int
    is_member: Array | None

    @property
    def slices(self) -> tuple[slice, ...]:
        """Sorted rows of each present scenario."""
        return _slices(self.bounds)

    @property
    def counts(self) -> list[int]:
        """Number of rows n_d of each present scenario."""
        return [stop - start for start, stop in pairwise(self.bounds)]


@lru_cache(maxsize=8)
def _slices(bounds: tuple[int, ...]) -> tuple[slice, ...]:
    # Every layer asks for those of the batch.
    return tuple(slice(start, stop) for start, stop in pairwise(bounds))


def group_rows(scenario: Array, n_scenarios: int) -> Groups:
    """Sort the rows of a batch by scenario; rows of one scenario keep their order.

    Shapes
    ------
    scenario : (B,)

    Raises
    ------
    ValueError
        If a scenario is not in [0, n_scenarios).
    """
    xp = get_xp(scenario=scenario)
    ids = to_numpy(scenario)
    is_unknown = (ids < 0) | (ids >= n_scenarios)
    if is_unknown.any():
        row = int(is_unknown.argmax())
        raise ValueError(
            f"scenario must lie in [0, {n_scenarios}); row {row} of the batch has {int(ids[row])}."
        )
    # Integers of 8 or 16 bits are sorted by their digits, several times faster.
    order = ids.astype(np.min_scalar_type(n_scenarios)).argsort(kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(ids.size)
    counts = np.bincount(ids, minlength=n_scenarios)
    present = np.flatnonzero(counts)
    is_member = None
    if present.size <= FEW_SCENARIOS:
        is_member = xp.asarray(present[:, None] == ids[order])
    return Groups(
        xp.asarray(order),
        xp.asarray(place),
        tuple(present.tolist()),
        xp.asarray(present),
        (0, *counts[present].cumsum().tolist()),
        n_scenarios,
        is_member,
    )


def of_present(leaf: Array, groups: Groups) -> Array:
    """Of an array with one slice per scenario those of the scenarios present, (D, ...) to (M, ...).

    A view where all are present, as in most batches: weights by scenario are large.
    """
    return leaf if len(groups.present) == groups.n_scenarios else leaf[groups.ids]


def group_sum(x: Array, groups: Groups) -> Array:
    """Sum of the rows of each present scenario; the adjoint of ``spread``.

    A product with zeros and ones as long as the scenarios are few, for one call is then cheaper
    than one for each.

    Backward: dx_i = dy_(s_i), every row gets the adjoint of its group.

    Shapes
    ------
    x : (B, I)
        Rows sorted by scenario.
    y : (M, I)
    """
    if groups.is_member is not None:
        return groups.is_member.astype(x.real.dtype) @ x
    return get_xp(x).stack([x[rows].sum(axis=0) for rows in groups.slices])


def group_mean(x: Array, groups: Groups) -> Array:
    """Mean of the rows of each present scenario: ``group_sum`` divided by n_d.

    Shapes
    ------
    x : (B, I)
        Rows sorted by scenario.
    y : (M, I)
    """
    return group_sum(x, groups) / _counts(groups, x)


def group_share(groups: Groups, like: Array) -> Array:
    """(M, 1): the share 1 / n_d that a row has in the mean of its scenario."""
    return 1.0 / _counts(groups, like)


def _counts(groups: Groups, like: Array) -> Array:
    return get_xp(like).asarray(groups.counts, dtype=like.real.dtype)[:, None]


def spread(y: Array, groups: Groups) -> Array:
    """Give every sorted row what belongs to its scenario; the adjoint of ``group_sum``.

    Backward: dy_d is the sum of the adjoints of the rows of scenario d.

    Shapes
    ------
    y : (M, I)
    x : (B, I)
    """
    return get_xp(y).repeat(y, groups.counts, axis=0)
