"""Cases of ops, losses, the MLP and the embedding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from midpg_np import losses, ops
from midpg_np.backend import Array, get_xp
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, layer_case, pair_case
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.dropout import draw_keep
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.mlp import MLP
from midpg_np.layers.penalties import (
    penalise_kernel,
    penalise_kernel_backward,
    penalise_rows,
    penalise_rows_backward,
)


def _unary(name: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    activation = ops.ACTIVATIONS[name]
    x = rng.normal(size=(sizes.B, sizes.d_n)) * 2.0
    has_kink = name in ("relu", "leaky_relu")
    return pair_case(name, {"x": x}, activation.forward, activation.backward, has_kink)


def _affine(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "x": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=sizes.d_n),
    }
    return pair_case("affine", inputs, ops.affine, ops.affine_backward)


def _softmax(sizes: Sizes, rng: np.random.Generator) -> Case:
    x = rng.normal(size=(sizes.B, sizes.d_n)) * 2.0
    return pair_case("softmax", {"x": x}, ops.softmax, ops.softmax_backward)


def _concat(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {"a": rng.normal(size=(sizes.B, sizes.d_m)), "b": rng.normal(size=(sizes.B, 3))}

    def forward(a: Array, b: Array) -> tuple[Array, Any]:
        return ops.concat([a, b])

    return pair_case("concat", inputs, forward, lambda dy, c: tuple(ops.concat_backward(dy, c)))


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


def _cross_entropy(kind: str, reduce: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    loss = losses.CROSS_ENTROPIES[kind]
    y = (rng.random(sizes.B) < 0.5).astype(float)
    y[0] = 1.0  # "positive_only" is constant without a positive
    inputs = {"z": rng.normal(size=sizes.B) * 3.0}
    scenario = np.minimum(np.arange(sizes.B), 2)  # unequal counts
    weigh = losses.LOSS_REDUCTIONS[reduce]
    weight = None if weigh is None else weigh(scenario, np.float64)
    name = f"cross_entropy {kind} {reduce}"
    return pair_case(name, inputs, lambda z: loss.forward(z, y, weight), loss.backward)


def _jensen_shannon(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {"t_pos": rng.normal(size=sizes.B) * 3.0, "t_neg": rng.normal(size=sizes.B) * 3.0}
    return pair_case(
        "jensen_shannon", inputs, losses.jensen_shannon, losses.jensen_shannon_backward
    )


def _mlp(sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = MLP((sizes.d_m, sizes.d_n, 3, 2))
    return layer_case("mlp", layer, {"x": rng.normal(size=(sizes.B, sizes.d_m))}, rng)


def _embedding(form: str, drops: bool, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = Embedding((3, 5, 2), sizes.d_k)
    codes = rng.integers(0, layer.vocab_sizes, size=(sizes.B, 3))  # repeated and absent codes
    mask = draw_keep(rng, (sizes.B, 3 * sizes.d_k), 0.4) if drops else None

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        keep = None if mask is None else mask.astype(tree["table"].real.dtype)
        E, cache = layer.forward(tree, codes, keep=keep)
        return (E,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        if form == "dense":
            return layer.backward_dense(d_outputs[0], cache)
        return dense_gradients(layer.backward(d_outputs[0], cache))

    name = f"embedding dropout {form}" if drops else f"embedding {form}"
    return Case(name, perturbed(layer.init(rng), rng), run, adjoint)


def _l2_rows(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {"table": rng.normal(size=(5, sizes.d_k))}
    ids = np.minimum(rng.integers(0, 5, size=3 * sizes.B), 3)  # repeated ones, and never the last

    def forward(table: Array) -> tuple[Array, Any]:
        return penalise_rows(table, get_xp(table).asarray(ids), 0.3)

    def adjoint(d_loss: Array, cache: Any) -> Array:
        return penalise_rows_backward(d_loss, cache).dense()

    return pair_case("l2 rows", inputs, forward, adjoint)


def _l2_kernel(centre: float, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {"W": rng.normal(size=(sizes.d_m, sizes.d_n))}

    def forward(W: Array) -> tuple[Array, Any]:
        return penalise_kernel(W, 0.3, centre)

    name = f"l2 kernel around {centre:.0f}"
    return pair_case(name, inputs, forward, penalise_kernel_backward)


BUILDERS: list[Builder] = [
    *(_affine, _softmax, _concat, _split, _jensen_shannon, _mlp),
    *(partial(_unary, name) for name in ops.ACTIVATIONS),
    *(
        partial(_cross_entropy, kind, reduce)
        for kind in losses.CROSS_ENTROPIES
        for reduce in losses.LOSS_REDUCTIONS
    ),
    *(partial(_embedding, form, drops) for drops in (False, True) for form in ("rows", "dense")),
    *(_l2_rows, partial(_l2_kernel, 0.0), partial(_l2_kernel, 1.0)),
]
