"""Turn a model into a case: logits and auxiliary terms as outputs, all parameters as inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.checks.case import Case
from midpg_np.tree import Tree, tree_map


def perturbed(params: Tree, rng: np.random.Generator, scale: float = 0.5) -> Tree:
    """Add N(0, scale^2) to every entry: at initialisation zero biases would mask mistakes."""
    return tree_map(lambda leaf: leaf + rng.normal(0.0, scale, size=leaf.shape), params)


def dense_gradients(grads: Tree) -> Tree:
    """Return the tree with every row gradient as a whole table."""
    return tree_map(lambda leaf: leaf.dense() if hasattr(leaf, "dense") else leaf, grads)


def model_case(
    model: Any,
    params: Tree,
    batch: Batch,
    draws: Mapping[str, Array] | None,
    name: str | None = None,
) -> Case:
    """Case of one training step (or of inference, with ``draws=None``) of any model."""
    outputs: list[Any] = []  # the last output, a template for its own adjoint

    def forward(params: Tree, frozen: Mapping[str, Array] | None) -> tuple[tuple[Array, ...], Any]:
        output, cache = model.forward(params, batch, draws=draws, frozen=frozen)
        outputs[:] = [output]
        return (output.logit, *output.auxiliary.values()), cache

    def backward(d_outputs: tuple[Array, ...], cache: Any) -> Tree:
        d_logit, *d_terms = d_outputs
        d_auxiliary = dict(zip(outputs[0].auxiliary, d_terms, strict=True))
        d_output = outputs[0]._replace(logit=d_logit, auxiliary=d_auxiliary)
        return dense_gradients(model.backward(d_output, cache))

    return Case(name or type(model).__name__, params, forward, backward, model.kinks)
