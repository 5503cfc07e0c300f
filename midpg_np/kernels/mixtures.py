"""Candidates of each sample, and their weighted sums (derivations 2.4c): the mixture of a gate."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import THREADS, Launcher, Source

# Candidate (b, e) begins at b * of_b + e * of_e, in S and in dS.
MIXTURE = Source(
    r"""
// g[b,i] = sum_e w[b,e] S[b,e,i]; a thread for each (b,i).
extern "C" __global__ void mix(
    const REAL* w, const REAL* S, REAL* g, wide n, int E, int q, wide of_b, wide of_e
) {
    wide at = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) return;
    wide b = at / q;
    REAL sum = 0;
    for (int e = 0; e < E; ++e) sum += w[b * E + e] * S[b * of_b + e * of_e + at % q];
    g[at] = sum;
}

// dw[b,e] = sum_i dg[b,i] S[b,e,i] and dS[b,e,i] = w[b,e] dg[b,i]; a warp for each (b,e).
extern "C" __global__ void mix_backward(
    const REAL* dg, const REAL* w, const REAL* S, REAL* dw, REAL* dS,
    wide n, int E, int q, wide of_b, wide of_e
) {
    wide pair = ((wide)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    bool is_mine = pair < n;  // all lanes of a warp are needed for its sum
    if (!is_mine) pair = n - 1;
    wide b = pair / E, first = b * of_b + pair % E * of_e;
    REAL weight = w[pair], sum = 0;
    for (int i = threadIdx.x % 32; i < q; i += 32) {
        REAL d = dg[b * q + i];
        sum += d * S[first + i];
        if (is_mine) dS[first + i] = weight * d;
    }
    sum = warp_sum(sum);
    if (is_mine && threadIdx.x % 32 == 0) dw[pair] = sum;
}
""",
    is_exact=False,
)


def _stored(launch: Launcher, S: Array) -> tuple[Array, bool, tuple[Any, ...]]:
    """Return S (B, E, q) or, if it is stored by candidate, (E, B, q); which; E, q, of_b, of_e."""
    n_samples, n_candidates, q = S.shape
    by_sample = S.strides[0] >= S.strides[1]
    (stored,) = launch.inputs(S if by_sample else S.swapaxes(0, 1))
    steps = (n_candidates * q, q) if by_sample else (q, n_samples * q)
    sizes = np.int32(n_candidates), np.int32(q), *map(np.int64, steps)
    return stored, by_sample, sizes


def _mix_on_device(launch: Launcher, w: Array, S: Array) -> Array:
    (w,), (stored, _, sizes) = launch.inputs(w), _stored(launch, S)
    g = launch.empty(S.shape[0], S.shape[2])
    launch.each(MIXTURE, "mix", g.size, w, stored, g, np.int64(g.size), *sizes)
    return g


def _mix_backward_on_device(launch: Launcher, dg: Array, w: Array, S: Array) -> tuple[Array, Array]:
    (dg, w), (stored, by_sample, sizes) = launch.inputs(dg, w), _stored(launch, S)
    dw, dS = launch.empty(*w.shape), launch.empty(*stored.shape)
    args = dg, w, stored, dw, dS, np.int64(w.size), *sizes
    launch.blocks(MIXTURE, "mix_backward", -(-32 * w.size // THREADS), 1, *args)
    return dw, dS if by_sample else dS.swapaxes(0, 1)


@fused(_mix_on_device, compiled="mixtures")
def mix(w: Array, S: Array) -> Array:
    """g[b] = sum_e w[b,e] S[b,e].

    Shapes
    ------
    w : (B, E)
    S : (B, E, q)
    g : (B, q)
    """
    return get_xp(w=w, S=S).einsum("be,beq->bq", w, S)


@fused(_mix_backward_on_device, compiled="mixtures")
def mix_backward(dg: Array, w: Array, S: Array) -> tuple[Array, Array]:
    """Return dw[b,e] = <dg[b], S[b,e]> and dS[b,e] = w[b,e] dg[b], stored as S is.

    Shapes
    ------
    dg : (B, q)
    dw : (B, E)
    dS : (B, E, q)
    """
    xp = get_xp(dg=dg, w=w, S=S)
    # From the copy, in the order of its axes, dS comes out in the order of its own.
    return xp.einsum("bq,beq->be", dg, S), xp.einsum("be,bq->beq", w.copy(), dg)


@fused(None, compiled="mixtures")
def take_candidates(S: Array, places: Array) -> Array:
    """S_own[b,c] = S[b, places[b,c]].

    Shapes
    ------
    S : (B, E, q)
    places : (B, C)
    S_own : (B, C, q)
    """
    rows = get_xp(S=S, places=places).arange(len(S))[:, None]
    return S[rows, places]


@fused(None, compiled="mixtures")
def give_candidates(dS_own: Array, places: Array, dS: Array) -> Array:
    """Return dS with dS[b, places[b,c]] += dS_own[b,c]; dS is given up.

    The places of a sample are distinct.
    """
    rows = get_xp(dS_own=dS_own, places=places, dS=dS).arange(len(dS))[:, None]
    dS[rows, places] += dS_own
    return dS
