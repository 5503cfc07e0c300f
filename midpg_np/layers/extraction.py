"""Extraction level of PLE: experts by scenario, shared experts, and the gates that mix them.

A level turns D + 1 streams into D + 1 streams (derivations 5.1).  Which rows of which stream are
formed is said by two options; every choice that is allowed gives the same result (derivations
5.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.layers.candidates import Candidates, own_rows, own_rows_backward
from midpg_np.layers.expert_gates import EveryGate, OwnGate
from midpg_np.layers.experts import ROWS, Experts, ExpertsCache
from midpg_np.layers.groups import Groups
from midpg_np.layers.mlp import mlp_multiply_adds
from midpg_np.layers.shared_gate import OwnSharedGate, SharedGate, SharedGateCache
from midpg_np.ops import add_to
from midpg_np.tree import Tree, tree_map

SHARED_GATES = ("all", "own", "none")


class ExtractionCache(NamedTuple):
    """Caches of the parts; None where a level lacks one.

    Shapes
    ------
    S : (B, E, q)
        Outputs of all experts that were evaluated.
    """

    experts: dict[str, ExpertsCache]
    S: Array
    specific_gate: Any
    shared_gate: SharedGateCache | None
    groups: Groups
    n_streams: int


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

    Raises
    ------
    ValueError
        If a form is no known name, or leaves a gate nothing to mix.
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

        See derivations 5.1d.

        Rows are sorted by scenario.

        Shapes
        ------
        G : (D, B, I) or (1, B, I) or (B, I)
            Streams of all scenarios; G_s[None], where all streams, G_s too, are the same; or the
            stream of each row's own scenario.
        G_s : (B, I)
        """
        parts = self.parts
        S, c_experts = self._outputs(params, G, G_s, groups)
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
        cache = ExtractionCache(c_experts, S, c_gate, c_shared_gate, groups, G.shape[0])
        return (G_next, G_s_next), cache

    def backward(
        self, dG_next: Array, dG_s_next: Array | None, cache: ExtractionCache
    ) -> tuple[Array, Array | None, Tree]:
        """Return ``dG``, ``dG_s`` (None without a shared stream) and the gradients.

        See derivations 5.3d, 5.3e.
        """
        parts, grads, groups = self.parts, {}, cache.groups
        dG_s, dS = None, None
        if "shared_gate" in parts:
            dG_s, dS, grads["shared_gate"] = parts["shared_gate"].backward(
                dG_s_next, cache.shared_gate
            )
        dG, dS_own, grads["specific_gate"] = parts["specific_gate"].backward(
            dG_next, cache.specific_gate
        )
        if self._selects:
            dG = own_rows_backward(dG, groups, cache.n_streams)
            dS = self.candidates.of_own_rows_backward(dS_own, groups, onto=dS)
        else:
            dS = add_to(dS, dS_own)
        dG_experts, dG_s_experts, g_experts = self._outputs_backward(dS, cache)
        if dG_s_experts is not None:
            dG_s = add_to(dG_s, dG_s_experts)
        grads |= g_experts
        return add_to(dG, dG_experts), dG_s, {name: grads[name] for name in parts}

    def _outputs(
        self, params: Tree, G: Array, G_s: Array, groups: Groups
    ) -> tuple[Array, dict[str, ExpertsCache]]:
        """Return the outputs of all experts, S (B, E, q), and the caches of the experts.

        Where all experts read the same, those of all scenarios and the shared ones are one stack:
        their kernels side by side, and the rest as for shared experts.
        """
        parts = self.parts
        if self._reads_one_stream(G):
            S, c_all = self._all_experts.forward(self._join(params), G, groups)
            return S.swapaxes(0, 1), {"all": c_all}
        E_k, c_specific = parts["specific"].forward(params["specific"], G[..., None, :, :], groups)
        outputs, caches = [E_k.reshape(-1, *E_k.shape[-2:])], {"specific": c_specific}
        if "shared" in parts:
            E_s, caches["shared"] = parts["shared"].forward(params["shared"], G_s[None], groups)
            outputs.append(E_s)
        return get_xp(G).concatenate(outputs).swapaxes(0, 1), caches

    def _outputs_backward(
        self, dS: Array, cache: ExtractionCache
    ) -> tuple[Array, Array | None, Tree]:
        """Return what the experts send to G and to G_s (None: nothing) and their gradients."""
        parts, dE, grads, dG_s = self.parts, dS.swapaxes(0, 1), {}, None  # dS is a fresh array
        if "all" in cache.experts:
            dG, g_all = self._all_experts.backward(dE, cache.experts["all"], gives_up=True)
            return dG, None, self._cut(g_all)
        n_specific = dE.shape[0] - self.candidates.n_shared
        shape = cache.experts["specific"].A[-1].shape
        dH, grads["specific"] = parts["specific"].backward(
            dE[:n_specific].reshape(shape), cache.experts["specific"], gives_up=True
        )
        if "shared" in parts:
            dH_s, grads["shared"] = parts["shared"].backward(
                dE[n_specific:], cache.experts["shared"], gives_up=True
            )
            dG_s = dH_s[0]
        return dH[..., 0, :, :], dG_s, grads

    def _reads_one_stream(self, G: Array) -> bool:
        return self.experts == "all" and G.shape[0] == 1 and self.candidates.n_scenarios > 1

    @cached_property
    def _all_experts(self) -> Experts:
        """The experts of all scenarios and the shared ones as one stack."""
        return Experts(self.candidates.n_all, self.dims, None, self.activation)

    def _join(self, params: Tree) -> Tree:
        """Return the parameters of all experts as one stack; kernels lie side by side in memory."""
        layers: Tree = {}
        for name, specific in params["specific"].items():
            stacks = {key: [leaf.reshape(-1, *leaf.shape[2:])] for key, leaf in specific.items()}
            if "shared" in params:
                stacks = {key: [*s, params["shared"][name][key]] for key, s in stacks.items()}
            xp, by_input = get_xp(*stacks["W"]), [W.swapaxes(0, 1) for W in stacks["W"]]
            # As one product reads them.  Left to itself, concatenate stores what its inputs do.
            _, dim_in, dim_out = stacks["W"][0].shape
            shape = dim_in, self.candidates.n_all, dim_out
            joined = kernels.empty(xp, shape, xp.result_type(*by_input))
            W = xp.concatenate(by_input, axis=1, out=joined).swapaxes(0, 1)
            layers[name] = {"W": W, "b": xp.concatenate(stacks["b"])}
        return layers

    def _cut(self, stack: Tree) -> Tree:
        """Undo ``_join``, for gradients and pre-activations; the experts are on the first axis."""
        c = self.candidates
        n_specific = c.n_scenarios * c.n_specific
        by_scenario = tree_map(
            lambda x: x[:n_specific].reshape(c.n_scenarios, c.n_specific, *x.shape[1:]), stack
        )
        shared = tree_map(lambda x: x[n_specific:], stack)
        return {"specific": by_scenario} | ({"shared": shared} if c.n_shared else {})

    def kinks(self, cache: ExtractionCache) -> dict[str, Array]:
        """Pre-activations of the experts by the path of the bias that shifts them."""
        if "all" in cache.experts:
            by_part = self._cut(self._all_experts.kinks(cache.experts["all"]))
        else:
            by_part = {name: self.parts[name].kinks(c) for name, c in cache.experts.items()}
        return {f"{name}.{path}": A for name, inner in by_part.items() for path, A in inner.items()}

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
