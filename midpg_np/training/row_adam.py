"""Adam for embedding tables: the whole table at every step, or the same, deferred by row.

A row without gradient still moves: its first moment decays and pushes it on.  The *table* form does
this for every row at every step and costs a pass over the table.  The deferred forms remember for
each row the step up to which it has been computed, and make up for the missed steps when the row is
next read, so that a step costs what the rows of its batch cost:

- *rows* adds up the missed displacements in closed form (``missed_steps``) and decays the moments
  by a power.  The sum is right to rounding; where its bound does not say so (gradients as small as
  eps in the first few hundred steps), the row is replayed.
- *replay* takes the missed steps one by one, with the operations and the bits of the table form.

What is exact in a replay, and what holds to rounding:

- It stops when none of the row's weights can move any more: twice its current step, subtracted,
  leaves the weight as it is, and later steps are smaller (for beta1 <= beta2; in a warm-up, times
  what the rate can still grow).  Up to there weights
  and moments have the bits of the table form: about 150 steps in float32 and 340 in float64, for a
  step of 1e-3 and weights of 1e-2.
- Beyond, the weights still have those bits.  The moments are decayed in closed form, m beta1^n and
  v beta2^n, which differs from n multiplications by their rounding: in v by up to 3e-8 n
  relatively in float32, far less in float64.  The next steps of that row carry this difference.
- Moments near the subnormal numbers are set to zero at moments that differ between the forms; that
  can be seen only in weights below 1e-18 or after gradients below 1e-23 (float32).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from midpg_np import kernels
from midpg_np.backend import (
    Array,
    gather_rows,
    get_xp,
    is_on_host,
    put_rows,
    sorted_positions,
    to_numpy,
)
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.adam_core import (
    FLUSH_EVERY,
    StepSizes,
    accumulate,
    displace,
    flush,
    rows_per_block,
)
from midpg_np.training.missed_steps import MissedSteps
from midpg_np.training.row_moments import (
    NEVER,
    RowMoments,
    TableMoments,
    gather,
    gather_moments,
    put,
    write_back,
)

ROUND = 32  # steps between two looks at which rows have come to rest
CHUNK = 4096  # rows made up for together, so that they stay in the second-level cache


def update_table(
    p: Array, moments: TableMoments, gradient: RowGradient | Array, sizes: StepSizes, step: int
) -> None:
    """Step ``step`` on every row, in place; rows without gradient decay and move.

    Shapes
    ------
    p : (V, k)
    gradient : (V, k)
        Or its rows.
    """
    if not isinstance(gradient, RowGradient):
        gradient = RowGradient(get_xp(p=p).arange(p.shape[0]), gradient, int(p.shape[0]))
    if not gradient.is_summed and kernels.fuses(p, moments.m, gradient.rows):
        flat = (x.reshape(-1) for x in (p, gradient.dense(), moments.m, moments.v))
        kernels.adam_step(*flat, *_at(sizes, step))
        return
    gradient = gradient.summed()
    xp = get_xp(p=p, m=moments.m, ids=gradient.ids)
    if kernels.fuses(p, moments.m, gradient.rows):
        kernels.adam_table(p, moments.m, moments.v, *gradient[:2], *_at(sizes, step))
        return
    n_rows, width = p.shape
    size = min(rows_per_block(xp, width), n_rows)
    a, e = sizes.at(step)
    scratch = xp.empty((size, width), dtype=p.dtype)
    starts = range(0, n_rows, size)
    # ids ascend, so the rows of a block are a slice.
    if xp is np:
        cuts = np.searchsorted(gradient.ids, [*starts, n_rows]).tolist()
    else:
        cuts = [0, gradient.ids.shape[0]]
    new_m, new_v = gather_rows(moments.m, gradient.ids), gather_rows(moments.v, gradient.ids)
    _add_gradient(new_m, new_v, gradient.rows, sizes)
    for block, start in enumerate(starts):
        rows = slice(start, min(start + size, n_rows))
        mine = slice(cuts[block], cuts[block + 1])
        m, v, u = moments.m[rows], moments.v[rows], scratch[: rows.stop - start]
        m *= sizes.beta1
        v *= sizes.beta2
        if mine.start < mine.stop:
            put_rows(moments.m, gradient.ids[mine], new_m[mine])
            put_rows(moments.v, gradient.ids[mine], new_v[mine])
        displace(m, v, a, e, u)
        p[rows] -= u
        if step % FLUSH_EVERY == 0:
            flush(m, v)


def _at(sizes: StepSizes, step: int) -> tuple[float, float, Any]:
    """Return beta1, beta2 and what differs from step to step, as kernels ask for it."""
    return sizes.beta1, sizes.beta2, sizes.now(step)


def _add_gradient(m: Array, v: Array, g: Array, sizes: StepSizes) -> None:
    m *= sizes.beta1
    v *= sizes.beta2
    accumulate(m, v, g, sizes, get_xp(m=m).empty_like(m))


def update_rows(
    p: Array, moments: TableMoments, gradient: RowGradient, sizes: StepSizes, step: int
) -> None:
    """Step ``step`` on the rows of p (V, K) that have a gradient, in place; the others wait.

    Raises
    ------
    ValueError
        If one of the rows was not brought up to date before it was read.
    """
    assert moments.last is not None
    ids, g, host_ids = gradient.ids, gradient.rows, to_numpy(gradient.ids)
    host_ids = host_ids[: np.searchsorted(host_ids, p.shape[0])]  # without the padding
    ready = moments.gathered
    is_on_gpu = not is_on_host(p) and kernels.fuses(p, moments.m, g)
    if is_on_gpu or ready is None or not np.array_equal(ready.ids, host_ids):
        write_back(moments)
        ready = None
    _check_up_to_date(host_ids, ready.last if ready else moments.last[host_ids], step)
    moments.gathered = None
    if is_on_gpu:
        moments.last[host_ids] = step
        kernels.adam_rows(p, moments.m, moments.v, ids, g, *_at(sizes, step))
        return
    size = max(host_ids.size, 1) if ready else rows_per_block(get_xp(p=p), p.shape[1])
    for start in range(0, host_ids.size, size):
        some = slice(start, min(start + size, host_ids.size))
        if ready:
            weights, rows = gather_rows(p, ids[some]), ready
        else:
            weights, rows = gather(p, moments, host_ids[some])
        rows.last[:] = step
        _take_step(weights, rows.m, rows.v, g[some], sizes, step)
        put(p, moments, weights, rows)


def _check_up_to_date(ids: np.ndarray, last: np.ndarray, step: int) -> None:
    stale = np.flatnonzero((last != NEVER) & (last != step - 1))
    if stale.size:
        raise ValueError(
            f"row {int(ids[stale[0]])} has a gradient at step {step} but was last computed at step "
            f"{int(last[stale[0]])}; call prepare with every row that forward reads."
        )


def _take_step(p: Array, m: Array, v: Array, g: Array, sizes: StepSizes, step: int) -> None:
    """Step ``step`` on rows (n, k) with gradient g, in place."""
    if kernels.fuses(p, g, m, v):
        kernels.adam_step(*(x.reshape(-1) for x in (p, g, m, v)), *_at(sizes, step))
        return
    _add_gradient(m, v, g, sizes)
    u = get_xp(p=p).empty_like(m)
    displace(m, v, *sizes.at(step), u)
    p -= u
    if step % FLUSH_EVERY == 0:
        flush(m, v)


def catch_up(
    p: Array,
    moments: TableMoments,
    ids: Array,
    sizes: StepSizes,
    missed: tuple[MissedSteps, ...],
    step: int,
) -> None:
    """Bring the rows ``ids`` to ``step``, in place; ids may repeat and have any shape.

    The moments of a batch's rows stay at hand for its update, which then need not read them again.
    """
    assert moments.last is not None
    write_back(moments)
    distinct, _ = sorted_positions(to_numpy(ids).reshape(-1))
    distinct = distinct[np.append(True, distinct[1:] != distinct[:-1])[: distinct.size]]
    if missed and distinct.size <= CHUNK:
        _gather_up(p, moments, distinct, sizes, missed, step)
    else:
        last = moments.last[distinct]
        waiting = np.flatnonzero((last != NEVER) & (last < step))
        _make_up(p, moments, distinct[waiting], last[waiting], sizes, missed, step)


def _gather_up(
    p: Array,
    moments: TableMoments,
    ids: np.ndarray,
    sizes: StepSizes,
    missed: tuple[MissedSteps, ...],
    step: int,
) -> None:
    xp = get_xp(p=p, m=moments.m)
    weights, rows = gather(p, moments, ids)
    where, since = xp.asarray(ids), np.where(rows.last == NEVER, step, rows.last)
    left = _sum(weights, rows.m, rows.v, since, missed[0], step)
    rows.last[rows.last != NEVER] = step
    if left.size == 0:
        put_rows(p, where, weights)
    else:
        kept = np.delete(np.arange(ids.size), left)
        put_rows(p, xp.asarray(ids[kept]), weights[xp.asarray(kept)])
        _make_up(p, moments, ids[left], since[left], sizes, missed[1:], step)
        some, late = xp.asarray(left), gather_moments(moments, ids[left])
        rows.m[some], rows.v[some] = late.m, late.v
    moments.gathered = rows


def settle_table(
    p: Array, moments: TableMoments, sizes: StepSizes, missed: tuple[MissedSteps, ...], step: int
) -> None:
    """Bring every row of p (V, K) to ``step``, in place."""
    assert moments.last is not None
    write_back(moments)
    waiting = np.flatnonzero((moments.last != NEVER) & (moments.last < step))
    _make_up(p, moments, waiting, moments.last[waiting], sizes, missed, step)


def _make_up(
    p: Array,
    moments: TableMoments,
    ids: np.ndarray,
    last: np.ndarray,
    sizes: StepSizes,
    missed: tuple[MissedSteps, ...],
    step: int,
) -> None:
    """Make up for the steps after ``last`` that distinct rows have missed."""
    for start in range(0, ids.size, CHUNK):
        some, since = ids[start : start + CHUNK], last[start : start + CHUNK]
        for table in missed:
            if some.size:
                left = _sum_in_place(p, moments, some, since, table, step)
                some, since = some[left], since[left]
        if some.size:
            _replay(p, moments, some, since, sizes, step)


def _sum_in_place(
    p: Array,
    moments: TableMoments,
    ids: np.ndarray,
    last: np.ndarray,
    missed: MissedSteps,
    step: int,
) -> np.ndarray:
    """Sum the missed steps of distinct rows of the tables; return which ones are left."""
    xp = get_xp(p=p, m=moments.m)
    weights, rows = gather(p, moments, ids)
    left = _sum(weights, rows.m, rows.v, last, missed, step)
    rows.last[:] = step
    if left.size:
        kept = np.delete(np.arange(ids.size), left)
        weights, rows = weights[xp.asarray(kept)], rows.some(kept)
    put(p, moments, weights, rows)
    return left


def _sum(
    weights: Array, m: Array, v: Array, last: np.ndarray, missed: MissedSteps, step: int
) -> np.ndarray:
    """Sum the missed steps of rows, in place; return which ones are left, being too far off."""
    xp, dtype = get_xp(weights=weights, m=m), np.dtype(m.dtype)
    coefficients, gap = missed.of(last, step), (step - last).astype(np.float64)
    decays = (
        np.exp(gap * math.log(_rounded(beta, dtype))).astype(dtype)
        for beta in (missed.beta1, missed.beta2)
    )
    moved = map(xp.asarray, (coefficients, *decays))
    largest = kernels.sum_missed(weights, m, v, *moved)
    if step % FLUSH_EVERY == 0:
        flush(m, v)
    return _too_far_off(largest, coefficients[:, -1], missed.n_terms)


def _too_far_off(largest: Array, bound: np.ndarray, n_terms: int) -> np.ndarray:
    """Return the rows whose bound, that of their largest y, bound y^n_terms, is beyond rounding."""
    limit = 0.25 * float(np.finfo(bound.dtype).eps)
    if float(bound.max()) <= limit:  # as after the first thousand steps: no device is asked for y
        return np.arange(0)
    power = to_numpy(largest).astype(np.float64) ** n_terms
    return np.flatnonzero(~(bound * power <= limit))


def _replay(
    p: Array,
    moments: TableMoments,
    ids: np.ndarray,
    last: np.ndarray,
    sizes: StepSizes,
    step: int,
) -> None:
    """Take the steps that distinct rows have missed.

    All rows start together and take their own j-th missed step at the same time; sorted by the
    number of missed steps, the rows that still have one to take are a leading slice.
    """
    xp = get_xp(p=p, m=moments.m)
    order = np.argsort(last, kind="stable")
    ids, start = ids[order], last[order]
    gap = step - start
    weights, rows = gather(p, moments, ids)
    # Transposed, (k, n): the step sizes differ by row, and broadcast along the fast axis.
    P = xp.ascontiguousarray(weights.T)
    m, v = xp.ascontiguousarray(rows.m.T), xp.ascontiguousarray(rows.v.T)
    u = xp.zeros_like(P)
    done = 0
    while gap.size:
        js = np.arange(done + 1, min(done + ROUND, int(gap[0])) + 1)
        n_active = np.searchsorted(-gap, -js, side="right").tolist()
        a, e = map(xp.asarray, sizes.of(start + js[:, None], np.dtype(P.dtype)))
        for j, n in enumerate(n_active):
            m_j, v_j, u_j = m[:, :n], v[:, :n], u[:, :n]
            m_j *= sizes.beta1
            v_j *= sizes.beta2
            displace(m_j, v_j, a[j, :n], e[j, :n], u_j)
            P[:, :n] -= u_j
        done += ROUND
        flush(m, v)
        rise = sizes.largest_rise(start + done, np.dtype(P.dtype))
        largest = 2.0 * u if isinstance(rise, float) else xp.asarray(2.0 * rise) * u
        at_rest = to_numpy((P - largest == P).all(axis=0))
        is_over = (gap <= done) | at_rest
        over, keep = xp.asarray(np.flatnonzero(is_over)), xp.asarray(np.flatnonzero(~is_over))
        rest = xp.asarray(np.maximum(gap - done, 0)[is_over])
        decayed = (
            _decayed(moment[:, over], beta, rest).T
            for moment, beta in ((m, sizes.beta1), (v, sizes.beta2))
        )
        ready = ids[is_over]
        rows = RowMoments(ready, np.full(ready.size, step), *decayed)
        put(p, moments, P[:, over].T, rows)
        P, m, v, u = P[:, keep], m[:, keep], v[:, keep], u[:, keep]
        ids, start, gap = ids[~is_over], start[~is_over], gap[~is_over]


def _decayed(moment: Array, beta: float, n_steps: Array) -> Array:
    """Return moment * beta^n."""
    xp = get_xp(moment=moment)
    factor = xp.power(_rounded(beta, np.dtype(moment.dtype)), n_steps.astype(np.float64))
    return (moment * factor).astype(moment.dtype)


def _rounded(beta: float, dtype: np.dtype) -> float:
    """Return beta as a step multiplies by it: rounded to the dtype of the moments."""
    return float(np.asarray(beta, dtype=dtype))
