"""MI-DPG: DPG trained with a mutual-information regulariser (derivations 3.3, 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array, to_numpy
from midpg_np.batch import Batch
from midpg_np.layers.expansion import Expansion, RepeatShape
from midpg_np.layers.mir import MICache, MutualInformation
from midpg_np.layers.negatives import NEGATIVES, draw_partner, shuffle, shuffle_backward
from midpg_np.models.dpg import DPG, CoreAdjoint, DPGCache, EmbedCache
from midpg_np.models.protocol import Draws, ModelCache, ModelOutput, ParamCount
from midpg_np.models.stop_gradient import StopGradient
from midpg_np.ops import add_to, add_to_columns, concat, split
from midpg_np.tree import Tree, tree_size
from midpg_np.workspace import Workspace


class MIDPGCache(NamedTuple):
    """DPG's network cache, and one regulariser cache per discriminator (none at inference)."""

    dpg: DPGCache
    mi: dict[str, MICache]
    detached: dict[str, Array]


@dataclass(frozen=True)
class MIDPG(DPG):
    """L = L_ce + mi_weight * mean over modulated layers of L_mi.

    Every option of ``DPG``, and:

    Parameters
    ----------
    mi_weight : float
        Weight lambda of the regulariser.
    disc : str
        "mlp" or "bilinear".
    disc_hidden : tuple of int
        Hidden widths of the "mlp" discriminator.
    disc_scope : str
        "per_layer": a discriminator per modulated layer.  "concat": one on all signals together.
    disc_input : str
        "core": Q.  "full": psi(Q).  "factors": the generated factors, before the sigmoid.
    mi_reduce : str
        "mean" or "sum" over the discriminators.
    mi_grad_to : str
        Who learns from L_mi.  "all": everyone.  "disc+gen": discriminators, generators and shared
        factors, nothing behind a generator's input.  "disc": discriminators only.
    mi_detach_context : bool
        Stop the gradient from the discriminators to E_aw.
    negatives : str
        "permutation", "derangement" or "other_scenario"; see ``layers.negatives``.

    Raises
    ------
    ValueError
        For an option that is no known name or out of its range; the message says what would do.
    """

    mi_weight: float = 1.0
    disc: str = "mlp"
    disc_hidden: tuple[int, ...] = (32,)
    disc_scope: str = "per_layer"
    disc_input: str = "core"
    mi_reduce: str = "mean"
    mi_grad_to: str = "all"
    mi_detach_context: bool = False
    negatives: str = "permutation"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (
            ("disc_scope", ("per_layer", "concat")),
            ("disc_input", ("core", "full", "factors")),
            ("mi_reduce", ("mean", "sum")),
            ("mi_grad_to", ("all", "disc+gen", "disc")),
            ("negatives", NEGATIVES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {getattr(self, name)!r}.")
        _ = self.regularisers

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Lambda."""
        return {"mi": self.mi_weight}

    @property
    def has_fixed_work(self) -> bool:
        """As DPG; the bilinear discriminator calls CuPy's own products."""
        return super().has_fixed_work and self.disc == "mlp"

    @property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        """Which layers' signals each discriminator reads."""
        if self.disc_scope == "concat":
            return {"all": tuple(self.layers)}
        return {name: (name,) for name in self.layers}

    def _signal_width(self, name: str) -> int:
        weighting = self.layers[name].weighting
        if self.disc_input == "factors":
            return sum(weighting.generated_widths.values())
        return weighting.d_r * weighting.d_c

    @cached_property
    def regularisers(self) -> dict[str, MutualInformation]:
        """One regulariser per discriminator, by name."""
        return {group: self._regulariser(names) for group, names in self._groups.items()}

    def _regulariser(self, names: tuple[str, ...]) -> MutualInformation:
        expansion = None
        if self.disc_input == "full":
            layers = [self.layers[name] for name in names]
            shapes = [RepeatShape(x.weighting.d_r, x.weighting.d_c, *x.w_shape) for x in layers]
            expansion = Expansion(tuple(shapes), self.repeat_mode)
        return MutualInformation(
            dim_context=self.dim_aware,
            dim_signal=sum(self._signal_width(name) for name in names),
            disc=self.disc,
            hidden=self.disc_hidden,
            expansion=expansion,
            form="textbook" if self.form == "textbook" else "grouped",
        )

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters; those of DPG come first and are the same as DPG's."""
        params = super().init(rng)
        params["discriminators"] = {name: mi.init(rng) for name, mi in self.regularisers.items()}
        return params

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Draw ``partner`` (B,): row b's negative pair has the context of row partner[b]."""
        return {"partner": draw_partner(rng, to_numpy(batch.scenario), self.negatives)}

    def embed(
        self, params: Tree, batch: Batch, draws: Draws | None
    ) -> tuple[tuple[Array, ...], EmbedCache]:
        """Look up X (B, d_0) and, in training, the contexts of the negative pairs (B, d_aw)."""
        (X,), cache = super().embed(params, batch, draws)
        if draws is None:
            return (X,), cache
        E_neg, c_shuffle = shuffle(X[:, : self.dim_aware], draws["partner"])
        return (X, E_neg), cache._replace(shuffle=c_shuffle)

    def embed_backward(self, d_inputs: Sequence[Array], cache: EmbedCache) -> Tree:
        """Return the gradient of the tables (derivations 3.4r, 3.4u, 3.4v)."""
        if cache.shuffle is not None:
            dX, dE_neg = d_inputs
            add_to_columns(dX, 0, shuffle_backward(dE_neg, cache.shuffle))
        return super().embed_backward(d_inputs, cache)

    def network(
        self,
        params: Tree,
        inputs: Sequence[Array],
        frozen: Mapping[str, Array] | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[ModelOutput, MIDPGCache]:
        """Return the logits (B,), in training also the auxiliary term "mi", and the cache.

        See derivations 3.3c.
        """
        X, *E_neg = inputs
        output, c_dpg = super().network(params, (X,), frozen, workspace)
        if not E_neg:
            return output, MIDPGCache(c_dpg, {}, c_dpg.detached)
        sg = StopGradient(frozen, c_dpg.detached)
        e, e_neg = c_dpg.E_aw, E_neg[0]
        if self._context_is_detached:
            e, e_neg = sg("mi.context", e), sg("mi.shuffled_context", e_neg)
        caches: dict[str, MICache] = {}
        total: Array = 0.0
        for group, names in self._groups.items():
            q, _ = concat([self._signal(name, params, c_dpg, sg) for name in names])
            loss, caches[group] = self.regularisers[group].forward(
                params["discriminators"][group], e, e_neg, q
            )
            total = total + self._reduction * loss
        return output._replace(auxiliary={"mi": total}), MIDPGCache(c_dpg, caches, sg.detached)

    def network_backward(
        self, d_output: ModelOutput, cache: MIDPGCache, workspace: Workspace | None = None
    ) -> tuple[tuple[Array, ...], Tree]:
        """Return the adjoints of the inputs and the gradients of all but the tables.

        See derivations 3.4r.
        """
        dE_aw, dE_neg = None, None
        d_cores: dict[str, CoreAdjoint] = {}
        g_discriminators = {}
        for group, c_mi in cache.mi.items():
            d_loss = d_output.auxiliary["mi"] * self._reduction
            d_e, d_e_neg, d_q, g_discriminators[group] = self.regularisers[group].backward(
                d_loss, c_mi, workspace
            )
            dE_aw, dE_neg = add_to(dE_aw, d_e), add_to(dE_neg, d_e_neg)
            if self.mi_grad_to != "disc":
                d_cores |= self._core_adjoints(group, d_q)
        if self._context_is_detached and dE_neg is not None:
            dE_aw, dE_neg = None, dE_neg * 0.0
        dX, grads = self._network_backward(d_output.logit, cache.dpg, d_cores, dE_aw, workspace)
        d_inputs = (dX,) if dE_neg is None else (dX, dE_neg)
        return d_inputs, grads | {"discriminators": g_discriminators}

    @property
    def _reduction(self) -> float:
        return 1.0 / len(self._groups) if self.mi_reduce == "mean" else 1.0

    @property
    def _context_is_detached(self) -> bool:
        return self.mi_detach_context or self.mi_grad_to != "all"

    def _signal(self, name: str, params: Tree, cache: DPGCache, sg: StopGradient) -> Array:
        """Return what the discriminator reads of one layer, (B, width), detached if so asked."""
        c_weighting = cache.layers[name].weighting
        if self.mi_grad_to == "disc+gen":
            U = sg(f"mi.{name}.U", cache.layers[name].U)
            if sg.frozen is not None:  # U is at its base point, the parameters may not be
                weighting = self.layers[name].weighting
                _, c_weighting = weighting.forward(params[name]["weighting"], U)
        if self.disc_input == "factors":
            signal = c_weighting.generated
        else:
            signal = c_weighting.Q.reshape(c_weighting.Q.shape[0], -1)
        return sg(f"mi.{name}.signal", signal) if self.mi_grad_to == "disc" else signal

    def _core_adjoints(self, group: str, d_q: Array) -> dict[str, CoreAdjoint]:
        """Cut the adjoint of a discriminator's signal into those of its layers.

        See derivations 3.4t.
        """
        names = self._groups[group]
        parts, _ = split(d_q, [self._signal_width(name) for name in names])
        to_input = self.mi_grad_to == "all"
        if self.disc_input == "factors":
            return {
                name: CoreAdjoint(None, part, to_input)
                for name, part in zip(names, parts, strict=True)
            }
        return {
            name: CoreAdjoint(self._as_core(name, part), None, to_input)
            for name, part in zip(names, parts, strict=True)
        }

    def _as_core(self, name: str, part: Array) -> Array:
        weighting = self.layers[name].weighting
        return part.reshape(-1, weighting.d_r, weighting.d_c)

    def kinks(self, cache: ModelCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        kinks = self._network_kinks(cache.network.dpg)
        for group, c_mi in cache.network.mi.items():
            inner = self.regularisers[group].kinks(c_mi)
            kinks |= {f"discriminators.{group}.{path}": A for path, A in inner.items()}
        return kinks

    def count_params(self) -> ParamCount:
        """As DPG; the discriminators are needed in training only."""
        discriminators = self.init(np.random.default_rng(0))["discriminators"]
        dpg = super().count_params()
        training_only = tree_size(discriminators)
        return dpg._replace(serving=dpg.serving - training_only, training_only=training_only)
