"""STAR: a shared network times one per scenario, normalised by scenario (derivations 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, constant, get_xp
from midpg_np.batch import Batch
from midpg_np.layers.auxiliary_network import AuxiliaryNetwork, AuxiliaryNetworkCache
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.mlp import mlp_multiply_adds
from midpg_np.layers.partitioned_norm import STATISTICS, PartitionedNorm, PartitionedNormCache
from midpg_np.layers.star_mlp import StarMLP
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.routed import Routed, in_order_of_batch, in_order_of_groups
from midpg_np.tree import Tree, tree_flatten, tree_size
from midpg_np.workspace import Workspace

NORMS = ("partitioned", "none")


class STARCache(NamedTuple):
    """Intermediates of a forward pass, rows sorted by scenario.

    What ``read_by_advance`` leaves out is None.

    Shapes
    ------
    X : (B, d_0)
    V : (B, d_0)
    z_main : (B, 1)
    z_aux : (B, 1), or None without an auxiliary network
    """

    X: Array
    V: Array
    norm: PartitionedNormCache | None
    z_main: Array
    star: Any
    z_aux: Array | None
    aux: AuxiliaryNetworkCache | None
    groups: Any
    detached: dict[str, Array]


@dataclass(frozen=True)
class STAR(Routed):
    """z = z_main + z_aux: a star of MLPs on the normalised input, and a small network on X.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields; they are ordinary inputs here.
    n_scenarios : int
        Number of scenarios D.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers of the star.
    activation : str
        A name in ``ops.ACTIVATIONS``; of the star and of the auxiliary network.
    pn : str
        "partitioned": the input of the star is normalised scenario by scenario; "none": it is not.
    eps, momentum : float
        See ``PartitionedNorm``.
    specific_init : str
        "ones" or "glorot"; see ``StarMLP``.
    aux : bool
        Whether there is an auxiliary network; without it the options below are not used.
    dim_domain : int
        Width d_e of its embedding of the scenario.
    aux_hidden : tuple of int
        Its hidden widths.
    aux_norm : bool
        Whether X is normalised for it as well, by a partitioned normalisation of its own (also
        with ``pn="none"``).

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
    pn: str = "partitioned"
    eps: float = 1e-5
    momentum: float = 0.9
    specific_init: str = "ones"
    aux: bool = True
    dim_domain: int = 16
    aux_hidden: tuple[int, ...] = (32,)
    aux_norm: bool = False

    drops_embeddings = True
    has_fixed_work = True

    def __post_init__(self) -> None:
        if self.pn not in NORMS:
            raise ValueError(f"pn must be one of {NORMS}; got {self.pn!r}.")
        _ = self.star, self.norm, self.auxiliary_network  # report wrong options now

    @property
    def has_norm(self) -> bool:
        """Whether the input of the star is normalised."""
        return self.pn == "partitioned"

    @property
    def dim_x(self) -> int:
        """Width d_0 of X."""
        return len(self.vocab_sizes) * self.dim_embedding

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @cached_property
    def norm(self) -> PartitionedNorm:
        """Normalisation in front of the star; not used with ``pn="none"``."""
        return PartitionedNorm(self.n_scenarios, self.dim_x, self.eps, self.momentum)

    @cached_property
    def star(self) -> StarMLP:
        """Main network, one logit wide at its end."""
        dims = (self.dim_x, *self.hidden, 1)
        return StarMLP(self.n_scenarios, dims, self.activation, self.specific_init)

    @cached_property
    def auxiliary_network(self) -> AuxiliaryNetwork:
        """Small network beside it; not used with ``aux=False``."""
        return AuxiliaryNetwork(
            self.n_scenarios,
            self.dim_x,
            self.dim_domain,
            self.aux_hidden,
            self.activation,
            self.norm if self.aux_norm else None,
        )

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """No auxiliary loss."""
        return {}

    @property
    def buffers(self) -> tuple[str, ...]:
        """Paths of the moving statistics."""
        norms = ["norm"] if self.has_norm else []
        norms += ["aux.norm"] if self.aux and self.aux_norm else []
        return tuple(f"{norm}.{key}" for norm in norms for key in STATISTICS)

    @property
    def l2_centres(self) -> dict[str, float]:
        """Kernels by scenario that multiply the shared ones rest at 1, where they start."""
        if self.specific_init != "ones":
            return {}
        return {f"star.{name}.scenario.W": 1.0 for name in self.star.layer_names}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        params: Tree = {"embedding": self.embedding.init(rng)}
        if self.has_norm:
            params["norm"] = self.norm.init(rng)
        params["star"] = self.star.init(rng)
        if self.aux:
            params["aux"] = self.auxiliary_network.init(rng)
        return params

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    def rows_read(self, batch: Batch) -> dict[str, Array]:
        """Rows of both kinds of tables that ``forward`` will read."""
        offsets = constant(get_xp(batch.codes), tuple(self.embedding.offsets))
        rows = {"embedding.table": batch.codes + offsets}
        return rows | ({"aux.domain.table": batch.scenario} if self.aux else {})

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, STARCache]:
        """Return the logits (B,) and the cache (derivations 6.1f)."""
        return self._network(params, inputs, is_training=True)

    def network_at_inference(
        self, params: Tree, inputs: Sequence[Array], frozen: Mapping[str, Array] | None = None
    ) -> tuple[ModelOutput, STARCache]:
        """As ``network``, normalised by the moving statistics."""
        return self._network(params, inputs, is_training=False)

    def _network(
        self, params: Tree, inputs: Sequence[Array], is_training: bool
    ) -> tuple[ModelOutput, STARCache]:
        X, groups = self.sorted_rows(inputs)
        V, c_norm, z_aux, c_aux = X, None, None, None
        if self.has_norm:
            V, c_norm = self.norm.forward(params["norm"], X, groups, is_training=is_training)
        z_main, c_star = self.star.forward(params["star"], V, groups)
        z = z_main
        if self.aux:
            z_aux, c_aux = self.auxiliary_network.forward(
                params["aux"], X, groups, is_training=is_training
            )
            z = z_main + z_aux
        cache = STARCache(X, V, c_norm, z_main, c_star, z_aux, c_aux, groups, detached={})
        return ModelOutput(in_order_of_batch(z, groups), {}), cache

    def network_backward(
        self, d_output: ModelOutput, cache: STARCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables; moving statistics have none.

        See derivations 6.3h.
        """
        grads: Tree = {}
        dz = in_order_of_groups(d_output.logit, cache.groups)
        dX, grads["star"] = self.star.backward(dz, cache.star)
        if cache.norm is not None:
            dX, grads["norm"] = self.norm.backward(dX, cache.norm)
        if cache.aux is not None:
            dX_aux, grads["aux"] = self.auxiliary_network.backward(dz, cache.aux)
            dX = dX + dX_aux
        return (dX,), grads

    def advance(self, params: Tree, cache: ModelCache) -> Tree:
        """Move the statistics of the scenarios that the step normalised by their own rows."""
        norm, aux = cache.network.norm, cache.network.aux
        if norm is not None:
            params = params | {"norm": self.norm.advance(params["norm"], norm)}
        if aux is not None:
            params = params | {"aux": self.auxiliary_network.advance(params["aux"], aux)}
        return params

    def read_by_advance(self, cache: STARCache) -> STARCache:
        """Return the cache of ``network`` with what ``advance`` reads of it, and nothing else."""
        norm, aux = cache.norm, cache.aux
        if norm is not None:
            norm = self.norm.read_by_advance(norm)
        if aux is not None:
            aux = self.auxiliary_network.read_by_advance(aux)
        kept = cache._replace(X=None, V=None, z_main=None, z_aux=None, star=None, groups=None)
        return kept._replace(norm=norm, aux=aux)

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        star, aux = cache.network.star, cache.network.aux
        kinks = {f"star.{path}": A for path, A in self.star.kinks(star).items()}
        if aux is not None:
            inner = self.auxiliary_network.kinks(aux)
            kinks |= {f"aux.{path}": A for path, A in inner.items()}
        return kinks

    def count_params(self) -> ParamCount:
        """Count by drawing: the tree is the truth.  The scenario's own embedding is counted.

        See derivations 6.4a.
        """
        params = self.init(np.random.default_rng(0))
        embedding, state = tree_size(params.pop("embedding")), self._n_state(params)
        multiply_adds = mlp_multiply_adds(self.star.dims)
        if self.aux:
            multiply_adds += self.auxiliary_network.multiply_adds
        return ParamCount(tree_size(params) - state, 0, embedding, multiply_adds, state)

    def _n_state(self, params: Tree) -> int:
        leaves = tree_flatten(params)
        return sum(leaves[path].size for path in self.buffers)
