"""What several of the models in JAX are built from (derivations 2).

Every forward pass is written as the equations have it, every gradient is JAX's own.  Nothing here
knows the package: parameters are nested dictionaries of arrays.  ``tap(name, x)`` is called on
every intermediate and returns what to go on with, so that a caller can record it, or add something
to it to get its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Mapping[str, Any]
Tap = Callable[[str, jax.Array], jax.Array]

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "identity": lambda x: x,
}


def lookup(table: jax.Array, codes: jax.Array, vocab_sizes: Sequence[int]) -> jax.Array:
    """Embeddings of all fields side by side; ``table`` holds the fields' tables in turn (2.1)."""
    tables = jnp.split(table, np.cumsum(vocab_sizes)[:-1])
    return jnp.concatenate([T[codes[:, f]] for f, T in enumerate(tables)], axis=1)


def dense(params: Params, x: jax.Array) -> jax.Array:
    """Affine map of all rows (2.2)."""
    return x @ params["W"] + params["b"]


def dense_by_scenario(params: Params, x: jax.Array, scenario: jax.Array) -> jax.Array:
    """Affine map of which every row has its scenario's own (2.7)."""
    W, b = params["W"][scenario], params["b"][scenario]
    return jax.vmap(lambda x, W, b: x @ W + b)(x, W, b)


def mlp(params: Params, x: jax.Array, tap: Tap, name: str, activation: str = "relu") -> jax.Array:
    """Affine maps with an activation between them and none after the last (2.2)."""
    n_layers = len(params)
    for i in range(1, n_layers):
        a = tap(f"{name}.A_{i}", dense(params[f"layer_{i}"], x))
        x = tap(f"{name}.H_{i}", ACTIVATIONS[activation](a))
    return tap(f"{name}.output", dense(params[f"layer_{n_layers}"], x))


def cross_entropy(logit: jax.Array, label: jax.Array) -> jax.Array:
    """Mean over the batch (2.5)."""
    log_likelihood = label * jax.nn.log_sigmoid(logit) + (1 - label) * jax.nn.log_sigmoid(-logit)
    return -log_likelihood.mean()


def objective(
    outputs: Params, label: jax.Array, weights: Mapping[str, float], tap: Tap
) -> jax.Array:
    """Cross-entropy and the auxiliary terms, each with its weight (3.3)."""
    ce = tap("ce", cross_entropy(outputs["logit"], label))
    return tap("loss", ce + sum(weight * outputs[term] for term, weight in weights.items()))
