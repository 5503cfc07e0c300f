"""Mixtures as loops; functions and shapes as in ``kernels.mixtures``.

Candidates lie (B, E, q) or (E, B, q) in memory; ``by_sample`` says which.
"""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def mix(w: Array, S: Array) -> Array:
    """As ``kernels.mix``."""
    stored, by_sample = _stored(S)
    g = empty(np, (S.shape[0], S.shape[2]), S.dtype)
    run(_mix, contiguous(w), stored, by_sample, g)
    return g


def mix_backward(dg: Array, w: Array, S: Array) -> tuple[Array, Array]:
    """As ``kernels.mix_backward``."""
    stored, by_sample = _stored(S)
    dw, dS = empty(np, w.shape, w.dtype), empty(np, stored.shape, S.dtype)
    args = contiguous(dg), contiguous(w), stored, by_sample, dw, dS
    run(_mix_backward, *args)
    return dw, dS if by_sample else dS.swapaxes(0, 1)


def take_candidates(S: Array, places: Array) -> Array:
    """As ``kernels.take_candidates``."""
    run(_check_places, places, S.shape[1])
    S_own = empty(np, (*places.shape, S.shape[2]), S.dtype)
    run(_take, *_stored(S), contiguous(places), S_own)
    return S_own


def give_candidates(dS_own: Array, places: Array, dS: Array) -> Array:
    """As ``kernels.give_candidates``."""
    run(_check_places, places, dS.shape[1])
    stored, by_sample = _stored(dS)
    run(_give, contiguous(dS_own), contiguous(places), stored, by_sample)
    return stored if by_sample else stored.swapaxes(0, 1)


def _check_places(places: Array, n_places: int) -> None:
    if places.size and not 0 <= places.min() <= places.max() < n_places:  # loops do not look
        raise IndexError(
            f"places must lie in [0, {n_places}); got {places.min()} to {places.max()}."
        )


def _stored(S: Array) -> tuple[Array, bool]:
    by_sample = S.strides[0] >= S.strides[1]
    return contiguous(S if by_sample else S.swapaxes(0, 1)), by_sample


@fast_loops
def _mix(w, S, by_sample, g):
    for b in range(w.shape[0]):
        for i in range(g.shape[1]):
            g[b, i] = 0.0
        for e in range(w.shape[1]):
            candidate = S[b, e] if by_sample else S[e, b]
            for i in range(g.shape[1]):
                g[b, i] += w[b, e] * candidate[i]


@fast_loops
def _mix_backward(dg, w, S, by_sample, dw, dS):
    for b in range(w.shape[0]):
        for e in range(w.shape[1]):
            candidate = S[b, e] if by_sample else S[e, b]
            d_candidate = dS[b, e] if by_sample else dS[e, b]
            dot = w.dtype.type(0.0)
            for i in range(dg.shape[1]):
                dot += dg[b, i] * candidate[i]
                d_candidate[i] = w[b, e] * dg[b, i]
            dw[b, e] = dot


@fast_loops
def _take(S, by_sample, places, S_own):
    for b in range(places.shape[0]):
        for c in range(places.shape[1]):
            e = places[b, c]
            candidate = S[b, e] if by_sample else S[e, b]
            for i in range(candidate.size):
                S_own[b, c, i] = candidate[i]


@fast_loops
def _give(dS_own, places, dS, by_sample):
    for b in range(places.shape[0]):
        for c in range(places.shape[1]):
            e = places[b, c]
            d_candidate = dS[b, e] if by_sample else dS[e, b]
            for i in range(d_candidate.size):
                d_candidate[i] += dS_own[b, c, i]
