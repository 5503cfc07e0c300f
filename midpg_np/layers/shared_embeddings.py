"""A set of D embeddings of one input, their loss, and two ways to make one vector of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.affine_set import affine_set, affine_set_backward
from midpg_np.layers.groups import of_present
from midpg_np.layers.initial import init_affine, init_scenario_affine
from midpg_np.layers.mixture import mixture, mixture_backward
from midpg_np.layers.orthogonality import Orthogonality, OrthogonalityCache
from midpg_np.layers.scenario_mlp import grouped_affine, grouped_affine_backward, rows_of
from midpg_np.ops import add_to, affine, affine_backward
from midpg_np.tree import Tree

COMBINES = ("attention", "select")


class SharedCache(NamedTuple):
    """Caches of the set, the gate, the mixture (or of the rows' own maps) and the loss.

    What an option, or inference, does without is None.
    """

    embeddings: Any
    gate: Any
    combined: Any
    orthogonality: OrthogonalityCache | None
    groups: Any


@dataclass(frozen=True)
class SharedEmbeddings:
    """g_b,k = E_b A_k + a_k and m_b = sum_k w_b,k g_b,k; and the orthogonality loss of the g_b,k.

    The g have no activation: with a ReLU behind them, orthogonal would mean "never positive at the
    same place".

    Parameters
    ----------
    n_scenarios : int
        Number of embeddings D, one per scenario.
    dim_in, dim_out : int
        Width of the input E_sh and width q of each embedding.
    dim_specific : int
        Width of c, the input of the attention.
    combine : str
        "attention": w = softmax(c W + b).  "select": w is one at the row's scenario, else zero;
        then a row needs only its own g, and the loss alone needs the others.
    orthogonality : Orthogonality
        The loss.

    Raises
    ------
    ValueError
        If ``combine`` is no known name.
    """

    n_scenarios: int
    dim_in: int
    dim_out: int
    dim_specific: int
    combine: str = "attention"
    orthogonality: Orthogonality = field(default_factory=Orthogonality)

    def __post_init__(self) -> None:
        if self.combine not in COMBINES:
            raise ValueError(f"combine must be one of {COMBINES}; got {self.combine!r}.")

    @property
    def multiply_adds(self) -> int:
        """Multiplications per row predicted."""
        D, one = self.n_scenarios, self.dim_in * self.dim_out
        if self.combine == "select":
            return one
        return D * one + self.dim_specific * D + D * self.dim_out

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot maps and, if there is one, the attention."""
        maps = init_scenario_affine(rng, self.n_scenarios, self.dim_in, self.dim_out)
        params: Tree = {"A": maps["W"], "a": maps["b"]}
        if self.combine == "attention":
            params["attention"] = init_affine(rng, self.dim_specific, self.n_scenarios)
        return params

    def forward(
        self, params: Tree, c: Array, E: Array, groups: Any, with_loss: bool
    ) -> tuple[Array, Array | None, SharedCache]:
        """Return m (B, q), the loss (None without ``with_loss``) and the cache.

        See derivations 10.1b, 10.1c.

        "select" multiplies the rows of each scenario, which lie side by side, with its own A, even
        where the loss needs all of G as well: so training and prediction give the same bits.

        Shapes
        ------
        c : (B, d_c)
        E : (B, I)
        m : (B, q)
        """
        A, a = params["A"], params["a"]
        G: Any = None
        c_set: Any = None
        combined: Any
        c_gate = loss = c_loss = None
        if with_loss or self.combine == "attention":
            G, c_set = affine_set(E, A, a)
        if self.combine == "attention":
            alpha, c_gate = affine(c, **params["attention"])
            m, combined = mixture(alpha, G)
        else:
            m, combined = grouped_affine(E, of_present(A, groups), of_present(a, groups), groups)
        if with_loss:
            loss, c_loss = self.orthogonality.forward(G)
        return m, loss, SharedCache(c_set, c_gate, combined, c_loss, groups)

    def backward(
        self, dm: Array, d_loss: Array | None, cache: SharedCache
    ) -> tuple[Array | None, Array, Tree]:
        """Return ``dc`` (None if c is not read), ``dE`` and the gradients.

        See derivations 10.3g, 10.3h, 10.3i.
        """
        if self.combine == "attention":
            d_alpha, dG = mixture_backward(dm, cache.combined)
            dc, dW, db = affine_backward(d_alpha, cache.gate)
            if cache.orthogonality is not None:
                dG += self.orthogonality.backward(d_loss, cache.orthogonality)
            dE, dA, da = affine_set_backward(dG, cache.embeddings)
            return dc, dE, {"A": dA, "a": da, "attention": {"W": dW, "b": db}}
        dE_own, dA_own, da_own = grouped_affine_backward(dm, cache.combined)
        groups = cache.groups
        if cache.orthogonality is None:
            return None, dE_own, {"A": rows_of(dA_own, groups), "a": rows_of(da_own, groups)}
        dG = self.orthogonality.backward(d_loss, cache.orthogonality)
        dE, dA, da = affine_set_backward(dG, cache.embeddings)
        dA[groups.ids] += dA_own
        da[groups.ids] += da_own
        return None, add_to(dE, dE_own), {"A": dA, "a": da}
