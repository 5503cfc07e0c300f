"""PLE with one task per scenario: specific and shared experts, mixed by gates (derivations 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.candidates import Candidates, own_rows, own_rows_backward
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.extraction import Extraction, ExtractionCache
from midpg_np.layers.groups import Groups
from midpg_np.layers.mlp import mlp_multiply_adds
from midpg_np.layers.scenario_mlp import AFFINE_FORMS, ScenarioMLP, ScenarioMLPCache
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.routed import Routed, in_order_of_batch, in_order_of_groups
from midpg_np.ops import check_activation
from midpg_np.tree import Tree, tree_size
from midpg_np.workspace import Workspace

SHARED_GATE_SCOPES = ("all", "own")


class PLECache(NamedTuple):
    """Intermediates of a forward pass, rows sorted by scenario."""

    groups: Groups
    levels: dict[str, ExtractionCache]
    tower: ScenarioMLPCache
    detached: dict[str, Array]


@dataclass(frozen=True)
class PLE(Routed):
    """z_i = tower^k(G^{k,J}_i) with k = s_i, behind J levels of experts and gates.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields; they are ordinary inputs here.
    n_scenarios : int
        Number of scenarios D, each a task with experts, gates and a tower of its own.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers on a row's way, those of its experts and then of its tower.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    expert_layers : tuple of int
        Layers of an expert at each of the J levels; their widths are taken from ``hidden`` in
        turn, and what is left of it is the tower.  One number alone is CGC.
    n_specific : int
        Specific experts m_k of each scenario at each level.
    n_shared : int
        Shared experts m_s at each level.  0: no shared stream, the scenarios share embeddings only.
    shared_gate_scope : str
        "all": the shared stream mixes the experts of all scenarios.  "own": for a row of scenario d
        those of d and the shared ones only.
    gate_bias : bool
        Whether gates have biases.
    form : str
        "grouped": a row passes what its logit depends on, and nothing else.  "textbook": all rows
        pass all experts and gates, and their own are picked at the end.

    Raises
    ------
    ValueError
        For an option that is no known name or out of its range; the message says what would do.
    """

    vocab_sizes: tuple[int, ...]
    n_aware: int
    n_scenarios: int
    dim_embedding: int = 8
    hidden: tuple[int, ...] = (128, 64, 32)
    activation: str = "relu"
    expert_layers: tuple[int, ...] = (1, 1)
    n_specific: int = 1
    n_shared: int = 1
    shared_gate_scope: str = "all"
    gate_bias: bool = True
    form: str = "grouped"

    drops_embeddings = True

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if not self.expert_layers or min(self.expert_layers) < 1:
            raise ValueError(
                f"expert_layers must hold at least one number of at least 1; "
                f"got {self.expert_layers}."
            )
        if sum(self.expert_layers) > len(self.hidden) or min(self.hidden) < 1:
            raise ValueError(
                f"hidden must hold {sum(self.expert_layers)} widths or more, each at least 1, for "
                f"experts of {self.expert_layers} layers; got {self.hidden}."
            )
        for name, least in (("n_scenarios", 1), ("n_specific", 1), ("n_shared", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")
        for name, choices in (("shared_gate_scope", SHARED_GATE_SCOPES), ("form", AFFINE_FORMS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {tuple(choices)}; got {getattr(self, name)!r}."
                )

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @cached_property
    def levels(self) -> dict[str, Extraction]:
        """Extraction levels by name, in order."""
        widths = (len(self.vocab_sizes) * self.dim_embedding, *self.hidden)
        levels, start = {}, 0
        for j, n_layers in enumerate(self.expert_layers, start=1):
            dims = widths[start : start + n_layers + 1]
            levels[f"level_{j}"] = self._level(dims, len(self.expert_layers) - j)
            start += n_layers
        return levels

    def _level(self, dims: tuple[int, ...], n_above: int) -> Extraction:
        """Build a level with so many levels above it.

        A row's logit reads streams of other scenarios through shared gates of scope "all" only:
        then the experts below such a gate are needed for all rows, and so are the gates below those
        experts.
        """
        shared_gate = self.shared_gate_scope if self.n_shared and n_above else "none"
        is_textbook = self.form == "textbook"
        reaches_others = self.n_shared > 0 and self.shared_gate_scope == "all"
        return Extraction(
            Candidates(self.n_scenarios, self.n_specific, self.n_shared),
            dims,
            self.activation,
            self.gate_bias,
            shared_gate,
            experts="all" if is_textbook or (reaches_others and n_above >= 1) else "own",
            gates="all" if is_textbook or (reaches_others and n_above >= 2) else "own",
        )

    @cached_property
    def tower(self) -> ScenarioMLP:
        """One tower per scenario, one logit wide at its end."""
        dims = (*self.hidden[sum(self.expert_layers) - 1 :], 1)
        return ScenarioMLP(self.n_scenarios, dims, self.activation, self.form)

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """No auxiliary loss."""
        return {}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        params: Tree = {"embedding": self.embedding.init(rng)}
        params |= {name: level.init(rng) for name, level in self.levels.items()}
        return params | {"tower": self.tower.init(rng)}

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    @property
    def has_fixed_work(self) -> bool:
        """Whether a device gets the same work for every batch of one size.

        On a CPU, which passes over scenarios without rows: and with as many scenarios.
        """
        return self.form == "grouped"

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, PLECache]:
        """Return the logits (B,) and the cache (derivations 5.1d)."""
        G_s, groups = self.sorted_rows(inputs)
        # G^{k,0} = X for every k: one stream in the place of all.
        G, caches = G_s if self.levels["level_1"].experts == "own" else G_s[None], {}
        for name, level in self.levels.items():
            (G, G_s), caches[name] = level.forward(params[name], G, G_s, groups)
        if self.form == "textbook":
            G = own_rows(G, groups)
        z, c_tower = self.tower.forward(params["tower"], G, groups)
        cache = PLECache(groups, caches, c_tower, {})
        return ModelOutput(in_order_of_batch(z, groups), {}), cache

    def network_backward(
        self, d_output: ModelOutput, cache: PLECache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables (derivations 5.3a, 5.3f)."""
        groups, grads = cache.groups, {}
        dz = in_order_of_groups(d_output.logit, groups)
        dG, grads["tower"] = self.tower.backward(dz, cache.tower)
        if self.form == "textbook":
            dG = own_rows_backward(dG, groups, self.n_scenarios)
        dG_s = None
        for name, level in reversed(self.levels.items()):
            dG, dG_s, grads[name] = level.backward(dG, dG_s, cache.levels[name])
        dX = dG if self.levels["level_1"].experts == "own" else dG[0]
        if dG_s is not None:
            dX = dX + dG_s
        return (dX,), {name: grads[name] for name in (*self.levels, "tower")}

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        kinks: dict[str, Array] = {}
        for name, level in self.levels.items():
            inner = level.kinks(cache.network.levels[name])
            kinks |= {f"{name}.{path}": A for path, A in inner.items()}
        inner = self.tower.kinks(cache.network.tower)
        return kinks | {f"tower.{path}": A for path, A in inner.items()}

    def count_params(self) -> ParamCount:
        """Count by drawing: the tree is the truth (derivations 5.5a)."""
        params = self.init(np.random.default_rng(0))
        embedding = tree_size(params.pop("embedding"))
        multiply_adds = sum(level.multiply_adds for level in self.levels.values())
        multiply_adds += mlp_multiply_adds(self.tower.dims)
        return ParamCount(tree_size(params), 0, embedding, multiply_adds)
