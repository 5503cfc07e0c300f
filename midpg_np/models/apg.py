"""APG: the weights of every hidden layer are generated per row, at low rank (derivations 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.initial import init_affine
from midpg_np.layers.low_rank_layer import LowRankLayer, LowRankLayerCache, check_rank
from midpg_np.models.halves import InHalves
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    activation_backward,
    add_to,
    add_to_columns,
    affine,
    affine_backward,
    check_activation,
    concat,
    concat_backward,
)
from midpg_np.tree import Tree, tree_size
from midpg_np.workspace import Workspace

CONDITIONS = ("group", "self", "mix")


class APGCache(NamedTuple):
    """Intermediates of a forward pass.

    Shapes
    ------
    X : (B, d_0)
    E_aw : (B, d_aw)
    H : (B, n_L)
    """

    X: Array
    E_aw: Array
    layers: dict[str, LowRankLayerCache]
    activations: dict[str, Any]
    H: Array
    head: AffineCache
    detached: dict[str, Array]


@dataclass(frozen=True)
class APG(InHalves):
    """H^{l+1} = act(U^l S^l_b V^l H^l_b + b^l), S^l_b generated from a condition z^l_b.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields; their embeddings, side by side, are E_aw.
    n_scenarios : int
        Number of scenarios D; not used by this model.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers; each is generated.  The output layer is static.
    activation : str
        Activation of the backbone, a name in ``ops.ACTIVATIONS``; generators keep ReLU.
    condition : str
        "group": z = E_aw.  "self": z = H, the layer's input.  "mix": z = [E_aw, H].
    rank : int
        K, the size of a core; at most the narrowest width.
    over_rank : int, optional
        P, the inner width of U and V as products while training; None learns U and V themselves.
        ``serving_form`` multiplies them out.
    generator_hidden : tuple of int
        Hidden widths of each generator; () is a linear map.
    generate_bias : bool
        Generate b from z too, in place of a static b.
    form : str
        "grouped" or "textbook"; see ``layers.low_rank``.

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
    condition: str = "group"
    rank: int = 8
    over_rank: int | None = 64
    generator_hidden: tuple[int, ...] = ()
    generate_bias: bool = False
    form: str = "grouped"

    drops_embeddings = True
    looks_up_last = False
    has_fixed_work_on_host = True
    takes_whole_batches = True  # Python takes more of its time than memory does

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition must be one of {CONDITIONS}; got {self.condition!r}.")
        check_activation(self.activation)
        n_fields, least = len(self.vocab_sizes), 0 if self.condition == "self" else 1
        if not least <= self.n_aware <= n_fields:
            raise ValueError(
                f"n_aware must lie in [{least}, {n_fields}], the number of fields, with condition "
                f"{self.condition!r}; got {self.n_aware}."
            )
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"hidden must hold at least one width of at least 1, because only hidden layers "
                f"are generated; got {self.hidden}."
            )
        # The narrowest layer first: what fits it fits all.
        for name, shape in sorted(self._shapes.items(), key=lambda item: min(item[1])):
            check_rank(self.rank, *shape, name=name)
        _ = self.layers  # report other sizes that do not fit now, not at the first batch

    @property
    def has_fixed_work(self) -> bool:
        """Whether a GPU gets the same work for every batch of one size."""
        return self.form == "grouped"

    @property
    def dim_aware(self) -> int:
        """Width d_aw of E_aw."""
        return self.n_aware * self.dim_embedding

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @property
    def _shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each generated layer, by name."""
        widths = (len(self.vocab_sizes) * self.dim_embedding, *self.hidden)
        return {f"layer_{i}": shape for i, shape in enumerate(pairwise(widths), start=1)}

    @cached_property
    def layers(self) -> dict[str, LowRankLayer]:
        """Generated layers by name, in order."""
        return {name: self._layer(*shape) for name, shape in self._shapes.items()}

    def _layer(self, dim_in: int, dim_out: int) -> LowRankLayer:
        d_aw = self.dim_aware
        dim_condition = {"group": d_aw, "self": dim_in, "mix": d_aw + dim_in}[self.condition]
        return LowRankLayer(
            dim_in,
            dim_out,
            dim_condition,
            rank=self.rank,
            over_rank=self.over_rank,
            generator_hidden=self.generator_hidden,
            generate_bias=self.generate_bias,
            form=self.form,
        )

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """No auxiliary loss."""
        return {}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        params: Tree = {"embedding": self.embedding.init(rng)}
        params |= {name: layer.init(rng) for name, layer in self.layers.items()}
        return params | {"head": init_affine(rng, self.hidden[-1], 1)}

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, APGCache]:
        """Return the logits (B,) and the cache."""
        (X,) = inputs
        E_aw = X[:, : self.dim_aware]
        layers, activations = {}, {}
        H = X
        for name, layer in self.layers.items():
            z = self._condition(E_aw, H)
            A, layers[name] = layer.forward(params[name], H, z)
            H, activations[name] = ACTIVATIONS[self.activation].forward(A)
        logit, c_head = affine(H, **params["head"])
        cache = APGCache(X, E_aw, layers, activations, H, c_head, {})
        return ModelOutput(logit[:, 0], {}), cache

    def network_backward(
        self, d_output: ModelOutput, cache: APGCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables (derivations 9.3a).

        E_aw is read by the backbone and by every generator, H by its layer and, with "self" and
        "mix", by that layer's generator as well.
        """
        dH, dW, db = affine_backward(d_output.logit[:, None], cache.head)
        g_head = {"W": dW, "b": db}
        grads: Tree = {}
        dE_aw = None
        for name in reversed(self.layers):
            act = ACTIVATIONS[self.activation]
            dA = activation_backward(act, dH, cache.activations[name])
            dH, dz, grads[name] = self.layers[name].backward(dA, cache.layers[name])
            dE_part, dH = self._condition_backward(dz, dH)
            if dE_part is not None:
                dE_aw = add_to(dE_aw, dE_part)
        if dE_aw is not None:
            add_to_columns(dH, 0, dE_aw)
        return (dH,), {name: grads[name] for name in self.layers} | {"head": g_head}

    def _condition(self, E_aw: Array, H: Array) -> Array:
        """Return what the generators of a layer read."""
        if self.condition == "group":
            return E_aw
        return H if self.condition == "self" else concat([E_aw, H])[0]

    def _condition_backward(self, dz: Array, dH: Array) -> tuple[Array | None, Array]:
        """Return the generators' share of ``dE_aw``, if any, and ``dH`` with their share added.

        See derivations 9.3g.
        """
        if self.condition == "group":
            return dz, dH
        if self.condition == "self":
            return None, add_to(dH, dz)
        dE_aw, dH_generators = concat_backward(dz, (self.dim_aware, dH.shape[1]))
        return dE_aw, add_to(dH, dH_generators)

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        kinks: dict[str, Array] = {}
        for name, layer in self.layers.items():
            c = cache.network.layers[name]
            kinks |= {f"{name}.{path}": A for path, A in layer.kinks(c).items()}
            kinks[f"{name}.{layer.bias_path}"] = c.A
        return kinks

    def fold(self, params: Tree) -> tuple[APG, Tree]:
        """Return the model with ``over_rank=None`` and parameters that give the same logits.

        Only U and V are new arrays: copy the tree to keep it while training goes on.
        """
        folded = {name: layer.fold(params[name]) for name, layer in self.layers.items()}
        return replace(self, over_rank=None), params | folded

    def serving_form(self, params: Tree) -> tuple[APG, Tree]:
        """Return model and parameters for prediction: U and V multiplied out once for all."""
        return self.fold(params)

    def count_params(self) -> ParamCount:
        """Count by drawing: the tree is the truth; a prediction needs the folded one."""
        params = self.init(np.random.default_rng(0))
        embedding = tree_size(params.pop("embedding"))
        serving = tree_size(self.fold(params)[1])
        multiply_adds = sum(layer.multiply_adds for layer in self.layers.values()) + self.hidden[-1]
        return ParamCount(serving, tree_size(params) - serving, embedding, multiply_adds)
