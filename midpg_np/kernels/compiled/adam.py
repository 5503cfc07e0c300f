"""Adam in one pass as loops; functions and shapes as in ``kernels.adam``, and the same bits."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import exact_loops
from midpg_np.kernels.dispatch import empty

Now = tuple[float, float, bool]
ENTRIES_PER_BLOCK = 4096  # of a table: with moments and gradient in the second-level cache


def adam_step(
    p: Array, g: Array, m: Array, v: Array, beta1: float, beta2: float, now: Now
) -> None:  # fmt: skip
    """As ``kernels.adam_step``."""
    a, e, is_flush = now
    _dense(p, np.ascontiguousarray(g), m, v, *_constants(p, beta1, beta2, a, e))
    _flush_all(m, v, is_flush)


def adam_table(
    p: Array, m: Array, v: Array, ids: Array, rows: Array,
    beta1: float, beta2: float, now: Now,
) -> None:  # fmt: skip
    """As ``kernels.adam_table``."""
    a, e, is_flush = now
    width = p.shape[1]
    g = empty(np, (max(1, ENTRIES_PER_BLOCK // width), width), p.dtype)
    constants = _constants(p, beta1, beta2, a, e)
    _table(p, m, v, ids, np.ascontiguousarray(rows), g, *constants)
    _flush_all(m, v, is_flush)


def _constants(p: Array, beta1: float, beta2: float, a: float, e: float) -> tuple[np.floating, ...]:
    return tuple(map(p.dtype.type, (beta1, beta2, 1.0 - beta1, 1.0 - beta2, a, e)))


def _flush_all(m: Array, v: Array, is_flush: bool) -> None:
    if is_flush:
        limits = np.finfo(m.dtype)
        _flush(m.reshape(-1), v.reshape(-1), limits.tiny / limits.eps, limits.tiny)


@exact_loops
def _flush(m, v, m_limit, v_limit):
    for i in range(m.size):
        m[i] *= abs(m[i]) >= m_limit
        v[i] *= v[i] >= v_limit


@exact_loops
def _dense(p, g, m, v, decay1, decay2, rest1, rest2, a, e):
    for i in range(p.size):
        m_i = m[i] * decay1 + rest1 * g[i]
        v_i = v[i] * decay2 + g[i] * g[i] * rest2
        m[i] = m_i
        v[i] = v_i
        p[i] -= m_i / (np.sqrt(v_i) + e) * a


@exact_loops
def _table(p, m, v, ids, rows, g, decay1, decay2, rest1, rest2, a, e):
    """Step on all rows, some at a time with their gradient laid out in g.

    Minus zero where there is none: added to a product it changes no bit, not even a sign.
    """
    (V, k), n, zero = p.shape, 0, g.dtype.type(0.0)
    for first in range(0, V, len(g)):
        last = min(first + len(g), V)
        g[:] = -zero
        while n < ids.size and ids[n] < last:
            for j in range(k):
                g[ids[n] - first, j] = rows[n, j]
            n += 1
        block = slice(first, last)
        flat = p[block].reshape(-1), g.reshape(-1), m[block].reshape(-1), v[block].reshape(-1)
        _dense(*flat, decay1, decay2, rest1, rest2, a, e)
