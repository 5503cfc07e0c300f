"""Adam for embedding tables: the whole table at every step, or exactly the same, deferred by row.

A row without gradient still moves: its first moment decays and pushes it on.  The *table* form does
this for every row at every step and costs a pass over the table.  The *rows* form remembers for
each row the step up to which it has been computed, and replays the missed steps when the row is
next read.  The replay does the same operations in the same order, so it gives the same bits.

What is exact, and what holds to rounding:

- The replay of a row stops when none of its weights can move any more: twice its current step,
  subtracted, leaves the weight as it is, and later steps are smaller (for beta1 <= beta2).  Up to
  there weights and moments have the bits of the table form: about 150 steps in float32 and 340 in
  float64, for a step of 1e-3 and weights of 1e-2.
- Beyond, the weights still have those bits.  The moments are decayed in closed form, m beta1^n and
  v beta2^n, which differs from n multiplications by their rounding: in v by up to 3e-8 n
  relatively in float32, far less in float64.  The next steps of that row carry this difference.
- Moments near the subnormal numbers are set to zero at moments that differ between the forms; that
  can be seen only in weights below 1e-18 or after gradients below 1e-23 (float32).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from midpg_np.backend import Array, get_xp, to_numpy
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.adam_core import FLUSH_EVERY, displace, flush, rows_per_block

ROUND = 32  # steps between two looks at which rows have come to rest
CHUNK = 2048  # rows replayed together, so that they stay in the second-level cache
NEVER = -1


@dataclass
class TableMoments:
    """Moments of one table.

    Shapes
    ------
    m, v : (V, k)
    last : (V,) int64 on the host, or None in the table form
        Step up to which the row has been computed; -1 for a row that never had a gradient, whose
        moments are zero and which therefore never needs a replay.
    """

    m: Array
    v: Array
    last: np.ndarray | None


@dataclass(frozen=True)
class StepSizes:
    """beta1, beta2, and a_t and e_t by step t (see ``adam_core``)."""

    beta1: float
    beta2: float
    a: np.ndarray
    e: np.ndarray

    def at(self, step: int) -> tuple[float, float]:
        """Return a_t and e_t of one step."""
        t = min(step, len(self.a) - 1)
        return float(self.a[t]), float(self.e[t])

    def of(self, steps: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Return a_t and e_t of many steps, any shape, rounded to ``dtype`` as scalars are."""
        t = np.minimum(steps, len(self.a) - 1)
        return self.a[t].astype(dtype), self.e[t].astype(dtype)


def _accumulate(m: Array, v: Array, g: Array, sizes: StepSizes) -> tuple[Array, Array]:
    """Return the moments after the gradient is added to their decayed values."""
    squared = g * g
    squared *= 1.0 - sizes.beta2
    return m + (1.0 - sizes.beta1) * g, v + squared


def update_table(
    p: Array, moments: TableMoments, gradient: RowGradient, sizes: StepSizes, step: int
) -> None:
    """Step ``step`` on every row, in place; rows without gradient decay and move.

    Shapes
    ------
    p : (V, k)
    """
    xp = get_xp(p=p, m=moments.m, ids=gradient.ids)
    n_rows, width = p.shape
    size = min(rows_per_block(xp, width), n_rows)
    a, e = sizes.at(step)
    scratch = xp.empty((size, width), dtype=p.dtype)
    starts = range(0, n_rows, size)
    # ids ascend, so the gradient of a block is a slice.
    if xp is np:
        cuts = np.searchsorted(gradient.ids, [*starts, n_rows]).tolist()
    else:
        cuts = [0, gradient.ids.shape[0]]
    for block, start in enumerate(starts):
        rows = slice(start, min(start + size, n_rows))
        mine = slice(cuts[block], cuts[block + 1])
        m, v, u = moments.m[rows], moments.v[rows], scratch[: rows.stop - start]
        m *= sizes.beta1
        v *= sizes.beta2
        if mine.start < mine.stop:
            ids = gradient.ids[mine] - start
            m[ids], v[ids] = _accumulate(m[ids], v[ids], gradient.rows[mine], sizes)
        displace(m, v, a, e, u)
        p[rows] -= u
        if step % FLUSH_EVERY == 0:
            flush(m, v)


def update_rows(
    p: Array, moments: TableMoments, gradient: RowGradient, sizes: StepSizes, step: int
) -> None:
    """Step ``step`` on the rows that have a gradient, in place; the others wait.

    Raises
    ------
    ValueError
        If one of the rows was not brought up to date before it was read.
    """
    assert moments.last is not None
    ids = gradient.ids
    host_ids = to_numpy(ids)
    last = moments.last[host_ids]
    stale = (last != NEVER) & (last != step - 1)
    if stale.any():
        row = int(host_ids[stale][0])
        raise ValueError(
            f"row {row} has a gradient at step {step} but was last computed at step "
            f"{int(moments.last[row])}; call prepare with every row that forward reads."
        )
    m, v = moments.m[ids], moments.v[ids]
    m *= sizes.beta1
    v *= sizes.beta2
    m, v = _accumulate(m, v, gradient.rows, sizes)
    u = get_xp(p=p).empty_like(m)
    displace(m, v, *sizes.at(step), u)
    p[ids] -= u
    moments.m[ids], moments.v[ids] = m, v
    moments.last[host_ids] = step


def catch_up(p: Array, moments: TableMoments, ids: Array, sizes: StepSizes, step: int) -> None:
    """Bring the rows ``ids`` to ``step``, in place; ids may repeat and have any shape."""
    assert moments.last is not None
    host_ids = to_numpy(ids).reshape(-1)
    last = moments.last[host_ids]
    stale = np.unique(host_ids[(last != NEVER) & (last < step)])
    for start in range(0, stale.size, CHUNK):
        _replay(p, moments, stale[start : start + CHUNK], sizes, step)


def settle_table(p: Array, moments: TableMoments, sizes: StepSizes, step: int) -> None:
    """Bring every row to ``step``, in place."""
    assert moments.last is not None
    catch_up(p, moments, np.flatnonzero(moments.last != NEVER), sizes, step)


def _replay(p: Array, moments: TableMoments, ids: np.ndarray, sizes: StepSizes, step: int) -> None:
    """Replay the steps that distinct stale rows have missed.

    All rows start together and take their own j-th missed step at the same time; sorted by the
    number of missed steps, the rows that still have one to take are a leading slice.
    """
    xp = get_xp(p=p, m=moments.m)
    last = moments.last
    assert last is not None
    ids = ids[np.argsort(last[ids], kind="stable")]
    start, gap = last[ids], step - last[ids]
    last[ids] = step
    where = xp.asarray(ids)
    # Transposed, (k, n): the step sizes differ by row, and broadcast along the fast axis.
    P, m, v = (xp.ascontiguousarray(x[where].T) for x in (p, moments.m, moments.v))
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
        at_rest = to_numpy((P - 2.0 * u == P).all(axis=0))
        is_over = (gap <= done) | at_rest
        over, keep = xp.asarray(np.flatnonzero(is_over)), xp.asarray(np.flatnonzero(~is_over))
        rest = xp.asarray(np.maximum(gap - done, 0)[is_over])
        p[where[over]] = P[:, over].T
        moments.m[where[over]] = _decayed(m[:, over], sizes.beta1, rest).T
        moments.v[where[over]] = _decayed(v[:, over], sizes.beta2, rest).T
        where, P, m, v, u = where[keep], P[:, keep], m[:, keep], v[:, keep], u[:, keep]
        start, gap = start[~is_over], gap[~is_over]


def _decayed(moment: Array, beta: float, n_steps: Array) -> Array:
    """Return moment * beta^n, with beta rounded to the dtype in which the step multiplies by it."""
    xp = get_xp(moment=moment)
    rounded = float(np.asarray(beta, dtype=np.dtype(moment.dtype)))
    factor = xp.power(rounded, n_steps.astype(np.float64))
    return (moment * factor).astype(moment.dtype)
