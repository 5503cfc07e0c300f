"""Rows of a batch, sorted by scenario once, so that each scenario's rows lie side by side."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, gather_rows, get_xp, is_on_host, to_numpy

FEW_SCENARIOS = 32


class Groups(NamedTuple):
    """How the rows of a batch fall into scenarios; arrays on the device of the batch.

    Shapes
    ------
    order : (B,)
        Old place of each sorted row: ``x[order]`` sorts, scenario by scenario.
    place : (B,)
        New place of each row: ``x_sorted[place]`` restores the order of the batch.
    ids : (M,)
        Scenarios that have rows, ascending; on a GPU all.
    counts : (M,)
        Number of rows n_d of each.
    bounds : (M + 1,)
        Sorted rows of the m-th of them: ``bounds[m]`` up to ``bounds[m + 1]``.
    member : (B,)
        The m of each sorted row.
    n_scenarios : int
        Number of scenarios D, present or not.
    """

    order: Array
    place: Array
    ids: Array
    counts: Array
    bounds: Array
    member: Array
    n_scenarios: int

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All but D; ``Groups(*arrays, n_scenarios)`` puts them together again."""
        return self[:-1]

    @property
    def scenario(self) -> Array:
        """Scenario of each sorted row (B,)."""
        return self.ids[self.member]

    @property
    def present(self) -> tuple[int, ...]:
        """Scenarios that have rows, on the host; a GPU is waited for."""
        return tuple(to_numpy(self.ids).tolist())

    @property
    def slices(self) -> tuple[slice, ...]:
        """Sorted rows of each present scenario, on the host; a GPU is waited for."""
        return _slices(tuple(to_numpy(self.bounds).tolist()))


@lru_cache(maxsize=8)
def _slices(bounds: tuple[int, ...]) -> tuple[slice, ...]:
    # Every layer asks for those of the batch.
    return tuple(slice(start, stop) for start, stop in pairwise(bounds))


def group_rows(scenario: Array, n_scenarios: int) -> Groups:
    """Sort the rows of a batch by scenario; rows of one scenario keep their order.

    On a GPU all D scenarios are groups, some perhaps without rows: which are present would have to
    be read on the host, which waits for all work given so far.

    Shapes
    ------
    scenario : (B,)

    Raises
    ------
    ValueError
        If a scenario is not in [0, n_scenarios); a GPU is not asked.
    """
    if not is_on_host(scenario):
        return _group_on_device(scenario, n_scenarios)
    ids = scenario
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
    counts = counts[present]
    bounds = np.zeros(present.size + 1, dtype=order.dtype)
    counts.cumsum(out=bounds[1:])
    member = np.arange(present.size).repeat(counts)
    return Groups(order, place, present, counts, bounds, member, n_scenarios)


def _group_on_device(scenario: Array, n_scenarios: int) -> Groups:
    xp = get_xp(scenario=scenario)
    order = xp.argsort(scenario)
    member = scenario[order]
    place = xp.empty(order.shape, dtype=order.dtype)
    place[order] = xp.arange(order.size)
    bounds = xp.searchsorted(member, xp.arange(n_scenarios + 1))
    counts = bounds[1:] - bounds[:-1]
    return Groups(order, place, xp.arange(n_scenarios), counts, bounds, member, n_scenarios)


def of_present(leaf: Array, groups: Groups) -> Array:
    """Of an array with one slice per scenario those of the scenarios present, (D, ...) to (M, ...).

    A view where all are present, as in most batches: weights by scenario are large.
    """
    return leaf if len(groups.ids) == groups.n_scenarios else leaf[groups.ids]


def group_sum(x: Array, groups: Groups) -> Array:
    """Sum of the rows of each present scenario; the adjoint of ``spread``.

    Where no kernel does it: a product with zeros and ones as long as the scenarios are few, for one
    call is then cheaper than one for each.

    Backward: dx_i = dy_(s_i), every row gets the adjoint of its group.

    Shapes
    ------
    x : (B, I)
        Rows sorted by scenario.
    y : (M, I)
    """
    n_groups = len(groups.ids)
    if n_groups > FEW_SCENARIOS or kernels.fuses(x):
        return kernels.sum_by_group(x, groups.bounds)
    is_member = get_xp(x).arange(n_groups)[:, None] == groups.member
    return is_member.astype(x.real.dtype) @ x


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
    """Return n_d as (M, 1); 1 for a scenario without rows, whose sum is zero anyway."""
    return get_xp(like).maximum(groups.counts, 1).astype(like.real.dtype)[:, None]


def spread(y: Array, groups: Groups) -> Array:
    """Give every sorted row what belongs to its scenario; the adjoint of ``group_sum``.

    Backward: dy_d is the sum of the adjoints of the rows of scenario d.

    Shapes
    ------
    y : (M, I)
    x : (B, I)
    """
    return gather_rows(y, groups.member)
