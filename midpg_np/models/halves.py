"""Models that are written as ``embed`` followed by ``network``: the passes made of the halves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.embedding import Embedding
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, keep_of
from midpg_np.tree import Tree
from midpg_np.workspace import Workspace


class InHalves(ABC):
    """``forward`` and ``backward`` from the four halves; ``embed`` looks up X and no more.

    ``looks_up_last``: whether X may be stored batch last (``layers.embedding``).
    """

    looks_up_last = True

    @property
    @abstractmethod
    def embedding(self) -> Embedding:
        """Lookup of all fields."""

    @abstractmethod
    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, Any]:
        """Return the logits (B,), the auxiliary terms and the cache; this is training."""

    def network_at_inference(
        self, params: Tree, inputs: Sequence[Array], frozen: Mapping[str, Array] | None = None
    ) -> tuple[ModelOutput, Any]:
        """As ``network``, for models that do otherwise in training."""
        return self.network(params, inputs, frozen)

    @abstractmethod
    def network_backward(
        self, d_output: ModelOutput, cache: Any, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return the adjoints of the inputs and the gradients of all but the tables."""

    def embed(
        self, params: Tree, batch: Batch, draws: Draws | None
    ) -> tuple[tuple[Array, ...], Any]:
        """Look up X (B, d_0) (derivations 2.1a)."""
        table, keep = params["embedding"], keep_of(draws)
        X, cache = self.embedding.forward(table, batch.codes, self.looks_up_last, keep)
        return (X,), cache

    def embed_backward(self, d_inputs: Sequence[Array], cache: Any) -> Tree:
        """Return the gradient of the tables (derivations 2.1b)."""
        return {"embedding": self.embedding.backward(d_inputs[0], cache)}

    def forward(
        self,
        params: Tree,
        batch: Batch,
        *,
        draws: Draws | None = None,
        frozen: Mapping[str, Array] | None = None,
    ) -> tuple[ModelOutput, ModelCache]:
        """Return the logits (B,), in training also the auxiliary terms, and the cache."""
        inputs, c_embed = self.embed(params, batch, draws)
        network = self.network if draws is not None else self.network_at_inference
        output, c_network = network(params, inputs, frozen)
        return output, ModelCache(c_embed, c_network)

    def backward(self, d_output: ModelOutput, cache: ModelCache) -> Tree:
        """Return the gradient of every parameter."""
        d_inputs, grads = self.network_backward(d_output, cache.network)
        return self.embed_backward(d_inputs, cache.embed) | grads
