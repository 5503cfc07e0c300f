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

from midpg_np.training.adam_core import corrections

# Terms N + 1 of the series: with beta 0.9 and 0.999 the bound is 1e-8 and 2e-17 of D even where
# r = 0; it is smaller by (eps / r)^{N+1} elsewhere.
TERMS = {np.dtype(np.float32): 4, np.dtype(np.float64): 10}
CHUNK = 4096
LONGEST_HORIZON = 4096  # beyond, the table of Q costs more than replaying the steps


@dataclass(frozen=True)
class MissedSteps:
    """c and Q for one setting of Adam (see there), for the precision of one dtype.

    Parameters
    ----------
    lr, beta1, beta2, eps, eps_mode
        As for ``Adam``.
    n_terms : int
        N + 1.
    horizon : int
        J.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    eps_mode: str
    n_terms: int
    horizon: int

    def of(self, last: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what rows computed up to ``last`` (all before ``step``) need to reach ``step``.

        Shapes
        ------
        last : (n,)
        c : (n,)
        Q : (n, N + 2)
            The last column is for the bound.
        """
        far_c, far = self.far(step)
        c, Q = far_c.take(last, mode="clip"), far.take(last, axis=0, mode="clip")
        recent = np.flatnonzero(last > step - self.horizon)
        if recent.size:
            Q[recent] = _near(self, step).take(step - last[recent], axis=0)
        return c, Q

    def far(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return c and Q for k without end, by t: up to ``step``, or the last entry stands on."""
        settings = self.lr, self.beta1, self.beta2, self.eps, self.eps_mode
        a, _ = corrections(*settings, step + self.horizon)
        return _far(self, len(a) - 1)

    @property
    def q(self) -> float:
        """The ratio of one weight to the next, but for a_t."""
        return self.beta1 / math.sqrt(self.beta2)


def missed_steps(
    lr: float, beta1: float, beta2: float, eps: float, eps_mode: str, dtype: np.dtype
) -> MissedSteps | None:
    """Return the table for one setting, or None where replaying the steps is as cheap."""
    if beta1 == 0.0 or dtype not in TERMS:
        return None
    log_q = math.log(beta1) - 0.5 * math.log(beta2)
    horizon = math.ceil(math.log(float(np.finfo(dtype).eps) / 16.0) / log_q)
    if horizon > LONGEST_HORIZON:
        return None
    return MissedSteps(lr, beta1, beta2, eps, eps_mode, TERMS[dtype], horizon)


@lru_cache(maxsize=8)
def _far(table: MissedSteps, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum Q over the horizon, for every t up to ``n_steps``."""
    settings = table.lr, table.beta1, table.beta2, table.eps, table.eps_mode
    a, e = corrections(*settings, n_steps)
    # Beyond its end a table of corrections stands still, or is not asked for.
    a, e = (np.concatenate([x, np.full(table.horizon, x[-1])]) for x in (a, e))
    first, n_rows = e[1 : n_steps + 2], n_steps + 1
    Q = np.zeros((n_rows, table.n_terms + 1))
    for start in range(0, n_rows, CHUNK):  # as many rows as stay in the cache
        stop = min(start + CHUNK, n_rows)
        sums = np.zeros((table.n_terms + 1, stop - start))
        for j in range(1, table.horizon + 1):
            term = table.q**j * a[start + j : stop + j]
            z = e[start + j : stop + j] / first[start:stop]
            z *= table.beta2 ** (-0.5 * (j - 1))
            z -= 1.0
            for row in sums:
                row += term
                term *= z
        Q[start:stop] = sums.T
    return first / math.sqrt(table.beta2), Q


@lru_cache(maxsize=8)
def _near(table: MissedSteps, step: int) -> np.ndarray:
    """Return Q of the rows that missed k < J steps, by k."""
    far_c, far = table.far(step)
    k = np.arange(table.horizon)
    t = np.maximum(step - k, 0)
    c, Q = far_c.take(t, mode="clip"), far.take(t, axis=0, mode="clip")
    now = far.take(step, axis=0, mode="clip")
    R = table.beta2 ** (-0.5 * k) * far_c.take(step, mode="clip") / c
    powers_R, powers_less = [np.ones_like(R)], [np.ones_like(R)]
    for _ in range(table.n_terms - 1):
        powers_R.append(powers_R[-1] * R)
        powers_less.append(powers_less[-1] * (R - 1.0))
    decay = table.q**k
    sums = [decay * (float(now[i]) * power) for i, power in enumerate(powers_R)]
    # Not the last column: without its tail the bound covers what the subtraction rounds off, too.
    for i in range(table.n_terms):
        tail = sums[i]
        for part in range(i):
            tail = tail + sums[part] * (math.comb(i, part) * powers_less[i - part])
        Q[:, i] -= tail
    return np.maximum(Q, 0.0, out=Q)
