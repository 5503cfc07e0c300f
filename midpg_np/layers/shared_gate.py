"""Gate of the shared stream, which may mix the experts of all scenarios (derivations 5.1, 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.layers.candidates import Candidates
from midpg_np.layers.expert_gates import gate_tree, gate_weights
from midpg_np.layers.groups import Groups
from midpg_np.layers.initial import init_affine
from midpg_np.layers.mixture import MixtureCache, mixture, mixture_backward
from midpg_np.layers.scenario_mlp import grouped_affine, grouped_affine_backward, rows_of
from midpg_np.ops import AffineCache, affine, affine_backward, concat, concat_backward
from midpg_np.tree import Tree

NEVER = -1e30  # as a logit; its weight is exactly zero


class SharedGateCache(NamedTuple):
    """The maps that give the logits, which of them count (None: all), and the mixture."""

    specific: Any
    shared: AffineCache
    is_own: Array | None
    mixture: MixtureCache


@dataclass(frozen=True)
class SharedGate:
    """g = sum_e w_e S_e with w = softmax(G W + b) over the D m_k + m_s experts of a level.

    The kernel is kept in two parts: ``specific.W`` (D, I, m_k) with the columns of the specific
    experts, scenario by scenario, and ``shared.W`` (I, m_s); likewise the biases.

    Parameters
    ----------
    candidates : Candidates
        Counts of the experts.
    dim_in : int
        Width I of the shared stream.
    bias : bool
        Whether there are biases.
    own : bool
        True: a row may use the experts of its own scenario and the shared ones only.
    """

    candidates: Candidates
    dim_in: int
    bias: bool = True
    own: bool = False

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw one Glorot kernel for all experts, and zero biases."""
        return self._cut(**init_affine(rng, self.dim_in, self.candidates.n_all))

    def _join(self, params: Tree) -> tuple[Array, Array]:
        """Return W (I, D m_k + m_s) and b: the column of expert (k, e) is k m_k + e."""
        (W_k, b_k), (W_s, b_s) = gate_weights(params["specific"]), gate_weights(params["shared"])
        W = concat([W_k.swapaxes(0, 1).reshape(self.dim_in, -1), W_s])[0]
        return W, concat([b_k.reshape(-1), b_s])[0]

    def _cut(self, W: Array, b: Array) -> Tree:
        """Undo ``_join``, for initial values and gradients."""
        n, m_k = self.candidates.n_scenarios, self.candidates.n_specific
        W_k, W_s = concat_backward(W, (n * m_k, self.candidates.n_shared))
        b_k, b_s = concat_backward(b, (n * m_k, self.candidates.n_shared))
        W_k = W_k.reshape(self.dim_in, n, m_k).swapaxes(0, 1)
        return {
            "specific": gate_tree(W_k, b_k.reshape(n, m_k), self.bias),
            "shared": gate_tree(W_s, b_s, self.bias),
        }

    def forward(
        self, params: Tree, G: Array, S: Array, groups: Groups
    ) -> tuple[Array, SharedGateCache]:
        """Mix the experts for the shared stream (derivations 5.1c, 5.2a).

        Shapes
        ------
        G : (B, I)
        S : (B, E, q)
            E = D m_k + m_s experts.
        g : (B, q)
        """
        alpha, c_affine = affine(G, *self._join(params))
        is_own = None
        if self.own:
            is_own = self.candidates.is_own(groups)
            alpha = get_xp(alpha).where(is_own, alpha, NEVER)
        g, c_mixture = mixture(alpha, S)
        return g, SharedGateCache(None, c_affine, is_own, c_mixture)

    def backward(self, dg: Array, cache: SharedGateCache) -> tuple[Array, Array, Tree]:
        """Return ``dG, dS`` and the gradients (derivations 5.3b, 5.3c)."""
        d_alpha, dS = mixture_backward(dg, cache.mixture)
        if cache.is_own is not None:
            d_alpha = d_alpha * cache.is_own
        dG, dW, db = affine_backward(d_alpha, cache.shared)
        return dG, dS, self._cut(dW, db)


@dataclass(frozen=True)
class OwnSharedGate(SharedGate):
    """``SharedGate`` with ``own=True`` where a row has passed no other experts than its own.

    Only the columns of the row's scenario are read: nothing of this grows with D.
    """

    own: bool = True

    def forward(
        self, params: Tree, G: Array, S: Array, groups: Groups
    ) -> tuple[Array, SharedGateCache]:
        """Mix each row's candidates, rows sorted by scenario (derivations 5.2a).

        Shapes
        ------
        G : (B, I)
        S : (B, C, q)
            C = m_k + m_s candidates.
        g : (B, q)
        """
        W, b = gate_weights(params["specific"], groups)
        alpha_k, c_specific = grouped_affine(G, W, b, groups)
        alpha_s, c_shared = affine(G, *gate_weights(params["shared"]))
        g, c_mixture = mixture(concat([alpha_k, alpha_s])[0], S)
        return g, SharedGateCache(c_specific, c_shared, None, c_mixture)

    def backward(self, dg: Array, cache: SharedGateCache) -> tuple[Array, Array, Tree]:
        """Return ``dG, dS`` and the gradients; those of absent scenarios are exactly zero.

        See derivations 5.3b, 5.3c.
        """
        d_alpha, dS = mixture_backward(dg, cache.mixture)
        widths = (self.candidates.n_specific, self.candidates.n_shared)
        d_alpha_k, d_alpha_s = concat_backward(d_alpha, widths)
        dG_s, dW_s, db_s = affine_backward(d_alpha_s, cache.shared)
        dG_k, dW, db = grouped_affine_backward(d_alpha_k, cache.specific)
        groups = cache.specific.groups
        grads = {
            "specific": gate_tree(rows_of(dW, groups), rows_of(db, groups), self.bias),
            "shared": gate_tree(dW_s, db_s, self.bias),
        }
        return dG_k + dG_s, dS, grads
