"""DNN: one network for all scenarios, the scenario being one more field (derivations 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.mlp import MLP, MLPCache, mlp_multiply_adds
from midpg_np.models.halves import InHalves
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.tree import Tree
from midpg_np.workspace import Workspace


class DNNCache(NamedTuple):
    """Intermediates of the network behind the embeddings."""

    X: Array
    mlp: MLPCache
    detached: dict[str, Array]


@dataclass(frozen=True)
class DNN(InHalves):
    """z = MLP([E_aw, E_ag]).

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields; they are ordinary inputs here.
    n_scenarios : int
        Number of scenarios D; not used by this model.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    """

    vocab_sizes: tuple[int, ...]
    n_aware: int
    n_scenarios: int
    dim_embedding: int = 8
    hidden: tuple[int, ...] = (128, 64, 32)
    activation: str = "relu"

    drops_embeddings = True
    takes_whole_batches = True  # products are nearly all of its work

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @cached_property
    def mlp(self) -> MLP:
        """The whole network behind the embeddings, one logit wide at its end."""
        dim_input = len(self.vocab_sizes) * self.dim_embedding
        return MLP((dim_input, *self.hidden, 1), self.activation)

    @property
    def has_fixed_work(self) -> bool:
        """Nothing but products and ReLU."""
        return True

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """No auxiliary loss."""
        return {}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        return {"embedding": self.embedding.init(rng), "mlp": self.mlp.init(rng)}

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, DNNCache]:
        """Return the logits (B,) and the cache, from what ``embed`` returns (derivations 4a)."""
        (X,) = inputs
        z, c_mlp = self.mlp.forward(params["mlp"], X)
        return ModelOutput(z[:, 0], {}), DNNCache(X, c_mlp, {})

    def network_backward(
        self, d_output: ModelOutput, cache: DNNCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables (derivations 4b, 4c)."""
        dX, g_mlp = self.mlp.backward(d_output.logit[:, None], cache.mlp)
        return (dX,), {"mlp": g_mlp}

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        return {f"mlp.{path}": A for path, A in self.mlp.kinks(cache.network.mlp).items()}

    def count_params(self) -> ParamCount:
        """Sum of (inputs + 1) x outputs over the layers (derivations 4d)."""
        kernels = mlp_multiply_adds(self.mlp.dims)
        biases = sum(self.mlp.dims[1:])
        return ParamCount(kernels + biases, 0, self.embedding.n_params, kernels)
