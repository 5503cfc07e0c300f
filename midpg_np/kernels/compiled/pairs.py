"""The discriminator behind its products as loops; functions and shapes as in ``kernels.pairs``."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def pair_scores(e: Array, s: Array, bias: Array, w: Array, c: Array) -> tuple[Array, Array]:
    """As ``kernels.pair_scores``."""
    e, s = contiguous(e), contiguous(s)
    t = empty(np, (e.shape[1],), e.dtype)
    n_samples = s.shape[1]
    run(_scores, e.reshape(-1, 2, n_samples), s, bias, w, c, t.reshape(2, n_samples))
    return t, e


def pair_scores_backward(dt: Array, A: Array, w: Array) -> tuple[Array, ...]:
    """As ``kernels.pair_scores_backward``."""
    n_hidden, n_samples = A.shape[0], A.shape[1] // 2
    dA, ds = empty(np, A.shape, A.dtype), empty(np, (n_hidden, n_samples), A.dtype)
    d_bias, dw = (empty(np, w.shape, w.dtype) for _ in range(2))
    pairs = (n_hidden, 2, n_samples)
    dt = contiguous(dt).reshape(2, n_samples)
    run(_scores_backward, dt, A.reshape(pairs), w, dA.reshape(pairs), ds, d_bias, dw)
    return dA, ds, d_bias, dw


@fast_loops
def _scores(A, s, bias, w, c, t):
    t[:] = c[0]
    for v in range(A.shape[0]):
        for kind in range(2):
            _add_score(A[v, kind], s[v], bias[v], w[v], t[kind])


@fast_loops
def _add_score(A, s, bias, w, t):
    for b in range(s.size):
        a = A[b] + (s[b] + bias)
        A[b] = a
        t[b] += w * (a * (a > 0.0))


@fast_loops
def _scores_backward(dt, A, w, dA, ds, d_bias, dw):
    for v in range(A.shape[0]):
        dw[v] = _score_backward(dt[0], A[v, 0], w[v], dA[v, 0])
        dw[v] += _score_backward(dt[1], A[v, 1], w[v], dA[v, 1])
        d_bias[v] = _sum_of_both(dA[v, 0], dA[v, 1], ds[v])


@fast_loops
def _score_backward(dt, A, w, dA):
    dw = A.dtype.type(0.0)
    for b in range(dt.size):
        d = dt[b] * (A[b] > 0.0)
        dA[b] = d * w
        dw += d * A[b]
    return dw


@fast_loops
def _sum_of_both(pos, neg, both):
    total = pos.dtype.type(0.0)
    for b in range(pos.size):
        both[b] = pos[b] + neg[b]
        total += both[b]
    return total
