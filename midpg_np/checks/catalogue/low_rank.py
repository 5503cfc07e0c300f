"""Cases of the generated low-rank layer (derivations 9)."""

from __future__ import annotations

from functools import partial

import numpy as np

from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, layer_case, pair_case
from midpg_np.layers.low_rank import LOW_RANK_FORMS, multiply_out, multiply_out_backward
from midpg_np.layers.low_rank_layer import LowRankLayer


def _product(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    K = sizes.d_k
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "U": rng.normal(size=(sizes.d_n, K)),
        "V": rng.normal(size=(K, sizes.d_m)),
        "S": rng.normal(size=(sizes.B, K, K)),
    }
    pair = LOW_RANK_FORMS[form]
    return pair_case(f"low_rank {form}", inputs, pair.forward, pair.backward)


def _multiply_out(sizes: Sizes, rng: np.random.Generator) -> Case:
    P = sizes.d_k + 1
    inputs = {
        "left": rng.normal(size=(sizes.d_n, P)),
        "right": rng.normal(size=(P, sizes.d_k)),
    }
    return pair_case("multiply_out", inputs, multiply_out, multiply_out_backward)


def _layer(
    form: str, over: bool, generate_bias: bool, sizes: Sizes, rng: np.random.Generator
) -> Case:
    layer = LowRankLayer(
        sizes.d_m,
        sizes.d_n,
        sizes.d_e,
        rank=sizes.d_k,
        over_rank=sizes.d_k + 1 if over else None,
        generator_hidden=(4,),
        generate_bias=generate_bias,
        form=form,
    )
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "z": rng.normal(size=(sizes.B, sizes.d_e)),
    }
    name = f"low_rank_layer {form}" + (" over-parameterised" if over else "")
    return layer_case(name + (" with bias" if generate_bias else ""), layer, inputs, rng)


BUILDERS: list[Builder] = [
    _multiply_out,
    *(partial(_product, form) for form in LOW_RANK_FORMS),
    *(
        partial(_layer, form, over, generate_bias)
        for form in LOW_RANK_FORMS
        for over in (True, False)
        for generate_bias in (False, True)
    ),
]
