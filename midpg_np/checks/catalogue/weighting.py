"""Cases of the dynamic weighting and its regulariser (derivations 3)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, layer_case, pair_case
from midpg_np.checks.model import perturbed
from midpg_np.layers.dwm import VARIANTS, DynamicWeighting
from midpg_np.layers.expansion import Expansion, RepeatShape
from midpg_np.layers.mir import MutualInformation
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.modulated_layer import (
    W_LAYOUTS,
    ModulatedLayer,
    modulated_bias,
    modulated_bias_backward,
)
from midpg_np.layers.negatives import shuffle, shuffle_backward
from midpg_np.layers.repeat import REPEAT_MODES, repeat, repeat_backward


def _repeat(mode: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    Q = rng.normal(size=(sizes.B, sizes.d_r, sizes.d_c))
    return pair_case(
        f"repeat {mode}",
        {"Q": Q},
        lambda Q: (repeat(Q, sizes.d_m, sizes.d_n, mode), None),
        lambda dS, _: repeat_backward(dS, sizes.d_r, sizes.d_c, mode),
    )


def _product(form: str, mode: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(sizes.d_m, sizes.d_n)),
        "Q": rng.random(size=(sizes.B, sizes.d_r, sizes.d_c)),
    }
    forward = partial(FORMS[form].forward, mode=mode)
    return pair_case(f"modulated {form} {mode}", inputs, forward, FORMS[form].backward)


def _bias(mode: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "b": rng.normal(size=sizes.d_n),
        "Q": rng.random(size=(sizes.B, sizes.d_r, sizes.d_c)),
    }

    def backward(d_beta: Array, cache: Any) -> tuple[Array, Array]:
        db, dQ = modulated_bias_backward(d_beta, cache)
        return db, dQ + np.zeros((sizes.B, sizes.d_r, sizes.d_c))

    return pair_case(f"modulated_bias {mode}", inputs, partial(modulated_bias, mode=mode), backward)


def _weighting(variant: str, sigmoid_on: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = DynamicWeighting(
        dim_in=sizes.d_e,
        d_r=sizes.d_r,
        d_c=sizes.d_c,
        d_k=min(sizes.d_k, sizes.d_r, sizes.d_c),
        variant=variant,
        hidden=(4,),
        gain=1.5,
        sigmoid_on=sigmoid_on,
    )
    U = rng.normal(size=(sizes.B, sizes.d_e))
    return layer_case(f"dwm {variant} sigmoid on {sigmoid_on}", layer, {"U": U}, rng)


def _modulated_layer(
    w_layout: str, modulate_bias: bool, sizes: Sizes, rng: np.random.Generator
) -> Case:
    d_in, d_out = (sizes.d_m, sizes.d_n) if w_layout == "in_out" else (sizes.d_n, sizes.d_m)
    weighting = DynamicWeighting(sizes.d_e, sizes.d_r, sizes.d_c, hidden=(4,))
    layer = ModulatedLayer(d_in, d_out, weighting, w_layout=w_layout, modulate_bias=modulate_bias)

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        A, cache = layer.forward(tree["params"], tree["H"], tree["U"])
        return (A,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        dH, dQ, grads = layer.backward(d_outputs[0], cache)
        dU, g_weighting = weighting.backward(dQ, cache.weighting)
        return {"H": dH, "U": dU, "params": grads | {"weighting": g_weighting}}

    def kinks(cache: Any) -> dict[str, Array]:
        inner = weighting.kinks(cache.weighting)
        return {f"params.weighting.{path}": A for path, A in inner.items()}

    inputs = {
        "H": rng.normal(size=(sizes.B, d_in)),
        "U": rng.normal(size=(sizes.B, sizes.d_e)),
        "params": perturbed(layer.init(rng), rng),
    }
    name = f"modulated_layer {w_layout}" + (" with bias" if modulate_bias else "")
    return Case(name, inputs, run, adjoint, kinks)


def _shuffle(sizes: Sizes, rng: np.random.Generator) -> Case:
    # No involution, so a gather in place of a scatter shows; one row is read twice.
    partner = np.roll(np.arange(sizes.B), 1)
    partner[-1] = partner[0]
    forward = partial(shuffle, partner=partner)
    inputs = {"e": rng.normal(size=(sizes.B, sizes.d_e))}
    return pair_case("shuffle", inputs, forward, shuffle_backward)


def _mir(
    disc: str, form: str, expansion: str | None, sizes: Sizes, rng: np.random.Generator
) -> Case:
    shape = RepeatShape(sizes.d_r, sizes.d_c, sizes.d_m, sizes.d_n)
    dim_core = sizes.d_r * sizes.d_c
    layer = MutualInformation(
        sizes.d_e,
        dim_core,
        disc=disc,
        hidden=(4,),
        expansion=Expansion((shape,), expansion) if expansion else None,
        form=form,
    )
    inputs = {
        "e": rng.normal(size=(sizes.B, sizes.d_e)),
        "e_neg": rng.normal(size=(sizes.B, sizes.d_e)),
        "q": rng.random(size=(sizes.B, dim_core)),
    }
    name = f"mir {disc} {form}" + (f" full {expansion}" if expansion else "")
    return layer_case(name, layer, inputs, rng)


BUILDERS: list[Builder] = [
    *(partial(_repeat, mode) for mode in REPEAT_MODES),
    *(partial(_product, form, mode) for form in FORMS for mode in REPEAT_MODES),
    *(partial(_bias, mode) for mode in REPEAT_MODES),
    *(
        partial(_weighting, variant, sigmoid_on)
        for variant in VARIANTS
        for sigmoid_on in ("product", "factors")
    ),
    *(
        partial(_modulated_layer, w_layout, modulate_bias)
        for w_layout in W_LAYOUTS
        for modulate_bias in (False, True)
    ),
    _shuffle,
    *(
        partial(_mir, disc, form, expansion)
        for disc in ("mlp", "bilinear")
        for form in ("textbook", "grouped")
        for expansion in (None, *REPEAT_MODES)
    ),
]
