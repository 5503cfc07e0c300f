"""Gates: one affine map, a softmax, and a mixture of the candidates (derivations 5.1).

A scenario has a gate of its own.  Either every gate sees all rows, as the definition reads, or a
row passes the gate of its own scenario only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.layers.candidates import Candidates
from midpg_np.layers.groups import Groups, of_present
from midpg_np.layers.initial import init_scenario_affine
from midpg_np.layers.mixture import MixtureCache, mixture, mixture_backward
from midpg_np.layers.scenario_mlp import grouped_affine, grouped_affine_backward, rows_of
from midpg_np.ops import affine, affine_backward
from midpg_np.tree import Tree


def gate_weights(params: Tree, groups: Groups | None = None) -> tuple[Array, Array]:
    """Return W and b of a gate (with groups: those present); b is zero where there is none."""
    leaves = params
    if groups is not None:
        leaves = {key: of_present(leaf, groups) for key, leaf in params.items()}
    W = leaves["W"]
    if "b" in leaves:
        return W, leaves["b"]
    return W, get_xp(W).zeros((*W.shape[:-2], W.shape[-1]), dtype=W.dtype)


def gate_tree(W: Any, b: Any, bias: bool) -> Tree:
    """Return the parameters of a gate, or their gradients: without ``b`` if there is none."""
    return {"W": W, "b": b} if bias else {"W": W}


class GateCache(NamedTuple):
    """Cache of the affine map that gives the logits alpha, and of the mixture."""

    affine: Any
    mixture: MixtureCache


@dataclass(frozen=True)
class OwnGate:
    """g_i = sum_e w_e S_i,e with w = softmax(G_i W_k + b_k), k the scenario of row i.

    Parameters
    ----------
    candidates : Candidates
        Gives the number C = m_k + m_s of candidates; ``W`` is (D, I, C) and ``b`` (D, C).
    dim_in : int
        Width I of what a gate reads.
    bias : bool
        Whether there is a ``b``.
    """

    candidates: Candidates
    dim_in: int
    bias: bool = True

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels, each scenario its own, and zero biases."""
        n, n_own = self.candidates.n_scenarios, self.candidates.n_own
        return gate_tree(**init_scenario_affine(rng, n, self.dim_in, n_own), bias=self.bias)

    def forward(self, params: Tree, G: Array, S: Array, groups: Groups) -> tuple[Array, Any]:
        """Mix each row's candidates with its own scenario's gate, rows sorted by scenario.

        See derivations 5.1b.

        Shapes
        ------
        G : (B, I)
        S : (B, C, q)
        g : (B, q)
        """
        W, b = gate_weights(params, groups)
        alpha, c_affine = grouped_affine(G, W, b, groups)
        g, c_mixture = mixture(alpha, S)
        return g, GateCache(c_affine, c_mixture)

    def backward(self, dg: Array, cache: Any) -> tuple[Array, Array, Tree]:
        """Return ``dG, dS`` and the gradients; those of absent scenarios are exactly zero.

        See derivations 5.3b, 5.3c.
        """
        d_alpha, dS = mixture_backward(dg, cache.mixture)
        dG, dW, db = grouped_affine_backward(d_alpha, cache.affine)
        groups = cache.affine.groups
        return dG, dS, gate_tree(rows_of(dW, groups), rows_of(db, groups), self.bias)


class EveryGateCache(NamedTuple):
    """Number of streams that the gates have read, D or 1, and the cache of each scenario's gate."""

    n_streams: int
    gates: tuple[GateCache, ...]


@dataclass(frozen=True)
class EveryGate(OwnGate):
    """The gates of all scenarios, each for all rows: g_k = sum_e w_k,e S^k_e.

    The parameters are those of ``OwnGate``.
    """

    def forward(self, params: Tree, G: Array, S: Array, groups: Groups) -> tuple[Array, Any]:
        """Mix for every scenario, from its candidates among all experts (derivations 5.1b).

        Shapes
        ------
        G : (D, B, I) or (1, B, I)
            One stream for every scenario, or the same for all.
        S : (B, E, q)
            E = D m_k + m_s experts.
        g : (D, B, q)
        """
        W, b = gate_weights(params)
        n_streams = G.shape[0]
        g, caches = [], []
        for k in range(self.candidates.n_scenarios):
            alpha, c_affine = affine(G[k % n_streams], W[k], b[k])
            g_k, c_mixture = mixture(alpha, self.candidates.of_scenario(S, k))
            g.append(g_k)
            caches.append(GateCache(c_affine, c_mixture))
        return get_xp(S).stack(g), EveryGateCache(n_streams, tuple(caches))

    def backward(self, dg: Array, cache: Any) -> tuple[Array, Array, Tree]:
        """Return ``dG, dS`` and the gradients; a shared expert hears from every gate.

        See derivations 5.3b, 5.3c.
        """
        xp, adjoints = get_xp(dg), []
        n_rows, _, q = cache.gates[0].mixture.S.shape
        dS = xp.zeros((n_rows, self.candidates.n_all, q), dtype=dg.dtype)
        for k, c in enumerate(cache.gates):
            d_alpha, dS_k = mixture_backward(dg[k], c.mixture)
            self.candidates.add_to(dS, k, dS_k)
            adjoints.append(affine_backward(d_alpha, c.affine))
        dG, dW, db = (xp.stack(parts) for parts in zip(*adjoints, strict=True))
        if cache.n_streams == 1:  # which every gate has read
            dG = dG.sum(axis=0, keepdims=True)
        return dG, dS, gate_tree(dW, db, self.bias)
