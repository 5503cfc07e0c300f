"""Mutual-information regulariser (MIR): tell matching pairs of context and core from shuffled ones.

A pair is a context e (the scenario-aware embeddings) and a signal q (the core of a weighting
matrix).  One discriminator T scores (e_b, q_b) and (e_pi(b), q_b); minus its loss is, up to a
constant, a lower bound on the dependence of e and q, and discriminator, generators and embeddings
all minimise it together (derivations 3.3, 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.layers.discriminator import DISCRIMINATORS, PairAdjoints
from midpg_np.layers.expansion import Expansion
from midpg_np.losses import JensenShannonCache, jensen_shannon, jensen_shannon_backward
from midpg_np.tree import Tree, tree_add, tree_set
from midpg_np.workspace import Workspace


class MICache(NamedTuple):
    """Logits of matching and shuffled pairs, (B,) each, and what the backward needs."""

    t_pos: Array
    t_neg: Array
    loss: JensenShannonCache
    scores: Any


@dataclass(frozen=True)
class MutualInformation:
    """L_mi = mean of softplus(-T(e_b, q_b)) + softplus(T(e_neg_b, q_b)), e_neg_b = e_pi(b).

    Parameters
    ----------
    dim_context : int
        Width of e.
    dim_signal : int
        Width of q as it comes in.
    disc : str
        "mlp" or "bilinear".
    hidden : tuple of int
        Hidden widths of the "mlp" discriminator.
    expansion : Expansion, optional
        The discriminator reads psi(Q) in place of the cores Q.
    form : str
        "textbook": expand q, score matching and shuffled pairs in two passes, add the gradients.
        "grouped": fold the expansion into the weights, share the product with q of both passes.

    Raises
    ------
    ValueError
        If ``disc`` or ``form`` is no known name.
    """

    dim_context: int
    dim_signal: int
    disc: str = "mlp"
    hidden: tuple[int, ...] = (32,)
    expansion: Expansion | None = None
    form: str = "grouped"

    def __post_init__(self) -> None:
        if self.disc not in DISCRIMINATORS:
            raise ValueError(f"disc must be one of {tuple(DISCRIMINATORS)}; got {self.disc!r}.")
        if self.form not in ("grouped", "textbook"):
            raise ValueError(f"form must be 'grouped' or 'textbook'; got {self.form!r}.")

    def _discriminator(self, dim_signal: int) -> Any:
        options = {"hidden": self.hidden} if self.disc == "mlp" else {}
        return DISCRIMINATORS[self.disc](self.dim_context, dim_signal, **options)

    @cached_property
    def discriminator(self) -> Any:
        """The discriminator as parametrised: it reads what ``expansion`` makes of the signal."""
        full = self.expansion.dim_full if self.expansion else self.dim_signal
        return self._discriminator(full)

    @cached_property
    def _folded(self) -> Any:
        """The discriminator on the unexpanded signal."""
        return self._discriminator(self.dim_signal)

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw the discriminator."""
        return self.discriminator.init(rng)

    def forward(self, params: Tree, e: Array, e_neg: Array, q: Array) -> tuple[Array, MICache]:
        """Return the loss, a scalar (derivations 3.3a).

        Shapes
        ------
        e : (B, dim_context)
            Contexts of the matching pairs.
        e_neg : (B, dim_context)
            Contexts of the shuffled pairs; see ``negatives.shuffle``.
        q : (B, dim_signal)
        """
        if self.form == "textbook":
            s = self.expansion.expand(q) if self.expansion else q
            t_pos, c_pos = self.discriminator.score(params, e, s)
            t_neg, c_neg = self.discriminator.score(params, e_neg, s)
            scores: Any = (c_pos, c_neg)
        else:
            t_pos, t_neg, scores = self._folded.score_pairs(self._fold(params), e, e_neg, q)
        loss, c_loss = jensen_shannon(t_pos, t_neg)
        return loss, MICache(t_pos, t_neg, c_loss, scores)

    def backward(
        self, d_loss: Array, cache: MICache, workspace: Workspace | None = None
    ) -> PairAdjoints:
        """Return ``d_e, d_e_neg, d_q`` and the gradients of the discriminator.

        See derivations 3.4q.
        """
        dt_pos, dt_neg = jensen_shannon_backward(d_loss, cache.loss)
        if self.form == "grouped":
            *adjoints, grads = self._folded.score_pairs_backward(
                dt_pos, dt_neg, cache.scores, workspace
            )
            return *adjoints, self._unfold(grads)
        c_pos, c_neg = cache.scores
        d_e, d_s_pos, g_pos = self.discriminator.score_backward(dt_pos, c_pos)
        d_e_neg, d_s_neg, g_neg = self.discriminator.score_backward(dt_neg, c_neg)
        d_s = d_s_pos + d_s_neg
        d_q = self.expansion.fold(d_s) if self.expansion else d_s
        return d_e, d_e_neg, d_q, tree_add(g_pos, g_neg)

    def kinks(self, cache: MICache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, matching pairs on top."""
        if self.form == "grouped":
            return self._folded.kinks(cache.scores)
        if self.disc == "bilinear":
            return {}
        pos, neg = (self.discriminator.mlp.kinks(c) for c in cache.scores)
        return {path: _stack(pos[path], neg[path]) for path in pos}

    def _fold(self, params: Tree) -> Tree:
        """Parameters of the discriminator that reads cores, from those of one that reads psi(Q).

        See derivations 3.5i.
        """
        if self.expansion is None:
            return params
        if self.disc == "bilinear":
            return tree_set(params, "M", self.expansion.fold(params["M"]))
        W = params["layer_1"]["W"]
        W_e, W_s = W[: self.dim_context], W[self.dim_context :]
        return tree_set(params, "layer_1.W", _stack(W_e, self.expansion.fold(W_s.T).T))

    def _unfold(self, grads: Tree) -> Tree:
        """Adjoint of ``_fold``: every copy of a core entry gets the gradient of that entry.

        See derivations 3.5j.
        """
        if self.expansion is None:
            return grads
        if self.disc == "bilinear":
            return tree_set(grads, "M", self.expansion.expand(grads["M"]))
        dW = grads["layer_1"]["W"]
        dW_e, dW_q = dW[: self.dim_context], dW[self.dim_context :]
        return tree_set(grads, "layer_1.W", _stack(dW_e, self.expansion.expand(dW_q.T).T))


def _stack(top: Array, bottom: Array) -> Array:
    return get_xp(top=top, bottom=bottom).concatenate([top, bottom])
