"""OptMSM, reconstructed: shared embeddings kept apart, a tower generated per scenario.

The published equations were not available; these are this project's own (derivations 10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.generated_tower import GeneratedTower, TowerCache
from midpg_np.layers.groups import of_present
from midpg_np.layers.hypernetwork import Hypernetwork, TowerShape
from midpg_np.layers.initial import init_affine
from midpg_np.layers.orthogonality import Orthogonality
from midpg_np.layers.scenario_mlp import rows_of
from midpg_np.layers.shared_embeddings import SharedCache, SharedEmbeddings
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.routed import Routed, in_order_of_batch, in_order_of_groups
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    affine,
    affine_backward,
    check_activation,
    concat,
    concat_backward,
    split,
    split_backward,
)
from midpg_np.tree import Tree, tree_size
from midpg_np.workspace import Workspace

HYPER_INPUTS = ("code", "aware")


class OptMSMCache(NamedTuple):
    """Intermediates; rows are sorted by scenario if the model reads it (``groups``)."""

    X: Array
    groups: Any
    encoder: AffineCache
    A_c: Array
    activation: Any
    shared: SharedCache
    tower: TowerCache
    detached: dict[str, Array]


@dataclass(frozen=True)
class OptMSM(Routed):
    """c = act(E_sp W_c + b_c), m = sum_k w_k g_k, z = tower_(s)([c, m]), theta = Z Omega + omega_0.

    A RECONSTRUCTION.  The full text of OptMSM was not available to us.  Its abstract names the
    ingredients: specific and shared features, an encoding of the specific ones, a set of shared
    embeddings under an orthogonality constraint, their combination, and a hypernetwork by scenario
    in the prediction module.  How they are put together here, and every size, is our decision
    (derivations 10); results with this class are not results of the published model.

    The tower has one hidden layer, so there is no ``hidden`` here as in the other models.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields: their embeddings are E_sp, those of the others E_sh.
    n_scenarios : int
        Number of scenarios D, and of shared embeddings g_k.
    dim_embedding : int
        Width of each field's embedding.
    activation : str
        A name in ``ops.ACTIVATIONS``, behind the encoder and inside the tower.
    dim_specific : int
        Width d_c of c.
    dim_shared : int
        Width q of each g_k.
    dim_code : int
        Width d_z of a scenario's code; not used with ``hyper_input="aware"``.
    tower_hidden : int
        Width h of the tower's hidden layer.
    combine : str
        Weights w of the g_k.  "attention": softmax of an affine map of c.  "select": the one of
        the row's scenario.
    orth_on : str
        "cosine" or "gram": whether the g_k are normalised in the orthogonality loss.
    orth_weight : float
        Weight mu of that loss; with 0 it is not computed.
    hyper : str
        "full" or "low_rank", see ``Hypernetwork``.
    hyper_rank : int
        Rank of "low_rank".
    hyper_input : str
        "code": a free code Z_d per scenario.  "aware": E_sp of the row, so each row has its own
        tower; it costs about d_aw (or ``hyper_rank``) towers per row.
    eps : float
        Added to the squared norms under "cosine".

    Raises
    ------
    ValueError
        For an option that is no known name or out of its range; the message says what would do.
    """

    vocab_sizes: tuple[int, ...]
    n_aware: int
    n_scenarios: int
    dim_embedding: int = 8
    activation: str = "relu"
    dim_specific: int = 32
    dim_shared: int = 32
    dim_code: int = 16
    tower_hidden: int = 32
    combine: str = "attention"
    orth_on: str = "cosine"
    orth_weight: float = 0.1
    hyper: str = "full"
    hyper_rank: int = 4
    hyper_input: str = "code"
    eps: float = 1e-12

    drops_embeddings = True
    has_fixed_work = True

    def __post_init__(self) -> None:
        n_fields = len(self.vocab_sizes)
        if not 1 <= self.n_aware < n_fields:
            raise ValueError(
                f"n_aware must lie in [1, {n_fields - 1}]: OptMSM needs fields of both kinds, and "
                f"there are {n_fields}; got {self.n_aware}."
            )
        check_activation(self.activation)
        if self.hyper_input not in HYPER_INPUTS:
            raise ValueError(
                f"hyper_input must be one of {HYPER_INPUTS}; got {self.hyper_input!r}."
            )
        widths = ("dim_specific", "dim_shared", "dim_code", "tower_hidden", "hyper_rank")
        for name in ("n_scenarios", "dim_embedding", *widths):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not self.orth_weight >= 0.0:
            raise ValueError(f"orth_weight must not be negative; got {self.orth_weight}.")
        _ = self.shared, self.tower  # report wrong choices now, not at the first batch

    @property
    def dims_input(self) -> tuple[int, int]:
        """Widths d_aw and d_ag of E_sp and E_sh."""
        k = self.dim_embedding
        return self.n_aware * k, (len(self.vocab_sizes) - self.n_aware) * k

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @cached_property
    def shared(self) -> SharedEmbeddings:
        """The set of shared embeddings, its mixture and its loss."""
        return SharedEmbeddings(
            self.n_scenarios,
            self.dims_input[1],
            self.dim_shared,
            self.dim_specific,
            self.combine,
            Orthogonality(self.orth_on, self.eps),
        )

    @cached_property
    def tower(self) -> GeneratedTower:
        """The tower and what generates it."""
        per_row = self.hyper_input == "aware"
        dim_code = self.dims_input[0] if per_row else self.dim_code
        shape = TowerShape(self.dim_specific + self.dim_shared, self.tower_hidden)
        hypernetwork = Hypernetwork(dim_code, shape, self.hyper, self.hyper_rank, per_row)
        return GeneratedTower(hypernetwork, per_row, self.activation)

    @property
    def routes_by_scenario(self) -> bool:
        """Whether anything but the features tells the scenarios apart."""
        return self.hyper_input == "code" or self.combine == "select"

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Weight of the orthogonality loss; with 0 it is left out."""
        return {"orthogonality": self.orth_weight} if self.orth_weight else {}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters; the codes from N(0, 1)."""
        params: Tree = {
            "embedding": self.embedding.init(rng),
            "encoder": init_affine(rng, self.dims_input[0], self.dim_specific),
            "shared": self.shared.init(rng),
        }
        if self.hyper_input == "code":
            params["code"] = {"Z": rng.normal(size=(self.n_scenarios, self.dim_code))}
        return params | {"hypernetwork": self.tower.init(rng)}

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, OptMSMCache]:
        """Return the logits (B,), the orthogonality loss and the cache.

        See derivations 10.1a, 10.1g.
        """
        return self._network(params, inputs, with_loss=self.orth_weight > 0.0)

    def network_at_inference(
        self, params: Tree, inputs: Sequence[Array], frozen: Mapping[str, Array] | None = None
    ) -> tuple[ModelOutput, OptMSMCache]:
        """Without the orthogonality loss."""
        return self._network(params, inputs, with_loss=False)

    def _network(
        self, params: Tree, inputs: Sequence[Array], with_loss: bool
    ) -> tuple[ModelOutput, OptMSMCache]:
        X, groups = self.sorted_rows(inputs)
        (E_sp, E_sh), _ = split(X, self.dims_input)
        A_c, c_encoder = affine(E_sp, **params["encoder"])
        c, c_act = ACTIVATIONS[self.activation].forward(A_c)
        m, loss, c_shared = self.shared.forward(params["shared"], c, E_sh, groups, with_loss)
        rho, _ = concat([c, m])
        Z = E_sp if self.hyper_input == "aware" else of_present(params["code"]["Z"], groups)
        z, c_tower = self.tower.forward(params["hypernetwork"], rho, Z, groups)
        cache = OptMSMCache(X, groups, c_encoder, A_c, c_act, c_shared, c_tower, {})
        terms = {} if loss is None else {"orthogonality": loss}
        return ModelOutput(in_order_of_batch(z, groups), terms), cache

    def network_backward(
        self, d_output: ModelOutput, cache: OptMSMCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables (derivations 10.3l).

        c has two readers, the tower and (with "attention") the weights w; E_sp has two with
        ``hyper_input="aware"``, the encoder and the hypernetwork.
        """
        groups = cache.groups
        dz = in_order_of_groups(d_output.logit, groups)
        d_rho, dZ, g_tower = self.tower.backward(dz, cache.tower)
        dc, dm = concat_backward(d_rho, (self.dim_specific, self.dim_shared))
        d_loss = d_output.auxiliary.get("orthogonality")
        dc_gate, dE_sh, g_shared = self.shared.backward(dm, d_loss, cache.shared)
        dc = dc if dc_gate is None else dc + dc_gate
        dA_c = ACTIVATIONS[self.activation].backward(dc, cache.activation)
        dE_sp, dW, db = affine_backward(dA_c, cache.encoder)
        g_code: Tree = {}
        if self.hyper_input == "aware":
            dE_sp = dE_sp + dZ
        else:
            g_code = {"code": {"Z": rows_of(dZ, groups)}}
        dX = split_backward([dE_sp, dE_sh], None)
        grads = {"encoder": {"W": dW, "b": db}, "shared": g_shared}
        return (dX,), grads | g_code | {"hypernetwork": g_tower}

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        inner = self.tower.kinks(cache.network.tower)
        return {"encoder.b": cache.network.A_c} | {f"hypernetwork.{p}": A for p, A in inner.items()}

    def count_params(self) -> ParamCount:
        """Count by drawing: the tree is the truth (derivations 10.4a)."""
        params = self.init(np.random.default_rng(0))
        embedding = tree_size(params.pop("embedding"))
        multiply_adds = self.dims_input[0] * self.dim_specific
        multiply_adds += self.shared.multiply_adds + self.tower.multiply_adds
        return ParamCount(tree_size(params), 0, embedding, multiply_adds)
