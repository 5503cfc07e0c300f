"""The steps that rows of a table have missed, taken when they are next read, without the host.

``training/row_adam.py`` keeps on the host up to which step each row was computed.  On a GPU that
would mean to wait for the device in every step; here ``last`` is an array of the device.
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.adam import flush_limits
from midpg_np.kernels.launch import Launcher, fused, must_be_contiguous

ROUND = 32  # steps between two looks at whether a weight has come to rest

REPLAY = r"""
// gap[i] = steps that row ids[i] has missed, for the one thread that claims the row; else 0.
// ids may repeat.  last[row] < 0: the row never had a gradient and has nothing to replay.
extern "C" __global__ void claim_rows(
    const wide* ids, wide* last, wide* gap, wide n, wide step
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long* mine = (unsigned long long*)(last + ids[i]);
    wide seen = last[ids[i]];
    gap[i] = 0;
    if (seen < 0 || seen >= step) return;
    unsigned long long old = (unsigned long long)seen;
    if (atomicCAS(mine, old, (unsigned long long)step) == old) gap[i] = step - seen;
}

// One thread for each entry of the claimed rows: step by step until the gap is over, or until the
// weight cannot move any more (twice its step, subtracted, leaves it as it is); the moments of the
// steps that are left are decayed in closed form.
extern "C" __global__ void replay_rows(
    const wide* ids, const wide* gap, REAL* p, REAL* m, REAL* v, const REAL* a, const REAL* e,
    wide n, int k, wide n_sizes, wide step, int round,
    REAL decay1, REAL decay2, REAL m_limit, REAL v_limit
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    wide missed = gap[i / k], place = ids[i / k] * k + i % k;
    if (missed == 0) return;
    REAL p_i = p[place], m_i = m[place], v_i = v[place], move = 0;
    wide done = 0;
    while (done < missed) {
        ++done;
        wide t = step - missed + done;
        if (t >= n_sizes) t = n_sizes - 1;
        m_i *= decay1;
        v_i *= decay2;
        move = m_i / (sqrt(v_i) + e[t]) * a[t];
        p_i -= move;
        if (done % round && done < missed) continue;
        m_i *= (REAL)((m_i < (REAL)0 ? -m_i : m_i) >= m_limit);
        v_i *= (REAL)(v_i >= v_limit);
        if (p_i - (REAL)2 * move == p_i) break;
    }
    double rest = (double)(missed - done);
    p[place] = p_i;
    m[place] = (REAL)((double)m_i * pow((double)decay1, rest));
    v[place] = (REAL)((double)v_i * pow((double)decay2, rest));
}
"""


def _adam_replay_on_device(
    launch: Launcher, p: Array, m: Array, v: Array, last: Array, ids: Array,
    beta1: float, beta2: float, a: Array, e: Array, step: int,
) -> None:  # fmt: skip
    must_be_contiguous(p=p, m=m, v=v, last=last)
    ids, a, e = launch.inputs(ids.reshape(-1), a, e)
    n, k = ids.shape[0], p.shape[1]
    gap = launch.xp.empty((n,), dtype=np.int64)
    launch.each(REPLAY, "claim_rows", n, ids, last, gap, np.int64(n), np.int64(step))
    sizes = np.int64(n * k), np.int32(k), np.int64(a.shape[0]), np.int64(step), np.int32(ROUND)
    reals = map(launch.real, (beta1, beta2, *flush_limits(launch.dtype)))
    launch.each(REPLAY, "replay_rows", n * k, ids, gap, p, m, v, a, e, *sizes, *reals)


@fused(_adam_replay_on_device)
def adam_replay(
    p: Array, m: Array, v: Array, last: Array, ids: Array,
    beta1: float, beta2: float, a: Array, e: Array, step: int,
) -> None:  # fmt: skip
    """Bring the rows ``ids`` up to ``step``, in place.

    For t = last + 1, ..., step: m <- beta1 m, v <- beta2 v, p <- p - a_t m / (sqrt(v) + e_t).
    Weights get the bits of the whole-table form; see ``row_adam`` for what holds to rounding.

    Shapes
    ------
    p, m, v : (V, k)
    last : (V,)
        int64: step up to which the row has been computed, -1 if it never had a gradient.
    ids : any shape
        int64 in [0, V), may repeat.
    a, e : (T,)
        By step t, in the dtype of p; the last entry stands for all later steps.
    """
    ids = np.unique(ids)
    ids = ids[(last[ids] >= 0) & (last[ids] < step)]
    gap = (step - last[ids])[:, None]
    last[ids] = step
    p_r, m_r, v_r = p[ids], m[ids], v[ids]
    done, is_over = np.zeros(p_r.shape, np.int64), np.zeros(p_r.shape, bool)
    m_limit, v_limit = flush_limits(p.dtype)
    while not is_over.all():
        on = ~is_over
        done += on
        t = np.minimum(step - gap + done, a.shape[0] - 1)
        m_r[on] *= beta1
        v_r[on] *= beta2
        move = m_r / (np.sqrt(v_r) + e[t]) * a[t]
        p_r[on] -= move[on]
        looks = on & ((done % ROUND == 0) | (done == gap))
        m_r[looks] *= abs(m_r[looks]) >= m_limit
        v_r[looks] *= v_r[looks] >= v_limit
        is_over |= looks & ((p_r - 2.0 * move == p_r) | (done == gap))
    rest = (gap - done).astype(np.float64)
    p[ids] = p_r
    m[ids] = m_r * np.power(float(p.dtype.type(beta1)), rest)
    v[ids] = v_r * np.power(float(p.dtype.type(beta2)), rest)
