"""Sizes of the catalogue's cases, and how an op or a layer becomes a case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.checks.case import Case
from midpg_np.checks.model import perturbed


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


def pair_case(
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


def layer_case(
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
