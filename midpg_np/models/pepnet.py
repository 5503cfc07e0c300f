"""PEPNet: gates on the embeddings and on every hidden layer (derivations 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.fields import PickedFields, pick_fields, pick_fields_backward
from midpg_np.layers.gate import Gate, GateCache
from midpg_np.layers.gated_tower import GatedTower, GatedTowerCache
from midpg_np.layers.groups import Groups
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.routed import Routed, in_order_of_batch, in_order_of_groups
from midpg_np.models.stop_gradient import StopGradient
from midpg_np.ops import add_to_columns, concat
from midpg_np.tree import Tree, tree_size
from midpg_np.workspace import Workspace

TOWERS = ("shared", "per_scenario")
EP_INPUTS = ("all", "agnostic")


class PEPNetCache(NamedTuple):
    """Intermediates of a forward pass; with towers per scenario, all rows sorted by scenario.

    Shapes
    ------
    X : (B, d_0)
    E : (B, d_E)
    O : (B, d_0)
    E_prior : (B, d_prior)
    """

    groups: Groups | None
    X: Array
    E: Array
    epnet: GateCache
    O: Array  # noqa: E741
    prior: PickedFields
    E_prior: Array
    ppnet: GatedTowerCache
    detached: dict[str, Array]


@dataclass(frozen=True)
class PEPNet(Routed):
    """O = delta_dom E with delta_dom = g([E_dom, sg(E)]); a tower gated by g_l([E_prior, sg(O)]).

    E_dom are the scenario-aware embeddings E_aw.  What stands behind sg is read by the gates but
    learns nothing from them; the domain's and the prior's embeddings do learn from them.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields.
    n_scenarios : int
        Number of scenarios D.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers; each is gated.
    activation : str
        Activation of the tower, a name in ``ops.ACTIVATIONS``; gates keep ReLU.
    gate_at : str
        "hidden_output": what each hidden layer puts out is gated.  "layer_input": O as well.
    towers : str
        "shared": one tower for all scenarios.  "per_scenario": one each, and gates with one block
        of outputs each.
    ep_input : str
        "all": E = [E_aw, E_ag].  "agnostic": E = E_ag, and O = [E_aw, delta_dom E_ag].
    prior_fields : tuple of int
        Fields whose embeddings are E_prior, such as user and item; empty: all agnostic fields.
    prior_scenario : bool
        Append the scenario-aware fields to the prior, unless they are in it already.
    gate_hidden : int or None
        Hidden width of each gate; None is the width of its output (of one block of it).
    gamma : float
        Gates lie in (0, gamma); 2 centres them at 1.

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
    gate_at: str = "hidden_output"
    towers: str = "shared"
    ep_input: str = "all"
    prior_fields: tuple[int, ...] = ()
    prior_scenario: bool = False
    gate_hidden: int | None = 32
    gamma: float = 2.0

    drops_embeddings = True
    has_fixed_work = True

    def __post_init__(self) -> None:
        n_fields = len(self.vocab_sizes)
        if not 1 <= self.n_aware <= n_fields:
            raise ValueError(
                f"n_aware must lie in [1, {n_fields}], the number of fields; got {self.n_aware}. "
                "The gate on the embeddings needs at least one scenario-aware field."
            )
        for name, choices in (("towers", TOWERS), ("ep_input", EP_INPUTS)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {value!r}.")
        fields = self.prior_fields
        if len(set(fields)) < len(fields) or not set(fields) <= set(range(n_fields)):
            raise ValueError(
                f"prior_fields must be distinct fields in [0, {n_fields}); got {fields}."
            )
        if not self.priors or (self.ep_input == "agnostic" and self.n_aware == n_fields):
            raise ValueError(
                f"n_aware = {self.n_aware} leaves no agnostic field, which ep_input='agnostic' and "
                "an empty prior_fields need."
            )
        _ = self.epnet, self.ppnet  # report wrong options of the gates now, not at the first batch

    @property
    def routes_by_scenario(self) -> bool:
        """Whether the scenario's id chooses a tower."""
        return self.towers == "per_scenario"

    @property
    def priors(self) -> tuple[int, ...]:
        """Fields whose embeddings are E_prior."""
        fields = self.prior_fields or tuple(range(self.n_aware, len(self.vocab_sizes)))
        aware = tuple(range(self.n_aware)) if self.prior_scenario else ()
        return (*fields, *(field for field in aware if field not in fields))

    @property
    def dim_input(self) -> int:
        """Width d_0 of X and of O."""
        return len(self.vocab_sizes) * self.dim_embedding

    @property
    def dim_aware(self) -> int:
        """Width d_aw of E_aw, the domain's embedding E_dom."""
        return self.n_aware * self.dim_embedding

    @property
    def start(self) -> int:
        """First column of X that EPNet gates."""
        return 0 if self.ep_input == "all" else self.dim_aware

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @cached_property
    def epnet(self) -> Gate:
        """Gate on the embeddings, with [E_dom, sg(E)] as input."""
        dim_gated = self.dim_input - self.start
        return Gate(
            self.dim_aware + dim_gated,
            dim_gated,
            self.gate_hidden,
            self.gamma,
            dim_live=self.dim_aware,
        )

    @cached_property
    def ppnet(self) -> GatedTower:
        """The tower and its gates, with U = [E_prior, sg(O)] as their input."""
        dim_prior = len(self.priors) * self.dim_embedding
        return GatedTower(
            (self.dim_input, *self.hidden, 1),
            dim_context=dim_prior + self.dim_input,
            gate_at=self.gate_at,
            n_towers=self.n_scenarios if self.routes_by_scenario else None,
            activation=self.activation,
            gate_hidden=self.gate_hidden,
            gamma=self.gamma,
            dim_live=dim_prior,
        )

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """No auxiliary loss."""
        return {}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        return {
            "embedding": self.embedding.init(rng),
            "epnet": self.epnet.init(rng),
            "ppnet": self.ppnet.init(rng),
        }

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, PEPNetCache]:
        """Return the logits (B,) and the cache (derivations 7.1b, 7.1c, 7.1d)."""
        sg, (X, groups) = StopGradient(frozen, {}), self.sorted_rows(inputs)
        E_dom, E = X[:, : self.dim_aware], X[:, self.start :]
        U_dom, _ = concat([E_dom, sg("E", E)])
        O, c_epnet = self.epnet.times(params["epnet"], U_dom, E)  # noqa: E741
        if self.start:
            O, _ = concat([X[:, : self.start], O])  # noqa: E741
        E_prior, c_prior = pick_fields(X, self.priors, len(self.vocab_sizes))
        U, _ = concat([E_prior, sg("O", O)])
        z, c_ppnet = self.ppnet.forward(params["ppnet"], O, U, groups)
        cache = PEPNetCache(groups, X, E, c_epnet, O, c_prior, E_prior, c_ppnet, sg.detached)
        return ModelOutput(in_order_of_batch(z, groups), {}), cache

    def network_backward(
        self, d_output: ModelOutput, cache: PEPNetCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables.

        See derivations 7.3e, 7.3f, 7.3g.

        X has three readers: the embeddings that are gated, the domain and the prior.
        """
        dz = in_order_of_groups(d_output.logit, cache.groups)
        dO, dE_prior, g_ppnet = self.ppnet.backward(dz, cache.ppnet)
        dX, dE_dom, g_epnet = self.epnet.times_backward(dO[:, self.start :], cache.E, cache.epnet)
        if self.start:
            dX, _ = concat([dO[:, : self.start], dX])
        pick_fields_backward(dE_prior, cache.prior, onto=dX)
        add_to_columns(dX, 0, dE_dom)
        return (dX,), {"epnet": g_epnet, "ppnet": g_ppnet}

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        kinks = {f"epnet.{path}": A for path, A in self.epnet.kinks(cache.network.epnet).items()}
        tower = self.ppnet.kinks(cache.network.ppnet)
        return kinks | {f"ppnet.{path}": A for path, A in tower.items()}

    def count_params(self) -> ParamCount:
        """Count by drawing: the tree is the truth (derivations 7.4a, 7.4b)."""
        params = self.init(np.random.default_rng(0))
        embedding = tree_size(params.pop("embedding"))
        multiply_adds = self.epnet.multiply_adds + self.ppnet.multiply_adds
        return ParamCount(tree_size(params), 0, embedding, multiply_adds)
