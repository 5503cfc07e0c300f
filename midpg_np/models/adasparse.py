"""AdaSparse: a network whose neurons are scaled or removed per example (derivations 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.initial import init_affine
from midpg_np.layers.mlp import mlp_multiply_adds
from midpg_np.layers.pruned_layer import PrunedLayer
from midpg_np.layers.pruner import Pruner, Stop
from midpg_np.layers.schedule import MAX_STEPS, linear_schedule
from midpg_np.layers.sparsity import Sparsity, SparsityCache
from midpg_np.models.halves import InHalves
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.stop_gradient import StopGradient
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    activation_backward,
    add_to,
    add_to_columns,
    affine,
    affine_backward,
    check_activation,
)
from midpg_np.tree import Tree, tree_set, tree_size
from midpg_np.workspace import Workspace

PRUNE_INPUTS = ("all", "agnostic_only", "none")


class PlainCache(NamedTuple):
    """Output (B, n_1) and affine cache of a first layer whose input is not pruned."""

    A: Array
    affine: AffineCache


class AdaSparseCache(NamedTuple):
    """Intermediates behind the embeddings; ``sparsity`` is empty at inference.

    ``layers`` holds a ``PrunedLayerCache`` for each layer with a pruner, else a ``PlainCache``.

    Shapes
    ------
    X : (B, d_0)
    E_aw : (B, d_aw)
    """

    X: Array
    E_aw: Array
    layers: dict[str, Any]
    activations: dict[str, Any]
    sparsity: dict[str, SparsityCache]
    detached: dict[str, Array]


@dataclass(frozen=True)
class AdaSparse(InHalves):
    """H^{l+1} = act((H^l pi^l) W^l + b^l), pi^l from U^l = [E_aw, H^l]; L = L_ce + R_s.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Codes per field, scenario-aware fields first.
    n_aware : int
        Number of scenario-aware fields; their embeddings, side by side, are E_aw.
    n_scenarios : int
        Number of scenarios D; the scenario id is not read.
    dim_embedding : int
        Width of each field's embedding.
    hidden : tuple of int
        Widths of the hidden layers.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    prune : str
        "scaling": pi = v.  "binarization": pi = 1 where v > epsilon, else 0.  "fusion": pi = v
        where v > epsilon, else 0.
    beta : float
        v lies in (0, beta); in (0, 1) for "binarization".
    epsilon : float
        Threshold on v.
    binarize_grad : str
        Gradient of "binarization".  "ste": as if there were no threshold.  "soft": pi = v in
        training, the threshold at inference only.  "zero": the true derivative.
    fusion_grad : str
        Gradient of "fusion".  "exact": what is pruned gets none.  "ste": as if there were no
        threshold.
    prune_input : str
        What of X = [E_aw, E_ag] is pruned.  "all", "agnostic_only": E_ag.  "none".
    alpha_start, alpha_end : float
        Temperature of the sigmoid at the first step and after ``schedule_steps`` steps.
    sparsity_weight : float
        Weight of the regulariser R_s in the loss; with 0 it is left out.
    r_min, r_max : float
        The share of what is pruned that costs nothing.
    ratio : str
        "batch": the share over all rows.  "per_sample": row by row.
    lambda_detach : bool
        Treat the weight lambda_hat |r - (r_min + r_max) / 2| as a constant.
    lambda_start, lambda_end : float
        Strength lambda_hat of the regulariser, likewise.
    schedule_steps : int
        Training steps in which alpha and lambda_hat go from start to end.

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
    prune: str = "fusion"
    beta: float = 2.0
    epsilon: float = 0.25
    binarize_grad: str = "ste"
    fusion_grad: str = "exact"
    prune_input: str = "all"
    alpha_start: float = 0.1
    alpha_end: float = 5.0
    sparsity_weight: float = 1.0
    r_min: float = 0.15
    r_max: float = 0.25
    ratio: str = "batch"
    lambda_detach: bool = False
    lambda_start: float = 0.01
    lambda_end: float = 0.01
    schedule_steps: int = 1000

    drops_embeddings = True
    looks_up_last = False
    advance_reads_cache = False
    has_fixed_work = True
    takes_whole_batches = True  # rows meet in the share of what is pruned

    def __post_init__(self) -> None:
        n_fields = len(self.vocab_sizes)
        if not 1 <= self.n_aware <= n_fields:
            raise ValueError(
                f"n_aware must lie in [1, {n_fields}], the number of fields; got {self.n_aware}. "
                "The pruner needs at least one scenario-aware field."
            )
        if self.prune_input not in PRUNE_INPUTS:
            raise ValueError(
                f"prune_input must be one of {PRUNE_INPUTS}; got {self.prune_input!r}."
            )
        check_activation(self.activation)
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden must hold widths of at least 1; got {self.hidden}.")
        if not self.alpha_start > 0 or not self.alpha_end > 0:
            raise ValueError(
                "alpha_start and alpha_end must be positive; "
                f"got {self.alpha_start} and {self.alpha_end}."
            )
        for name in ("sparsity_weight", "lambda_start", "lambda_end"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}.")
        if not 1 <= self.schedule_steps <= MAX_STEPS:
            raise ValueError(
                f"schedule_steps must lie in [1, {MAX_STEPS}]; got {self.schedule_steps}."
            )
        if not self.layers or min(layer.pruner.dim_out for layer in self.layers.values()) < 1:
            raise ValueError(
                f"prune_input={self.prune_input!r} leaves nothing to prune with hidden = "
                f"{self.hidden}, n_aware = {self.n_aware} and {n_fields} fields."
            )
        _ = self.sparsity  # report a wrong interval now, not at the first batch

    @property
    def dim_aware(self) -> int:
        """Width d_aw of E_aw."""
        return self.n_aware * self.dim_embedding

    @cached_property
    def embedding(self) -> Embedding:
        """Lookup of all fields."""
        return Embedding(self.vocab_sizes, self.dim_embedding)

    @property
    def dims(self) -> tuple[int, ...]:
        """Widths of the backbone, from X to the logit."""
        return (len(self.vocab_sizes) * self.dim_embedding, *self.hidden, 1)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each layer of the backbone by name, in order."""
        names = [*(f"layer_{i}" for i in range(1, len(self.hidden) + 1)), "head"]
        return dict(zip(names, pairwise(self.dims), strict=True))

    @cached_property
    def layers(self) -> dict[str, PrunedLayer]:
        """The layers that have a pruner: all, or all but the first."""
        return {
            name: PrunedLayer(self.dim_aware, *shape, self._pruner(name, shape[0]))
            for name, shape in list(self.shapes.items())[self.prune_input == "none" :]
        }

    def _pruner(self, name: str, dim_in: int) -> Pruner:
        is_input = name == next(iter(self.shapes))
        only_agnostic = is_input and self.prune_input == "agnostic_only"
        return Pruner(
            dim_in=self.dim_aware + dim_in,
            dim_out=dim_in - self.dim_aware if only_agnostic else dim_in,
            prune=self.prune,
            beta=self.beta,
            epsilon=self.epsilon,
            binarize_grad=self.binarize_grad,
            fusion_grad=self.fusion_grad,
        )

    @cached_property
    def sparsity(self) -> Sparsity:
        """Regulariser, the same for every layer."""
        return Sparsity(self.r_min, self.r_max, self.ratio, self.lambda_detach)

    @property
    def buffers(self) -> tuple[str, ...]:
        """The counter of training steps, from which alpha and lambda_hat follow."""
        return ("schedule.step",)

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Weight of R_s."""
        return {"sparsity": self.sparsity_weight} if self.sparsity_weight else {}

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters; the counter of steps stands at 0."""
        params: Tree = {"embedding": self.embedding.init(rng)}
        for name, shape in self.shapes.items():
            layer = self.layers.get(name)
            params[name] = layer.init(rng) if layer else init_affine(rng, *shape)
        return params | {"schedule": {"step": np.zeros(1)}}

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Nothing is random in training."""
        return {}

    def advance(self, params: Tree, cache: Any) -> Tree:
        """Count a training step; alpha and lambda_hat follow from the count (derivations 8.1c)."""
        return tree_set(params, "schedule.step", params["schedule"]["step"] + 1.0)

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, AdaSparseCache]:
        """Return the logits (B,), the auxiliary term "sparsity" and the cache.

        See derivations 8.1a, 8.1d.
        """
        sg = StopGradient(frozen, {})
        logit, cache = self._logit(params, inputs, sg, training=True)
        if not self.sparsity_weight:
            return ModelOutput(logit, {}), cache
        R_s, c_sparsity = self._regulariser(params["schedule"]["step"], cache.layers, sg)
        cache = cache._replace(sparsity=c_sparsity)
        return ModelOutput(logit, {"sparsity": R_s}), cache

    def network_at_inference(
        self, params: Tree, inputs: Sequence[Array], frozen: Mapping[str, Array] | None = None
    ) -> tuple[ModelOutput, AdaSparseCache]:
        """Without the regulariser, and with a threshold where "soft" has none in training."""
        logit, cache = self._logit(params, inputs, StopGradient(frozen, {}), training=False)
        return ModelOutput(logit, {}), cache

    def _logit(
        self, params: Tree, inputs: Sequence[Array], sg: StopGradient, *, training: bool
    ) -> tuple[Array, AdaSparseCache]:
        """Return the logits (B,) and the cache, without a regulariser (derivations 8.1a)."""
        (X,), step = inputs, params["schedule"]["step"]
        alpha = linear_schedule(step, self.alpha_start, self.alpha_end, self.schedule_steps)
        E_aw = X[:, : self.dim_aware]
        layers: dict[str, Any] = {}
        activations = {}
        H = X
        for name in self.shapes:
            if name in self.layers:
                A, layers[name] = self.layers[name].forward(
                    params[name], H, E_aw, alpha, _named(sg, name), training=training
                )
            else:
                A, c_affine = affine(H, **params[name])
                layers[name] = PlainCache(A, c_affine)
            H, activations[name] = self._activation(name).forward(A)
        return H[:, 0], AdaSparseCache(X, E_aw, layers, activations, {}, sg.detached)

    def _regulariser(
        self, step: Array, layers: dict[str, Any], sg: StopGradient
    ) -> tuple[Array, dict[str, SparsityCache]]:
        """Return R_s, the mean over the pruned layers, and their caches (derivations 8.1d)."""
        lambda_hat = linear_schedule(step, self.lambda_start, self.lambda_end, self.schedule_steps)
        total: Array = 0.0
        caches = {}
        for name in self.layers:
            term, caches[name] = self.sparsity.forward(
                layers[name].pi, lambda_hat, _named(sg, name)
            )
            total = total + term / len(self.layers)
        return total, caches

    def network_backward(
        self, d_output: ModelOutput, cache: AdaSparseCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return ``(dX,)`` and the gradients of all but the tables (derivations 8.3a, 8.3g)."""
        grads: Tree = {}
        dH, dE_aw = d_output.logit[:, None], None
        for name in reversed(self.shapes):
            dA = activation_backward(self._activation(name), dH, cache.activations[name])
            if name in self.layers:
                d_pi = self._regulariser_backward(name, d_output, cache)
                dH, dE_part, grads[name] = self.layers[name].backward(dA, cache.layers[name], d_pi)
                dE_aw = add_to(dE_aw, dE_part)
            else:
                dH, dW, db = affine_backward(dA, cache.layers[name].affine)
                grads[name] = {"W": dW, "b": db}
        add_to_columns(dH, 0, dE_aw)
        return (dH,), {name: grads[name] for name in self.shapes}

    def _regulariser_backward(
        self, name: str, d_output: ModelOutput, cache: AdaSparseCache
    ) -> Array | None:
        """Return what R_s sends to the factors of one layer; nothing at inference."""
        if not cache.sparsity:
            return None
        d_term = d_output.auxiliary["sparsity"] / len(self.layers)
        return self.sparsity.backward(d_term, cache.sparsity[name])

    def _activation(self, name: str) -> Any:
        return ACTIVATIONS["identity" if name == "head" else self.activation]

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Distances from corners and thresholds, by the path of the bias that shifts them."""
        kinks: dict[str, Array] = {}
        layers = cache.network.layers
        for name in self.shapes:
            if name in self.layers:
                inner = self.layers[name].kinks(layers[name])
                kinks |= {f"{name}.{path}": v for path, v in inner.items()}
            if name != "head":
                kinks[f"{name}.b"] = layers[name].A
        return kinks

    def count_params(self) -> ParamCount:
        """Backbone and pruners; the state is the counter of steps."""
        params = self.init(np.random.default_rng(0))
        embedding, state = tree_size(params.pop("embedding")), tree_size(params.pop("schedule"))
        multiply_adds = mlp_multiply_adds(self.dims) + sum(
            layer.pruner.dim_in * layer.pruner.dim_out for layer in self.layers.values()
        )
        return ParamCount(tree_size(params), 0, embedding, multiply_adds, state)


def _named(sg: StopGradient, layer: str) -> Stop:
    """Return ``sg`` with the layer's name before that of the value."""
    return lambda name, x: sg(f"{layer}.{name}", x)
