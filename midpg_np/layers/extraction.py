"""Extraction level of PLE: experts by scenario, shared experts, and the gates that mix them.

A level turns D + 1 streams into D + 1 streams (equations.md 5.1).  Which rows of which stream are
formed is said by two options; every choice that is allowed gives the same result (equations.md
5.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.layers.candidates import Candidates, own_rows, own_rows_backward
from midpg_np.layers.expert_gates import EveryGate, OwnGate
from midpg_np.layers.experts import ROWS, Experts, ExpertsCache
from midpg_np.layers.groups import Groups
from midpg_np.layers.mlp import mlp_multiply_adds
from midpg_np.layers.shared_gate import OwnSharedGate, SharedGate, SharedGateCache
from midpg_np.tree import Tree

SHARED_GATES = ("all", "own", "none")


class ExtractionCache(NamedTuple):
    """Caches of the parts; None where a level lacks one.

    Shapes
    ------
    S : (B, E, q)
        Outputs of all experts that were evaluated.
    """

    specific: ExpertsCache
    shared: ExpertsCache | None
    S: Array
    specific_gate: Any
    shared_gate: SharedGateCache | None
    groups: Groups


@dataclass(frozen=True)
class Extraction:
    """G^k = sum_e w^k_e S^k_e and G^s = sum_e w^s_e S_e, with the experts E in S and S^k.

    Parameters
    ----------
    candidates : Candidates
        Counts of scenarios D, specific experts m_k and shared experts m_s (0: no shared stream).
    dims : tuple of int
        Widths of an expert, input and output included.
    activation : str
        Activation of the experts, a name in ``ops.ACTIVATIONS``.
    gate_bias : bool
        Whether gates have biases.
    shared_gate : str
        "all": the shared stream mixes all experts.  "own": for a row of scenario d only those of d
        and the shared ones.  "none": no shared stream leaves this level.
    experts, gates : str
        "all": all rows pass the specific experts (the gates) of every scenario; the streams are
        (D, B, I).  "own": those of their own scenario only; the stream of each row's own scenario
        is (B, I).  Gates for all rows need experts for all rows.
    """

    candidates: Candidates
    dims: tuple[int, ...]
    activation: str = "relu"
    gate_bias: bool = True
    shared_gate: str = "all"
    experts: str = "all"
    gates: str = "all"

    def __post_init__(self) -> None:
        for name, choices in (("shared_gate", SHARED_GATES), ("experts", ROWS), ("gates", ROWS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {value!r}.")
        if self.experts == "own" and "all" in (self.gates, self.shared_gate):
            raise ValueError(
                "experts='own' leaves nothing to mix for gates='all' or shared_gate='all'."
            )
        if self.candidates.n_shared == 0 and self.shared_gate != "none":
            raise ValueError(
                f"without shared experts shared_gate must be 'none', not {self.shared_gate!r}."
            )

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Layers by name, in the order of computation."""
        c, dim_in = self.candidates, self.dims[0]
        parts: dict[str, Any] = {
            "specific": Experts(
                c.n_specific, self.dims, c.n_scenarios, self.activation, self.experts
            )
        }
        if c.n_shared:
            parts["shared"] = Experts(c.n_shared, self.dims, None, self.activation)
        own_gate = EveryGate if self.gates == "all" else OwnGate
        parts["specific_gate"] = own_gate(c, dim_in, self.gate_bias)
        if self.shared_gate != "none":
            shared_gate = SharedGate if self.experts == "all" else OwnSharedGate
            parts["shared_gate"] = shared_gate(
                c, dim_in, self.gate_bias, own=self.shared_gate == "own"
            )
        return parts

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        return {name: part.init(rng) for name, part in self.parts.items()}

    def forward(
        self, params: Tree, G: Array, G_s: Array, groups: Groups
    ) -> tuple[tuple[Array, Array | None], ExtractionCache]:
        """Return the next streams G and G_s (None if no shared stream leaves) and the cache.

        Rows are sorted by scenario.

        Shapes
        ------
        G : (D, B, I) or (B, I)
            Streams of all scenarios, or of each row's own.
        G_s : (B, I)
        """
        parts, xp = self.parts, get_xp(G)
        E_k, c_specific = parts["specific"].forward(params["specific"], G[..., None, :, :], groups)
        outputs, c_shared = [E_k.reshape(-1, *E_k.shape[-2:])], None
        if "shared" in parts:
            E_s, c_shared = parts["shared"].forward(params["shared"], G_s[None], groups)
            outputs.append(E_s)
        S = xp.concatenate(outputs).swapaxes(0, 1)
        if self._selects:
            args = own_rows(G, groups), self.candidates.of_own_rows(S, groups)
        else:
            args = G, S
        G_next, c_gate = parts["specific_gate"].forward(params["specific_gate"], *args, groups)
        G_s_next, c_shared_gate = None, None
        if "shared_gate" in parts:
            G_s_next, c_shared_gate = parts["shared_gate"].forward(
                params["shared_gate"], G_s, S, groups
            )
        cache = ExtractionCache(c_specific, c_shared, S, c_gate, c_shared_gate, groups)
        return (G_next, G_s_next), cache

    def backward(
        self, dG_next: Array, dG_s_next: Array | None, cache: ExtractionCache
    ) -> tuple[Array, Array | None, Tree]:
        """Return ``dG``, ``dG_s`` (None without a shared stream) and the gradients."""
        parts, grads, dG_s = self.parts, {}, None
        dG, dS, grads["specific_gate"] = parts["specific_gate"].backward(
            dG_next, cache.specific_gate
        )
        if self._selects:
            dG = own_rows_backward(dG, cache.groups)
            dS = self.candidates.of_own_rows_backward(dS, cache.groups)
        if "shared_gate" in parts:
            dG_s, dS_shared, grads["shared_gate"] = parts["shared_gate"].backward(
                dG_s_next, cache.shared_gate
            )
            dS = dS + dS_shared
        dE, shape = dS.swapaxes(0, 1), cache.specific.A[-1].shape
        n_specific = dE.shape[0] - self.candidates.n_shared
        dH, grads["specific"] = parts["specific"].backward(
            dE[:n_specific].reshape(shape), cache.specific
        )
        dG = dG + dH[..., 0, :, :]
        if "shared" in parts:
            dH_s, grads["shared"] = parts["shared"].backward(dE[n_specific:], cache.shared)
            dG_s = dH_s[0] if dG_s is None else dG_s + dH_s[0]
        return dG, dG_s, {name: grads[name] for name in parts}

    def kinks(self, cache: ExtractionCache) -> dict[str, Array]:
        """Pre-activations of the experts by the path of the bias that shifts them."""
        kinks: dict[str, Array] = {}
        for name in ("specific", "shared"):
            if name in self.parts:
                inner = self.parts[name].kinks(getattr(cache, name))
                kinks |= {f"{name}.{path}": A for path, A in inner.items()}
        return kinks

    @property
    def multiply_adds(self) -> int:
        """Multiplications of one row's way through the level: experts, gates, mixtures."""
        c, dim_in, dim_out = self.candidates, self.dims[0], self.dims[-1]
        n_gates = c.n_scenarios if self.gates == "all" else 1
        n_weights = n_gates * c.n_own
        if self.shared_gate != "none":
            n_weights += c.n_all if self.experts == "all" else c.n_own
        n_experts = c.n_all if self.experts == "all" else c.n_own
        return n_experts * mlp_multiply_adds(self.dims) + n_weights * (dim_in + dim_out)

    @property
    def _selects(self) -> bool:
        """Whether gates take each row's own candidates out of the list of all experts."""
        return self.experts == "all" and self.gates == "own"
