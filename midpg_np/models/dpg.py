"""DPG: a network whose hidden layers are weighted per sample (derivations 3.2, 3.4).

MI-DPG without its regulariser: the serving path of MI-DPG is this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.dwm import DynamicWeighting, WeightingCache
from midpg_np.layers.embedding import Embedding, EmbeddingCache
from midpg_np.layers.initial import init_affine
from midpg_np.layers.modulated_layer import ModulatedLayer, ModulatedLayerCache, check_divides
from midpg_np.layers.negatives import ShuffleCache
from midpg_np.models.aware_only import context_networks
from midpg_np.models.dnn import DNN
from midpg_np.models.halves import InHalves
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.stop_gradient import StopGradient
from midpg_np.ops import (
    AffineCache,
    add_to,
    add_to_columns,
    affine,
    affine_backward,
    batch_last,
    check_activation,
    concat,
    concat_backward,
)
from midpg_np.tree import Tree, tree_add, tree_size
from midpg_np.workspace import Workspace


class EmbedCache(NamedTuple):
    """What the lookup keeps; ``shuffle`` is None without a regulariser."""

    embedding: EmbeddingCache
    shuffle: ShuffleCache | None


class DPGCache(NamedTuple):
    """Intermediates of the network behind the embeddings.

    Shapes
    ------
    X : (B, d_0)
    E_aw : (B, d_aw)
    H : (B, n_L)
    """

    X: Array
    E_aw: Array
    layers: dict[str, ModulatedLayerCache]
    H: Array
    head: AffineCache | None
    detached: dict[str, Array]


class CoreAdjoint(NamedTuple):
    """What a regulariser sends back to one weighting: adjoints of the core and of the factors.

    ``to_input=False`` ends it at the generator's parameters: nothing reaches the generator's input.
    """

    d_core: Array | None
    d_generated: Array | None
    to_input: bool


@dataclass(frozen=True)
class DPG(InHalves):
    """H^{l+1} = act((psi(Q^l_b) * W^l)^T H^l_b + b^l), Q^l generated from U^l = [E_aw, H^l].

    The options are the choices that the paper leaves open (derivations 3.8).

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields; their embeddings, side by side, are E_aw.
    n_scenarios : int
        Number of scenarios D.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers; each is modulated.
    activation : str
        Activation of the backbone, a name in ``ops.ACTIVATIONS``; generators keep ReLU.
    variant : str
        "r", "c", "rc" or "non"; see ``layers.dwm``.
    row_divisor, col_divisor : int
        d_r = d_m / row_divisor, d_c = d_n / col_divisor.  Not used by "non" (d_r = d_m, d_c = d_n).
    d_k : int
        Rank of the core before the sigmoid; a modulated output layer has rank 1.
    generator_hidden : tuple of int
        Hidden widths of each generator.
    gain : float
        S = gain sigmoid(P) lies in (0, gain); 2 centres it at 1.
    sigmoid_on, shared_init : str
        See ``DynamicWeighting``.
    repeat_mode, w_layout, modulate_bias, form
        See ``ModulatedLayer``.
    dwm_inputs : str
        "both": U = [E_aw, H].  "aw_only": U = E_aw; predicted by context (``aware_only``).
    dedup_first : bool
        Leave out the second copy of E_aw in the first layer's U = [E_aw, X], X = [E_aw, E_ag].
    dwm_detach_h : bool
        Stop the gradient from a generator to H.
    modulate_output : bool
        Modulate the output layer as well.

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
    variant: str = "r"
    row_divisor: int = 8
    col_divisor: int = 8
    d_k: int = 1
    generator_hidden: tuple[int, ...] = (32,)
    gain: float = 1.0
    sigmoid_on: str = "product"
    shared_init: str = "normal"
    repeat_mode: str = "block"
    w_layout: str = "in_out"
    dwm_inputs: str = "both"
    dedup_first: bool = False
    dwm_detach_h: bool = False
    modulate_output: bool = False
    modulate_bias: bool = False
    form: str = "grouped"

    drops_embeddings = True

    def __post_init__(self) -> None:
        n_fields = len(self.vocab_sizes)
        if not 1 <= self.n_aware <= n_fields:
            raise ValueError(
                f"n_aware must lie in [1, {n_fields}], the number of fields; got {self.n_aware}. "
                "The weighting matrix needs at least one scenario-aware field."
            )
        if self.dwm_inputs not in ("both", "aw_only"):
            raise ValueError(f"dwm_inputs must be 'both' or 'aw_only'; got {self.dwm_inputs!r}.")
        check_activation(self.activation)
        if not (self.hidden or self.modulate_output) or min(self.hidden, default=1) < 1:
            raise ValueError(
                f"hidden must hold at least one width of at least 1; got {self.hidden}. Without a "
                "hidden layer there is nothing to modulate, unless modulate_output=True."
            )
        _ = self.layers  # report widths that do not divide now, not at the first batch

    @property
    def dim_aware(self) -> int:
        """Width d_aw of E_aw."""
        return self.n_aware * self.dim_embedding

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @cached_property
    def layers(self) -> dict[str, ModulatedLayer]:
        """Modulated layers by name, in order; "head" is among them if the output is modulated."""
        widths = (len(self.vocab_sizes) * self.dim_embedding, *self.hidden)
        names = [f"layer_{i}" for i in range(1, len(widths))]
        shapes = dict(zip(names, pairwise(widths), strict=True))
        if self.modulate_output:
            shapes["head"] = (widths[-1], 1)
        return {name: self._layer(name, *shape) for name, shape in shapes.items()}

    @property
    def largest_core(self) -> int:
        """Entries of the largest core of a row (``training.tiles``)."""
        return max(x.weighting.d_r * x.weighting.d_c for x in self.layers.values())

    def _layer(self, name: str, dim_in: int, dim_out: int) -> ModulatedLayer:
        d_m, d_n = (dim_in, dim_out) if self.w_layout == "in_out" else (dim_out, dim_in)
        d_r = self._core_size("row_divisor", self.row_divisor, f"d_m of {name}", d_m)
        d_c = self._core_size("col_divisor", self.col_divisor, f"d_n of {name}", d_n)
        weighting = DynamicWeighting(
            dim_in=self.dim_aware + self._dim_h_part(name, dim_in),
            d_r=d_r,
            d_c=d_c,
            # The core of the output layer is a vector; a rank above 1 would be lost on it.
            d_k=1 if name == "head" else self.d_k,
            variant=self.variant,
            hidden=self.generator_hidden,
            gain=self.gain,
            sigmoid_on=self.sigmoid_on,
            shared_init=self.shared_init,
        )
        return ModulatedLayer(
            dim_in,
            dim_out,
            weighting,
            repeat_mode=self.repeat_mode,
            w_layout=self.w_layout,
            modulate_bias=self.modulate_bias,
            activation="identity" if name == "head" else self.activation,
            form=self.form,
        )

    def _core_size(self, name: str, divisor: int, width_name: str, width: int) -> int:
        if self.variant == "non" or width == 1:
            return width
        check_divides(name, divisor, width_name, width)
        return width // divisor

    def _dim_h_part(self, name: str, dim_in: int) -> int:
        """Width of what a generator reads beside E_aw."""
        if self.dwm_inputs == "aw_only":
            return 0
        return dim_in - self.dim_aware if self._is_deduplicated(name) else dim_in

    def _is_deduplicated(self, name: str) -> bool:
        return self.dedup_first and name == "layer_1"

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """No auxiliary loss."""
        return {}

    @property
    def has_fixed_work(self) -> bool:
        """Where kernels serve the weighting; other forms call CuPy's own products."""
        return self.form == "grouped" and self.sigmoid_on == "product"

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters."""
        params: Tree = {"embedding": self.embedding.init(rng)}
        params |= {name: layer.init(rng) for name, layer in self.layers.items()}
        if not self.modulate_output:
            params["head"] = init_affine(rng, self.hidden[-1], 1)
        return params

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    @property
    def plain_by_context(self) -> bool:
        """Rows with the same scenario-aware codes have the same core."""
        return self.dwm_inputs == "aw_only" and self.form == "grouped"

    def context_networks(self, params: Tree, contexts: Array) -> Iterator[tuple[DNN, Tree]]:
        """Yield the plain network of each context, (G, n_aware) codes (``models.aware_only``)."""
        fields = (self.vocab_sizes, self.n_aware, self.n_scenarios, self.dim_embedding)
        network = DNN(*fields, self.hidden, self.activation)
        return context_networks(network, self.layers, params, contexts)

    def embed(
        self, params: Tree, batch: Batch, draws: Draws | None
    ) -> tuple[tuple[Array, ...], EmbedCache]:
        """Look up X (B, d_0)."""
        inputs, c_embedding = super().embed(params, batch, draws)
        return inputs, EmbedCache(c_embedding, None)

    def embed_backward(self, d_inputs: Sequence[Array], cache: EmbedCache) -> Tree:
        """Return the gradient of the tables."""
        return super().embed_backward(d_inputs, cache.embedding)

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, Any]:
        """Return the logits (B,) and the cache, from what ``embed`` returns (derivations 3.2g)."""
        X = batch_last(inputs[0])
        E_aw = X[:, : self.dim_aware]
        sg = StopGradient(frozen, {})
        layers = {}
        H = X
        for name, layer in self.layers.items():
            U = self._dwm_input(name, E_aw, H, sg)
            H, layers[name] = layer.forward(params[name], H, U, workspace)
        z, c_head = H, None
        if not self.modulate_output:
            z, c_head = affine(H, **params["head"])
        return ModelOutput(z[:, 0], {}), DPGCache(X, E_aw, layers, H, c_head, sg.detached)

    def network_backward(
        self, d_output: ModelOutput, cache: Any, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return the adjoints of the inputs and the gradients of all but the tables.

        See derivations 3.4.
        """
        dX, grads = self._network_backward(d_output.logit, cache, {}, None, workspace)
        return (dX,), grads

    def _network_backward(
        self,
        dz: Array,
        cache: DPGCache,
        d_cores: Mapping[str, CoreAdjoint],
        dE_aw: Array | None,
        workspace: Workspace | None,
    ) -> tuple[Array, Tree]:
        """Backward pass, given what a regulariser sends to the cores and to E_aw.

        See derivations 3.4u, 3.4v.

        E_aw has up to three readers here: the backbone's input, every generator, and the matching
        pairs of the regulariser; ``dE_aw`` brings in the last.
        """
        dH, g_head = dz[:, None], {}
        if cache.head is not None:
            dH, dW, db = affine_backward(dH, cache.head)
            g_head = {"head": {"W": dW, "b": db}}
        grads: Tree = {}
        for name in reversed(self.layers):
            layer, c = self.layers[name], cache.layers[name]
            dH, dQ, grads[name] = layer.backward(dH, c, workspace)
            dU, grads[name]["weighting"] = _weighting_backward(
                layer.weighting, dQ, c.weighting, d_cores.get(name), workspace
            )
            dE_part, dH = self._dwm_input_backward(name, dU, dH)
            dE_aw = add_to(dE_aw, dE_part)
        add_to_columns(dH, 0, dE_aw)
        return dH, {name: grads[name] for name in self.layers} | g_head

    def _dwm_input(self, name: str, E_aw: Array, H: Array, sg: StopGradient) -> Array:
        """U = [E_aw, what else the generator reads] (derivations 3.2a)."""
        if self.dwm_inputs == "aw_only":
            return E_aw
        h_part = H[:, self.dim_aware :] if self._is_deduplicated(name) else H
        if self.dwm_detach_h:
            h_part = sg(f"{name}.h", h_part)
        return concat([E_aw, h_part])[0]

    def _dwm_input_backward(self, name: str, dU: Array, dH: Array) -> tuple[Array, Array]:
        """Return the generator's share of ``dE_aw``, and ``dH`` with its share added.

        See derivations 3.4o.
        """
        if self.dwm_inputs == "aw_only":
            return dU, dH
        dE_aw, dh_part = concat_backward(dU, (self.dim_aware, dU.shape[1] - self.dim_aware))
        if self.dwm_detach_h:
            return dE_aw, dH
        if self._is_deduplicated(name):
            add_to_columns(dH, self.dim_aware, dh_part)
            return dE_aw, dH
        return dE_aw, add_to(dH, dh_part)

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        return self._network_kinks(cache.network)

    def _network_kinks(self, cache: DPGCache) -> dict[str, Array]:
        kinks: dict[str, Array] = {}
        for name, layer in self.layers.items():
            c = cache.layers[name]
            inner = layer.weighting.kinks(c.weighting)
            kinks |= {f"{name}.weighting.{path}": A for path, A in inner.items()}
            if name != "head":
                kinks[f"{name}.b"] = c.A
        return kinks

    def count_params(self) -> ParamCount:
        """Count by drawing: the tree is the truth."""
        params = self.init(np.random.default_rng(0))
        embedding = tree_size(params.pop("embedding"))
        multiply_adds = sum(layer.multiply_adds for layer in self.layers.values())
        if not self.modulate_output:
            multiply_adds += self.hidden[-1]
        return ParamCount(tree_size(params), 0, embedding, multiply_adds)


def _weighting_backward(
    weighting: DynamicWeighting,
    dQ: Array,
    cache: WeightingCache,
    extra: CoreAdjoint | None,
    workspace: Workspace | None,
) -> tuple[Array, Tree]:
    """Adjoint of a core with up to two readers: the modulated product and the regulariser.

    See derivations 3.4i.
    """
    if extra is None:
        return weighting.backward(dQ, cache, workspace=workspace)
    if extra.to_input:
        return weighting.backward(dQ, cache, extra.d_generated, extra.d_core, workspace)
    dU, grads = weighting.backward(dQ, cache, workspace=workspace)
    dQ_extra = dQ * 0.0 if extra.d_core is None else extra.d_core
    _, g_extra = weighting.backward(dQ_extra, cache, extra.d_generated, workspace=workspace)
    return dU, tree_add(grads, g_extra)
