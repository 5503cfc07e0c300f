"""Turn a model into a case: logits and auxiliary terms as outputs, all parameters as inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.batch import Batch
from midpg_np.checks.case import Case
from midpg_np.tree import Tree, tree_flatten, tree_items, tree_map, tree_set, tree_unflatten


def perturbed(params: Tree, rng: np.random.Generator, scale: float = 0.5) -> Tree:
    """Add N(0, scale^2), drawn by ``rng``, to every entry of ``params``.

    At initialisation zero biases would mask mistakes.
    """
    return tree_map(lambda leaf: leaf + rng.normal(0.0, scale, size=leaf.shape), params)


def perturbed_params(model: Any, rng: np.random.Generator, scale: float = 0.5) -> Tree:
    """Draw parameters of ``model``, ``perturbed`` from their start with ``scale``.

    State without gradient (variances, counters) is not negative.
    """
    leaves = tree_flatten(perturbed(model.init(rng), rng, scale))
    for path in getattr(model, "buffers", ()):
        leaves[path] = np.abs(leaves[path])
    return tree_unflatten(leaves)


def dense_gradients(grads: Tree) -> Tree:
    """Return the tree ``grads`` with every row gradient as a whole table."""
    return tree_map(lambda leaf: leaf.dense() if hasattr(leaf, "dense") else leaf, grads)


def model_case(
    model: Any,
    params: Tree,
    batch: Batch,
    draws: Mapping[str, Array] | None,
    name: str | None = None,
) -> Case:
    """Case of one training step (or of inference, with ``draws=None``) of any model.

    The step is that of ``model`` with ``params`` on ``batch``; ``name`` is what the report calls
    it.  State without gradient (``model.buffers``) is held fixed; it is not among the inputs.  At
    inference, parameters that only training uses are not either.
    """
    outputs: list[Any] = []  # the last output, a template for its own adjoint
    leaves = tree_flatten(params)
    fixed = set(getattr(model, "buffers", ()))
    if draws is None:
        output, cache = model.forward(params, batch)
        fixed |= leaves.keys() - tree_flatten(model.backward(output, cache)).keys()
    held = {path: leaves.pop(path) for path in sorted(fixed)}

    def forward(inputs: Tree, frozen: Mapping[str, Array] | None) -> tuple[tuple[Array, ...], Any]:
        params = _completed(inputs, held)
        output, cache = model.forward(params, batch, draws=draws, frozen=frozen)
        outputs[:] = [output]
        return (output.logit, *output.auxiliary.values()), cache

    def backward(d_outputs: tuple[Array, ...], cache: Any) -> Tree:
        d_logit, *d_terms = d_outputs
        d_auxiliary = dict(zip(outputs[0].auxiliary, d_terms, strict=True))
        d_output = outputs[0]._replace(logit=d_logit, auxiliary=d_auxiliary)
        return dense_gradients(model.backward(d_output, cache))

    inputs = tree_unflatten(leaves)
    return Case(name or type(model).__name__, inputs, forward, backward, model.kinks)


def _completed(inputs: Tree, held: Mapping[str, Array]) -> Tree:
    """Return the inputs and what is held fixed, in one dtype and on one device."""
    if not held:
        return inputs
    like = next(leaf for _, leaf in tree_items(inputs)).real
    for path, leaf in held.items():
        leaf = get_xp(like).asarray(leaf, dtype=like.dtype)
        inputs = tree_set(inputs, path, leaf)
    return inputs
