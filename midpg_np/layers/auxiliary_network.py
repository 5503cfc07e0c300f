"""Auxiliary network of STAR: a small MLP that sees the scenario itself (derivations 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.groups import Groups, group_sum, of_present, spread
from midpg_np.layers.mlp import MLP, mlp_multiply_adds
from midpg_np.layers.partitioned_norm import PartitionedNorm, PartitionedNormCache
from midpg_np.layers.scenario_mlp import rows_of
from midpg_np.ops import concat, concat_backward
from midpg_np.tree import Tree


class AuxiliaryNetworkCache(NamedTuple):
    """Groups of the rows, caches of the normalisation (None without one) and of the MLP.

    Groups and MLP are None in what ``read_by_advance`` leaves.
    """

    groups: Any
    norm: PartitionedNormCache | None
    mlp: Any


@dataclass(frozen=True)
class AuxiliaryNetwork:
    """z = MLP([e_dom(s), X]) with an embedding e_dom of the scenario's id of its own.

    Parameters
    ----------
    n_scenarios : int
        Number of scenarios D.
    dim_x : int
        Width d_0 of X.
    dim_domain : int
        Width d_e of e_dom.
    hidden : tuple of int
        Hidden widths of the MLP.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    norm : PartitionedNorm, optional
        Applied to X alone: e_dom is the same in all rows of a scenario, so that its normalised
        value would be zero.

    Raises
    ------
    ValueError
        If ``dim_domain`` is below 1.
    """

    n_scenarios: int
    dim_x: int
    dim_domain: int = 16
    hidden: tuple[int, ...] = (32,)
    activation: str = "relu"
    norm: PartitionedNorm | None = None

    def __post_init__(self) -> None:
        if self.dim_domain < 1:
            raise ValueError(f"dim_domain must be at least 1; got {self.dim_domain}.")
        _ = self.mlp  # report wrong widths now, not at the first batch

    @cached_property
    def domain(self) -> Embedding:
        """Table of e_dom, one row per scenario."""
        return Embedding((self.n_scenarios,), self.dim_domain)

    @cached_property
    def mlp(self) -> MLP:
        """The network behind e_dom and X."""
        return MLP((self.dim_domain + self.dim_x, *self.hidden, 1), self.activation)

    @property
    def multiply_adds(self) -> int:
        """Multiplications per row."""
        return mlp_multiply_adds(self.mlp.dims)

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        params = {"domain": self.domain.init(rng), "mlp": self.mlp.init(rng)}
        return params if self.norm is None else params | {"norm": self.norm.init(rng)}

    def forward(
        self, params: Tree, X: Array, groups: Groups, *, is_training: bool
    ) -> tuple[Array, AuxiliaryNetworkCache]:
        """Return the logits of rows that are sorted by scenario (derivations 6.1f).

        Shapes
        ------
        X : (B, d_0)
        z : (B, 1)
        """
        e_dom = spread(of_present(params["domain"]["table"], groups), groups)
        c_norm = None
        if self.norm is not None:
            X, c_norm = self.norm.forward(params["norm"], X, groups, is_training=is_training)
        U, _ = concat([e_dom, X])
        z, c_mlp = self.mlp.forward(params["mlp"], U)
        return z, AuxiliaryNetworkCache(groups, c_norm, c_mlp)

    def backward(self, dz: Array, cache: AuxiliaryNetworkCache) -> tuple[Array, Tree]:
        """Return ``dX`` and the gradients (derivations 6.3h)."""
        dU, g_mlp = self.mlp.backward(dz, cache.mlp)
        de_dom, dX = concat_backward(dU, (self.dim_domain, self.dim_x))
        d_table = rows_of(group_sum(de_dom, cache.groups), cache.groups)
        grads = {"domain": {"table": d_table}, "mlp": g_mlp}
        if self.norm is not None and cache.norm is not None:
            dX, grads["norm"] = self.norm.backward(dX, cache.norm)
        return dX, grads

    def read_by_advance(self, cache: AuxiliaryNetworkCache) -> AuxiliaryNetworkCache:
        """Return the cache with what ``advance`` reads of it, and nothing else."""
        norm = cache.norm
        if self.norm is not None and norm is not None:
            norm = self.norm.read_by_advance(norm)
        return AuxiliaryNetworkCache(None, norm, None)

    def advance(self, params: Tree, cache: AuxiliaryNetworkCache) -> Tree:
        """Move the statistics of the normalisation, if there is one."""
        if self.norm is None or cache.norm is None:
            return params
        return params | {"norm": self.norm.advance(params["norm"], cache.norm)}

    def kinks(self, cache: AuxiliaryNetworkCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        return {f"mlp.{path}": A for path, A in self.mlp.kinks(cache.mlp).items()}
