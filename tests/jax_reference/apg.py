"""APG in JAX, from derivations 9.1: a core per row between two shared factors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense, lookup, mlp


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,)."""
    d_aw = options.n_aware * options.dim_embedding
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    E_aw = None if options.condition == "self" else tap("E_aw", X[:, :d_aw])
    H = X
    for i in range(1, len(options.hidden) + 1):
        name = f"layer_{i}"
        parts = {"group": [E_aw], "self": [H], "mix": [E_aw, H]}[options.condition]
        z = tap(f"{name}.z", jnp.concatenate(parts, axis=1))
        A = tap(f"{name}.A", layer(params[name], H, z, options, tap, name))
        H = tap(f"H_{i + 1}", ACTIVATIONS[options.activation](A))
    z = tap("head.output", dense(params["head"], H))
    return {"logit": tap("logit", z[:, 0])}


def layer(
    params: Params, H: jax.Array, z: jax.Array, options: Any, tap: Tap, name: str
) -> jax.Array:
    """A = U S V H + b, where S and perhaps b are generated from z."""
    U, V = (factor(params, key, tap, name) for key in ("U", "V"))
    s = mlp(params["generator"], z, tap, f"{name}.generator")
    S = tap(f"{name}.S", s.reshape(-1, options.rank, options.rank))
    Q = tap(f"{name}.Q", H @ V.T)
    R = tap(f"{name}.R", jax.vmap(jnp.matmul)(S, Q))
    product = tap(f"{name}.product", R @ U.T)
    if not options.generate_bias:
        return product + params["b"]
    return product + mlp(params["bias_generator"], z, tap, f"{name}.bias_generator")


def factor(params: Params, key: str, tap: Tap, name: str) -> jax.Array:
    """U or V, multiplied out if it is over-parameterised."""
    if key in params:
        return params[key]
    return tap(f"{name}.{key}", params[f"{key}_left"] @ params[f"{key}_right"])
