"""How far a row moves in the steps in which it has no gradient, summed without taking them.

After a gradient at step t, k steps without one move an entry with moments m, v by

    D = m sum_{j=1..k} w_j / (r + x_j),    r = sqrt(v),  w_j = a_{t+j} (beta1 / sqrt(beta2))^j,
                                           x_j = e_{t+j} beta2^{-j/2}

(``adam_core`` with the decay of v moved out of the root).  The weights fall off within some ten
steps, in which x_j hardly changes.  With c = x_1, y = c / (r + c) and z_j = x_j / c - 1 >= 0,

    D = m / (r + c) sum_{i=0..N} (-y)^i Q_i,    Q_i = sum_j w_j z_j^i,

and, since the full series alternates, the error is at most that of the first term left out,
y^{N+1} Q_{N+1}.  Q_i belongs to (t, k) alone and not to the row: it is a table.  For k beyond the
horizon J, where w_j no longer counts, it depends on t only; below, the tail from the present step
T = t + k on is taken off.  There x_{T+j} is R = beta2^{-k/2} e_{T+1} / e_{t+1} times what it is
counted from T, so with the weights' factor q^k

    tail_i = q^k sum_l binomial(i, l) R^l (R - 1)^{i-l} Q_l(T).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from midpg_np.backend import put_rows
from midpg_np.training.adam_core import corrections
from midpg_np.training.lr_schedule import LRSchedule

# Terms N + 1 of the series: few for all rows, more for those that few leave too far off.  With beta
# 0.9 and 0.999 and after some 1,000 steps the first bound is 1e-8 (float32) and 2e-17 (float64) of
# D even where r = 0, and smaller by (eps / r)^{N+1} elsewhere; before, e_t still changes.
TERMS = {np.dtype(np.float32): (4, 8), np.dtype(np.float64): (10, 16)}
CHUNK = 4096
# With a schedule the rate may grow within a horizon, in a warm-up from zero by as many times as
# that has steps; weights so many times smaller at its end leave no more beyond it than usual.
RISE = 64.0
LONGEST_HORIZON = 4096  # beyond, the table of Q costs more than replaying the steps


@dataclass(frozen=True)
class MissedSteps:
    """c, Q and the bound for one setting of Adam (see there) and one dtype.

    Parameters
    ----------
    lr, beta1, beta2, eps, eps_mode
        As for ``Adam``.
    dtype : numpy dtype
    n_terms : int
        N + 1.
    horizon : int
        J.
    schedule : LRSchedule or None
        Of the learning rate.  The sums take any a_t, so they stay as exact as they are without.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    eps_mode: str
    dtype: np.dtype
    n_terms: int
    horizon: int
    schedule: LRSchedule | None = None

    def of(self, last: np.ndarray, step: int) -> np.ndarray:
        """Return what rows computed up to ``last`` (all before ``step``) need to reach ``step``.

        Shapes
        ------
        last : (n,)
        rows : (n, N + 3)
            c; Q_0 to Q_N; and Q_{N+1} / Q_0, the bound.
        """
        recent = last > step - self.horizon
        if recent.all():
            return _near(self, step).take(step - last, axis=0)
        rows = _far(self, self.n_steps(step)).take(last, axis=0, mode="clip")
        if recent.any():
            where = np.flatnonzero(recent)
            put_rows(rows, where, _near(self, step).take(step - last.take(where), axis=0))
        return rows

    def n_steps(self, step: int) -> int:
        """Return the size of the tables that serve up to ``step``; their last entry stands on."""
        return len(self.corrections(step + self.horizon)[0]) - 1

    def corrections(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a_t and e_t up to ``step`` or beyond."""
        settings = self.lr, self.beta1, self.beta2, self.eps, self.eps_mode
        return corrections(*settings, step, self.schedule)

    @property
    def q(self) -> float:
        """The ratio of one weight to the next, but for a_t."""
        return self.beta1 / math.sqrt(self.beta2)


def missed_steps(
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    eps_mode: str,
    dtype: np.dtype,
    schedule: LRSchedule | None = None,
) -> tuple[MissedSteps, ...]:
    """Return tables of few and of more terms; none where replaying the steps is as cheap."""
    tables = []
    smallest = float(np.finfo(dtype).eps) / (16.0 if schedule is None else 16.0 * RISE)
    for n_terms in TERMS.get(dtype, ()) if beta1 > 0.0 else ():
        # The terms of Q_{N+1} fall off the slowest: as (beta1 beta2^{-(N+2)/2})^j.
        log_ratio = math.log(beta1) - 0.5 * (n_terms + 1) * math.log(beta2)
        if log_ratio < 0.0:
            horizon = math.ceil(math.log(smallest) / log_ratio)
            if horizon <= LONGEST_HORIZON:
                settings = lr, beta1, beta2, eps, eps_mode
                tables.append(MissedSteps(*settings, dtype, n_terms, horizon, schedule))
    return tuple(tables)


@lru_cache(maxsize=8)
def _sums(table: MissedSteps, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return c (T,) and Q (N + 2, T), float64, for k without end and every t up to ``n_steps``."""
    a, e = table.corrections(n_steps)
    # Beyond its end a table of corrections stands still, or is not asked for.
    a, e = (np.concatenate([x, np.full(table.horizon, x[-1])]) for x in (a, e))
    first, n_rows = e[1 : n_steps + 2], n_steps + 1
    Q = np.zeros((table.n_terms + 1, n_rows))
    for start in range(0, n_rows, CHUNK):  # as many as stay in the cache
        stop = min(start + CHUNK, n_rows)
        for j in range(1, table.horizon + 1):
            term = table.q**j * a[start + j : stop + j]
            z = e[start + j : stop + j] / first[start:stop]
            z *= table.beta2 ** (-0.5 * (j - 1))
            z -= 1.0
            for i in range(table.n_terms + 1):
                Q[i, start:stop] += term
                term *= z
    return first / math.sqrt(table.beta2), Q


def _rows(table: MissedSteps, c: np.ndarray, Q: np.ndarray) -> np.ndarray:
    bound = np.where(Q[0] > 0.0, Q[-1] / np.where(Q[0] > 0.0, Q[0], 1.0), 0.0)  # 0 for k = 0
    rows = np.concatenate([c[None], Q[:-1], bound[None]]).T
    return np.ascontiguousarray(rows, dtype=table.dtype)


@lru_cache(maxsize=8)
def _far(table: MissedSteps, n_steps: int) -> np.ndarray:
    """Return the rows of ``MissedSteps.of`` for k beyond the horizon, by t."""
    return _rows(table, *_sums(table, n_steps))


@lru_cache(maxsize=8)
def _near(table: MissedSteps, step: int) -> np.ndarray:
    """Return the rows of ``MissedSteps.of`` for k below the horizon, by k."""
    far_c, far = _sums(table, table.n_steps(step))
    k = np.arange(table.horizon)
    t = np.maximum(step - k, 0)
    c, Q = far_c.take(t, mode="clip"), far.take(t, axis=1, mode="clip")
    now = far.take(step, axis=1, mode="clip").tolist()
    R = table.beta2 ** (-0.5 * k) * float(far_c.take(step, mode="clip")) / c
    less, tails = [np.ones_like(R)], [table.q**k]  # (R - 1)^l, and q^k R^l to become tails
    for _ in range(table.n_terms):
        less.append(less[-1] * (R - 1.0))
        tails.append(tails[-1] * R)
    tails = [tail * value for tail, value in zip(tails, now, strict=True)]
    # Not the last Q: without its tail the bound covers what the subtraction rounds off, too.
    for i in range(table.n_terms):
        for part in range(i):
            Q[i] -= tails[part] * less[i - part] * math.comb(i, part)
        Q[i] -= tails[i]
    return _rows(table, c, np.maximum(Q, 0.0, out=Q))
