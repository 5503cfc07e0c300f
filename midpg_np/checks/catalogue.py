"""Every op, loss and layer as a case: what ``midpg gradcheck`` and the tests run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from midpg_np import losses, ops
from midpg_np.backend import Array
from midpg_np.checks.case import Case
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.dwm import VARIANTS, DynamicWeighting
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.expansion import Expansion, RepeatShape
from midpg_np.layers.mir import MutualInformation
from midpg_np.layers.mlp import MLP
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.modulated_layer import (
    W_LAYOUTS,
    ModulatedLayer,
    modulated_bias,
    modulated_bias_backward,
)
from midpg_np.layers.repeat import REPEAT_MODES, repeat, repeat_backward


class Sizes(NamedTuple):
    """Sizes of the arrays in a case; d_m = d_r * f_r and d_n = d_c * f_c."""

    B: int = 7
    d_r: int = 3
    d_c: int = 2
    d_k: int = 2
    f_r: int = 2
    f_c: int = 4
    d_e: int = 5

    @property
    def d_m(self) -> int:
        """Rows of W."""
        return self.d_r * self.f_r

    @property
    def d_n(self) -> int:
        """Columns of W."""
        return self.d_c * self.f_c


Builder = Callable[[Sizes, np.random.Generator], Case]


def _pair(
    name: str,
    inputs: dict[str, np.ndarray],
    forward: Callable[..., tuple[Array, Any]],
    backward: Callable[[Array, Any], Any],
    has_kink: bool = False,
) -> Case:
    """Case of an op: inputs by argument name, adjoints in the same order."""

    def run(inputs: dict[str, Array], frozen: object) -> tuple[tuple[Array], Any]:
        y, cache = forward(**inputs)
        return (y,), (cache, inputs)

    def adjoint(d_outputs: tuple[Array], cache: Any) -> dict[str, Array]:
        d_inputs = backward(d_outputs[0], cache[0])
        if not isinstance(d_inputs, tuple):
            d_inputs = (d_inputs,)
        return dict(zip(inputs, d_inputs, strict=True))

    kinks = (lambda cache: {"x": cache[1]["x"]}) if has_kink else None
    return Case(name, inputs, run, adjoint, kinks)


def _unary(name: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    activation = ops.ACTIVATIONS[name]
    x = rng.normal(size=(sizes.B, sizes.d_n)) * 2.0
    has_kink = name in ("relu", "leaky_relu")
    return _pair(name, {"x": x}, activation.forward, activation.backward, has_kink)


def _affine(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "x": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=sizes.d_n),
    }
    return _pair("affine", inputs, ops.affine, ops.affine_backward)


def _softmax(sizes: Sizes, rng: np.random.Generator) -> Case:
    x = rng.normal(size=(sizes.B, sizes.d_n)) * 2.0
    return _pair("softmax", {"x": x}, ops.softmax, ops.softmax_backward)


def _concat(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {"a": rng.normal(size=(sizes.B, sizes.d_m)), "b": rng.normal(size=(sizes.B, 3))}

    def forward(a: Array, b: Array) -> tuple[Array, Any]:
        return ops.concat([a, b])

    return _pair("concat", inputs, forward, lambda dy, c: tuple(ops.concat_backward(dy, c)))


def _split(sizes: Sizes, rng: np.random.Generator) -> Case:
    widths = (sizes.d_m, sizes.d_n)
    weights = rng.normal(size=sizes.d_m), rng.normal(size=sizes.d_n)

    def run(inputs: dict[str, Array], frozen: object) -> tuple[tuple[Array, ...], Any]:
        parts, cache = ops.split(inputs["x"], widths)
        return tuple(part * w for part, w in zip(parts, weights, strict=True)), cache

    def adjoint(d_outputs: tuple[Array, ...], cache: Any) -> dict[str, Array]:
        d_parts = [d * w for d, w in zip(d_outputs, weights, strict=True)]
        return {"x": ops.split_backward(d_parts, cache)}

    return Case("split", {"x": rng.normal(size=(sizes.B, sum(widths)))}, run, adjoint)


def _cross_entropy(kind: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    loss = losses.CROSS_ENTROPIES[kind]
    y = (rng.random(sizes.B) < 0.5).astype(float)
    y[0] = 1.0  # "positive_only" is constant without a positive
    inputs = {"z": rng.normal(size=sizes.B) * 3.0}
    return _pair(f"cross_entropy {kind}", inputs, lambda z: loss.forward(z, y), loss.backward)


def _jensen_shannon(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {"t_pos": rng.normal(size=sizes.B) * 3.0, "t_neg": rng.normal(size=sizes.B) * 3.0}
    return _pair("jensen_shannon", inputs, losses.jensen_shannon, losses.jensen_shannon_backward)


def _layer(
    name: str,
    layer: Any,
    inputs: dict[str, np.ndarray],
    rng: np.random.Generator,
    *constants: Any,
) -> Case:
    """Case of a layer with ``forward(params, *inputs)`` and parameters away from their start."""

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        y, cache = layer.forward(tree["params"], *(tree[key] for key in inputs), *constants)
        return (y,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        *d_inputs, grads = layer.backward(d_outputs[0], cache)
        return dict(zip(inputs, d_inputs, strict=True)) | {"params": grads}

    def kinks(cache: Any) -> dict[str, Array]:
        return {f"params.{path}": A for path, A in layer.kinks(cache).items()}

    params = perturbed(layer.init(rng), rng)
    return Case(name, inputs | {"params": params}, run, adjoint, kinks)


def _mlp(sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = MLP((sizes.d_m, sizes.d_n, 3, 2))
    return _layer("mlp", layer, {"x": rng.normal(size=(sizes.B, sizes.d_m))}, rng)


def _embedding(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = Embedding((3, 5, 2), sizes.d_k)
    codes = rng.integers(0, layer.vocab_sizes, size=(sizes.B, 3))  # repeated and absent codes

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        E, cache = layer.forward(tree, codes)
        return (E,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        if form == "dense":
            return layer.backward_dense(d_outputs[0], cache)
        return dense_gradients(layer.backward(d_outputs[0], cache))

    return Case(f"embedding {form}", perturbed(layer.init(rng), rng), run, adjoint)


def _repeat(mode: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    Q = rng.normal(size=(sizes.B, sizes.d_r, sizes.d_c))
    return _pair(
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
    return _pair(f"modulated {form} {mode}", inputs, forward, FORMS[form].backward)


def _bias(mode: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "b": rng.normal(size=sizes.d_n),
        "Q": rng.random(size=(sizes.B, sizes.d_r, sizes.d_c)),
    }

    def backward(d_beta: Array, cache: Any) -> tuple[Array, Array]:
        db, dQ = modulated_bias_backward(d_beta, cache)
        return db, dQ + np.zeros((sizes.B, sizes.d_r, sizes.d_c))

    return _pair(f"modulated_bias {mode}", inputs, partial(modulated_bias, mode=mode), backward)


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
    return _layer(f"dwm {variant} sigmoid on {sigmoid_on}", layer, {"U": U}, rng)


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
        "q": rng.random(size=(sizes.B, dim_core)),
    }
    # A cycle over all rows: no involution, so a gather in place of a scatter shows.
    partner = np.roll(np.arange(sizes.B), 1)
    name = f"mir {disc} {form}" + (f" full {expansion}" if expansion else "")
    return _layer(name, layer, inputs, rng, partner)


def _builders() -> dict[str, Builder]:
    builders: list[Builder] = [_affine, _softmax, _concat, _split, _jensen_shannon, _mlp]
    builders += [partial(_unary, name) for name in ops.ACTIVATIONS]
    builders += [partial(_cross_entropy, kind) for kind in losses.CROSS_ENTROPIES]
    builders += [partial(_embedding, form) for form in ("rows", "dense")]
    builders += [partial(_repeat, mode) for mode in REPEAT_MODES]
    builders += [partial(_product, form, mode) for form in FORMS for mode in REPEAT_MODES]
    builders += [partial(_bias, mode) for mode in REPEAT_MODES]
    builders += [
        partial(_weighting, variant, sigmoid_on)
        for variant in VARIANTS
        for sigmoid_on in ("product", "factors")
    ]
    builders += [
        partial(_modulated_layer, w_layout, modulate_bias)
        for w_layout in W_LAYOUTS
        for modulate_bias in (False, True)
    ]
    builders += [
        partial(_mir, disc, form, expansion)
        for disc in ("mlp", "bilinear")
        for form in ("textbook", "grouped")
        for expansion in (None, *REPEAT_MODES)
    ]
    rng = np.random.default_rng(0)
    return {builder(Sizes(), rng).name: builder for builder in builders}


CASES: dict[str, Builder] = _builders()
