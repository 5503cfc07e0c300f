"""Candidates of each sample, and their weighted sums (derivations 2.4c): the mixture of a gate."""

from __future__ import annotations

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused


@fused(None, compiled="mixtures")
def mix(w: Array, S: Array) -> Array:
    """g[b] = sum_e w[b,e] S[b,e].

    Shapes
    ------
    w : (B, E)
    S : (B, E, q)
    g : (B, q)
    """
    return get_xp(w=w, S=S).einsum("be,beq->bq", w, S)


@fused(None, compiled="mixtures")
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
