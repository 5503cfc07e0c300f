"""Adam in one pass over memory: a flat vector, the rows of a batch, a whole table.

Step t (see ``training/adam_core.py``), with a = a_t and e = e_t:

    m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,   p <- p - a m / (sqrt(v) + e)

``now`` is what differs from step to step: a, e, and whether small moments become zero after the
step, as a tuple of numbers, or as an array (3,) that ``adam_tick`` writes on a GPU.  With the array
a step asks the host for nothing, and a CUDA graph can take it again and again.

Kernels and NumPy forms do the same operations in the same order, each of them rounded once, so a
step on a GPU has the bits of a step on a CPU with the same gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array, address, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import Launcher, Source, must_be_contiguous

LEAVES = 64  # pieces of a gradient that one launch takes
# As CUDA's ``Leaves``; passed by value.
_LEAVES = np.dtype([("g", np.uint64, (LEAVES,)), ("end", np.int64, (LEAVES,))])
BLOCK = 16384  # elements per pass of the NumPy form, so that they stay in the second-level cache

ADAM = Source(
    rf"""
#define LEAVES {LEAVES}
"""
    + r"""
__device__ __forceinline__ void move(REAL* p, REAL m, REAL v, REAL a, REAL e) {
    *p -= m / (sqrt(v) + e) * a;
}

// Moments that approach the subnormal numbers become zero; the product keeps NaN, as NumPy does.
__device__ __forceinline__ void flush(REAL* m, REAL* v, REAL m_limit, REAL v_limit) {
    *m *= (REAL)((*m < (REAL)0 ? -*m : *m) >= m_limit);
    *v *= (REAL)(*v >= v_limit);
}

// a, e and whether moments are flushed: of the device where it knows, else as given.
struct Now { REAL a, e; bool is_flush; };
__device__ __forceinline__ Now at_present(
    const REAL* now, int on_device, REAL a, REAL e, int is_flush
) {
    if (on_device) return {now[0], now[1], now[2] > (REAL)0};
    return {a, e, is_flush != 0};
}

// Count a step, look its sizes up (the last stand for all later steps): the work of one thread.
extern "C" __global__ void adam_tick(
    wide* step, const REAL* a, const REAL* e, REAL* now, wide n, wide flush_every
) {
    if (threadIdx.x) return;
    wide t = ++step[0];
    now[0] = a[t < n ? t : n - 1];
    now[1] = e[t < n ? t : n - 1];
    now[2] = (REAL)(t % flush_every == 0);
}

__device__ __forceinline__ void accumulate(
    REAL* m, REAL* v, REAL g, REAL decay1, REAL decay2, REAL rest1, REAL rest2
) {
    *m = *m * decay1 + rest1 * g;
    *v = *v * decay2 + g * g * rest2;
}

extern "C" __global__ void adam_step(
    REAL* p, const REAL* g, REAL* m, REAL* v, wide n,
    REAL decay1, REAL decay2, REAL rest1, REAL rest2,
    const REAL* now, int on_device, REAL a, REAL e, int is_flush, REAL m_limit, REAL v_limit
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    REAL m_i = m[i], v_i = v[i];
    accumulate(&m_i, &v_i, g[i], decay1, decay2, rest1, rest2);
    Now t = at_present(now, on_device, a, e, is_flush);
    move(p + i, m_i, v_i, t.a, t.e);
    if (t.is_flush) flush(&m_i, &v_i, m_limit, v_limit);
    m[i] = m_i;
    v[i] = v_i;
}

// A flat vector of which the gradient lies in pieces: entries up to end[0] in g[0], and so on.
struct Leaves { const REAL* g[LEAVES]; wide end[LEAVES]; };

extern "C" __global__ void adam_leaves(
    REAL* p, const Leaves leaves, int n_leaves, REAL* m, REAL* v, wide n,
    REAL decay1, REAL decay2, REAL rest1, REAL rest2,
    const REAL* now, int on_device, REAL a, REAL e, int is_flush, REAL m_limit, REAL v_limit
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int low = 0, high = n_leaves - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (i < leaves.end[middle]) high = middle; else low = middle + 1;
    }
    REAL g = leaves.g[low][low ? i - leaves.end[low - 1] : i], m_i = m[i], v_i = v[i];
    accumulate(&m_i, &v_i, g, decay1, decay2, rest1, rest2);
    Now t = at_present(now, on_device, a, e, is_flush);
    move(p + i, m_i, v_i, t.a, t.e);
    if (t.is_flush) flush(&m_i, &v_i, m_limit, v_limit);
    m[i] = m_i;
    v[i] = v_i;
}

// One thread for each entry of the gradient (M, k); ids are distinct, so no two threads meet.
// An id beyond the V rows of the table is padding.
extern "C" __global__ void adam_rows(
    REAL* p, REAL* m, REAL* v, const wide* ids, const REAL* rows, wide V, wide n, int k,
    REAL decay1, REAL decay2, REAL rest1, REAL rest2,
    const REAL* now, int on_device, REAL a, REAL e, int is_flush, REAL m_limit, REAL v_limit
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || ids[i / k] >= V) return;
    wide place = ids[i / k] * k + i % k;
    REAL m_i = m[place], v_i = v[place];
    accumulate(&m_i, &v_i, rows[i], decay1, decay2, rest1, rest2);
    Now t = at_present(now, on_device, a, e, is_flush);
    move(p + place, m_i, v_i, t.a, t.e);
    if (t.is_flush) flush(&m_i, &v_i, m_limit, v_limit);
    m[place] = m_i;
    v[place] = v_i;
}

// One block for each n_mine consecutive rows of the table (V, k).  ids ascend, so the gradients of
// a block lie side by side: the first is found by bisection, the next by walking on.
extern "C" __global__ void adam_table(
    REAL* p, REAL* m, REAL* v, const wide* ids, const REAL* rows, wide V, int k, wide M, int n_mine,
    REAL decay1, REAL decay2, REAL rest1, REAL rest2,
    const REAL* now, int on_device, REAL a, REAL e, int is_flush, REAL m_limit, REAL v_limit
) {
    wide start = (wide)blockIdx.x * n_mine;
    int n = (start + n_mine < V ? n_mine : (int)(V - start)) * k;
    Now t = at_present(now, on_device, a, e, is_flush);
    wide next = 0, end = M;
    while (next < end) {
        wide middle = (next + end) / 2;
        if (ids[middle] < start) next = middle + 1; else end = middle;
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        wide row = start + i / k, place = start * k + i;
        while (next < M && ids[next] < row) ++next;
        REAL m_i = m[place], v_i = v[place];
        if (next < M && ids[next] == row) {
            accumulate(&m_i, &v_i, rows[next * k + i % k], decay1, decay2, rest1, rest2);
        } else {
            m_i *= decay1;
            v_i *= decay2;
        }
        move(p + place, m_i, v_i, t.a, t.e);
        if (t.is_flush) flush(&m_i, &v_i, m_limit, v_limit);
        m[place] = m_i;
        v[place] = v_i;
    }
}
"""
)
ENTRIES_PER_BLOCK = 1024  # of a table: four for each thread


Now = tuple[float, float, bool] | Array


def _constants(launch: Launcher, beta1: float, beta2: float, now: Now, p: Array) -> tuple[Any, ...]:
    """Return the arguments that all steps end with."""
    on_device = not isinstance(now, tuple)
    # Any valid address stands for an array that there is not; it is not read then.
    pointer, (a, e, is_flush) = (now, (0.0, 0.0, False)) if on_device else (p, now)
    decays = map(launch.real, (beta1, beta2, 1.0 - beta1, 1.0 - beta2))
    sizes = launch.real(a), launch.real(e), np.int32(is_flush)
    limits = map(launch.real, flush_limits(launch.dtype))
    return *decays, pointer, np.int32(on_device), *sizes, *limits


def _numbers(now: Now) -> tuple[float, float, bool]:
    """Return a, e and whether to flush as numbers: the NumPy forms have them on the host."""
    if isinstance(now, tuple):
        return now
    a, e, is_flush = now.tolist()
    return a, e, bool(is_flush)


def flush_limits(dtype: np.dtype) -> tuple[float, float]:
    """Return below which |m| and v are set to zero (see ``adam_core.flush``)."""
    limits = np.finfo(dtype)
    return float(limits.tiny) / float(limits.eps), float(limits.tiny)


def _flush(m: Array, v: Array) -> None:
    m_limit, v_limit = flush_limits(m.dtype)
    m *= get_xp(m).abs(m) >= m_limit
    v *= v >= v_limit


def _move(p: Array, m: Array, v: Array, a: float, e: float, scratch: Array) -> None:
    xp = get_xp(p=p, m=m, v=v)
    xp.sqrt(v, out=scratch)
    scratch += e
    xp.divide(m, scratch, out=scratch)
    scratch *= a
    p -= scratch


def _adam_step_on_device(
    launch: Launcher, p: Array, g: Array, m: Array, v: Array,
    beta1: float, beta2: float, now: Now,
) -> None:  # fmt: skip
    must_be_contiguous(p=p, m=m, v=v)
    (g,) = launch.inputs(g)
    args = p, g, m, v, np.int64(p.size), *_constants(launch, beta1, beta2, now, p)
    launch.each(ADAM, "adam_step", p.size, *args)


@fused(_adam_step_on_device, compiled="adam")
def adam_step(
    p: Array, g: Array, m: Array, v: Array, beta1: float, beta2: float, now: Now
) -> None:  # fmt: skip
    """One step on a flat vector, in place.

    Shapes
    ------
    p, g, m, v : (n,)
    """
    a, e, is_flush = _numbers(now)
    for start in range(0, p.size, BLOCK):
        block = slice(start, start + BLOCK)
        m_b, v_b, g_b = m[block], v[block], g[block]
        scratch = (1.0 - beta1) * g_b
        m_b *= beta1
        m_b += scratch
        get_xp(g).multiply(g_b, g_b, out=scratch)
        scratch *= 1.0 - beta2
        v_b *= beta2
        v_b += scratch
        _move(p[block], m_b, v_b, a, e, scratch)
        if is_flush:
            _flush(m_b, v_b)


def _adam_leaves_on_device(
    launch: Launcher, p: Array, m: Array, v: Array,
    beta1: float, beta2: float, now: Now, *gradients: Array,
) -> None:  # fmt: skip
    must_be_contiguous(p=p, m=m, v=v)
    gradients = launch.inputs(*gradients)
    start = 0
    for first in range(0, len(gradients), LEAVES):
        some = gradients[first : first + LEAVES]
        leaves = np.zeros(1, _LEAVES)
        leaves["g"][0, : len(some)] = [address(g) for g in some]
        leaves["end"][0, : len(some)] = ends = np.cumsum([g.size for g in some])
        part = slice(start, start + int(ends[-1]))
        args = p[part], leaves, np.int32(len(some)), m[part], v[part], np.int64(ends[-1])
        constants = _constants(launch, beta1, beta2, now, p)
        launch.each(ADAM, "adam_leaves", int(ends[-1]), *args, *constants)
        start = part.stop


@fused(_adam_leaves_on_device, compiled=None)
def adam_leaves(
    p: Array, m: Array, v: Array, beta1: float, beta2: float, now: Now, *gradients: Array
) -> None:
    """One step on a flat vector whose gradient lies in pieces, one after the other; in place.

    Shapes
    ------
    p, m, v : (n,)
    gradients : arrays of n entries in all, of any shapes
    """
    flat = get_xp(*gradients).concatenate([g.reshape(-1) for g in gradients])
    adam_step(p, flat, m, v, beta1, beta2, now)


def _adam_tick_on_device(
    launch: Launcher, step: Array, a: Array, e: Array, now: Array, flush_every: int
) -> None:
    args = step, a, e, now, np.int64(a.size), np.int64(flush_every)
    launch.each(ADAM, "adam_tick", 1, *args)


@fused(_adam_tick_on_device, compiled=None)
def adam_tick(step: Array, a: Array, e: Array, now: Array, flush_every: int) -> None:
    """Count a step and write its ``now``.

    Shapes
    ------
    step : (1,)
        int64: steps taken.
    a, e : (T,)
        By step; the last entries stand for all later steps.
    now : (3,)
    """
    step += 1
    t = min(int(step[0]), a.size - 1)
    now[:] = a[t], e[t], step[0] % flush_every == 0


def _adam_rows_on_device(
    launch: Launcher, p: Array, m: Array, v: Array, ids: Array, rows: Array,
    beta1: float, beta2: float, now: Now,
) -> None:  # fmt: skip
    must_be_contiguous(p=p, m=m, v=v)
    ids, rows = launch.inputs(ids, rows)
    sizes = np.int64(p.shape[0]), np.int64(rows.size), np.int32(p.shape[1])
    args = p, m, v, ids, rows, *sizes, *_constants(launch, beta1, beta2, now, p)
    launch.each(ADAM, "adam_rows", rows.size, *args)


@fused(_adam_rows_on_device, compiled=None)
def adam_rows(
    p: Array, m: Array, v: Array, ids: Array, rows: Array,
    beta1: float, beta2: float, now: Now,
) -> None:  # fmt: skip
    """One step on the rows ``ids`` of a table, in place; the other rows stay as they are.

    Shapes
    ------
    p, m, v : (V, k)
    ids : (M,)
        int64, distinct, in [0, V), perhaps with padding as in ``adam_table``.
    rows : (M, k)
        Their gradients.
    """
    a, e, is_flush = _numbers(now)
    ids, rows = _without_padding(p, ids, rows)
    m_r = m[ids] * beta1 + (1.0 - beta1) * rows
    squared = rows * rows
    squared *= 1.0 - beta2
    v_r = v[ids] * beta2 + squared
    p_r = p[ids]
    _move(p_r, m_r, v_r, a, e, squared)
    if is_flush:
        _flush(m_r, v_r)
    p[ids], m[ids], v[ids] = p_r, m_r, v_r


def _without_padding(p: Array, ids: Array, rows: Array) -> tuple[Array, Array]:
    in_table = ids < p.shape[0]
    return ids[in_table], rows[in_table]


def _adam_table_on_device(
    launch: Launcher, p: Array, m: Array, v: Array, ids: Array, rows: Array,
    beta1: float, beta2: float, now: Now,
) -> None:  # fmt: skip
    must_be_contiguous(p=p, m=m, v=v)
    ids, rows = launch.inputs(ids, rows)
    n_rows, k = p.shape
    n_mine = max(1, ENTRIES_PER_BLOCK // k)
    sizes = np.int64(n_rows), np.int32(k), np.int64(ids.shape[0]), np.int32(n_mine)
    args = p, m, v, ids, rows, *sizes, *_constants(launch, beta1, beta2, now, p)
    n_blocks = -(-n_rows // n_mine)
    launch.blocks(ADAM, "adam_table", n_blocks, 1, *args)


@fused(_adam_table_on_device, compiled="adam")
def adam_table(
    p: Array, m: Array, v: Array, ids: Array, rows: Array,
    beta1: float, beta2: float, now: Now,
) -> None:  # fmt: skip
    """One step on every row of a table, in place; rows that are not in ``ids`` have gradient 0.

    Shapes
    ------
    p, m, v : (V, k)
    ids : (M,)
        int64, ascending and distinct.  Trailing ids >= V stand for no row at all: a list of fixed
        length can be padded with them.
    rows : (M, k)
    """
    a, e, is_flush = _numbers(now)
    ids, rows = _without_padding(p, ids, rows)
    m_r = m[ids] * beta1 + (1.0 - beta1) * rows
    squared = rows * rows
    squared *= 1.0 - beta2
    v_r = v[ids] * beta2 + squared
    m *= beta1
    v *= beta2
    m[ids], v[ids] = m_r, v_r
    _move(p, m, v, a, e, get_xp(p=p).empty_like(p))
    if is_flush:
        _flush(m, v)
