"""One thing to check: named inputs, a forward and its hand-written backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.tree import Tree, tree_flatten, tree_set

KINK_MARGIN = 5e-3  # 25 times the largest step of the differences


@dataclass(frozen=True)
class Case:
    """A pair to check.

    Parameters
    ----------
    name : str
        How reports call it.
    inputs : Tree
        Everything differentiable: parameters and real-valued inputs, float64 on the host.
    forward : callable
        ``forward(inputs, frozen) -> (outputs, cache)``; ``outputs`` is a tuple of arrays or
        scalars, ``frozen`` is None or the base point's ``cache.detached``.
    backward : callable
        ``backward(d_outputs, cache) -> grads``, a tree like ``inputs``.
    kinks : callable, optional
        ``kinks(cache) -> {path of a bias: pre-activation (N, width) that it shifts}``.
    """

    name: str
    inputs: Tree
    forward: Callable[[Tree, Mapping[str, Array] | None], tuple[tuple[Array, ...], Any]]
    backward: Callable[[tuple[Array, ...], Any], Tree]
    kinks: Callable[[Any], dict[str, Array]] | None = None


def wake_units(case: Case) -> Case:
    """Return the case with biases shifted so that units are on for some rows, off for others.

    Behind units that are off for every row all gradients are zero, and a check proves nothing.
    """
    if case.kinks is None:
        return case
    for path in case.kinks(case.forward(case.inputs, None)[1]):
        # Run again for each bias: shifting one moves the pre-activations behind it.
        bias = tree_flatten(case.inputs)[path]
        A = case.kinks(case.forward(case.inputs, None)[1])[path].reshape(-1, bias.shape[-1])
        low, high = A.min(axis=0), A.max(axis=0)
        is_one_sided = (low * high > 0) & (len(A) > 1)
        shifted = bias - is_one_sided * (low + high) / 2
        case = replace(case, inputs=tree_set(case.inputs, path, shifted))
    return case


def shift_from_kinks(case: Case, margin: float = KINK_MARGIN) -> Case:
    """Return the case with biases shifted until no pre-activation is within ``margin`` of zero.

    A ReLU's corner inside the span of a difference makes the difference wrong, not the backward.
    Units are moved, in order of computation, by growing steps of alternating sign; nothing is
    filtered or drawn again.

    Raises
    ------
    RuntimeError
        If no shift of the biases keeps clear of all kinks.
    """
    if case.kinks is None:
        return case
    for attempt in range(1, 1000):
        _, cache = case.forward(case.inputs, None)
        near = {
            path: (np.abs(A.reshape(-1, A.shape[-1])) < margin).any(axis=0)
            for path, A in case.kinks(cache).items()
        }
        path = next((path for path, units in near.items() if units.any()), None)
        if path is None:
            return case
        bias = tree_flatten(case.inputs)[path]
        step = 2.3 * margin * attempt * (-1) ** attempt
        case = replace(case, inputs=tree_set(case.inputs, path, bias + step * near[path]))
    raise RuntimeError(f"{case.name}: no shift of the biases keeps clear of all kinks.")


@dataclass(frozen=True)
class Linearised:
    """A case with an upstream gradient: the scalar f = sum <output, d_output> and its gradient."""

    inputs: Tree
    function: Callable[[Tree], complex]
    grads: Tree


def linearise(case: Case, rng: np.random.Generator) -> Linearised:
    """Draw a random upstream gradient by ``rng`` and run the backward pass of ``case`` once.

    An upstream gradient of ones would not see errors in softmax, transposes or row order.
    """
    outputs, cache = case.forward(case.inputs, None)
    d_outputs = tuple(
        rng.normal(size=np.shape(y)) if np.shape(y) else np.float64(rng.normal()) for y in outputs
    )
    grads = case.backward(d_outputs, cache)
    frozen = getattr(cache, "detached", None) or None

    def function(inputs: Tree) -> complex:
        outputs, _ = case.forward(inputs, frozen)
        return sum((d * y).sum() for d, y in zip(d_outputs, outputs, strict=True))

    return Linearised(case.inputs, function, grads)
