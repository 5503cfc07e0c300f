"""STAR in JAX, from derivations 6.1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense_by_scenario, lookup, mlp


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,) and, in training, the moved statistics."""
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    scenario, moved = inputs["scenario"], {}
    V = X
    if options.pn == "partitioned":
        V, moved = normalise(params["norm"], X, scenario, options, tap, "norm", training=training)
    z = star(params["star"], V, scenario, options, tap)
    if options.aux:
        part = params["aux"]
        if options.aux_norm:
            at = "aux.norm"
            X, also = normalise(part["norm"], X, scenario, options, tap, at, training=training)
            moved |= also
        e_dom = tap("aux.e_dom", part["domain"]["table"][scenario])
        U = tap("aux.U", jnp.concatenate([e_dom, X], axis=1))
        z = tap("z", z + mlp(part["mlp"], U, tap, "aux", options.activation))
    return {"logit": tap("logit", z[:, 0])} | moved


def normalise(
    params: Params,
    X: jax.Array,
    scenario: jax.Array,
    options: Any,
    tap: Tap,
    at: str,
    *,
    training: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Normalise X scenario by scenario; return V, and the moving statistics after the step."""
    mean, variance = (jax.lax.stop_gradient(params[key]) for key in ("mean", "variance"))
    n_scenarios = len(mean)
    n = jnp.bincount(scenario, length=n_scenarios)[:, None]

    def statistic(x: jax.Array, moving: jax.Array) -> jax.Array:
        """Mean over the rows of each scenario that has two or more; of the others the moving."""
        if not training:
            return moving
        total = jax.ops.segment_sum(x, scenario, n_scenarios)
        return jnp.where(n >= 2, total / jnp.maximum(n, 1), moving)

    mu = tap(f"{at}.mu", statistic(X, mean))
    deviation = tap(f"{at}.deviation", X - mu[scenario])
    nu = tap(f"{at}.nu", statistic(deviation**2, variance))
    inverse_std = tap(f"{at}.inverse_std", jax.lax.rsqrt(nu + options.eps))
    X_hat = tap(f"{at}.X_hat", deviation * inverse_std[scenario])
    scale = tap(f"{at}.scale", params["gamma"] * params["scenario_gamma"])
    shift = tap(f"{at}.shift", params["beta"] + params["scenario_beta"])
    scaled = tap(f"{at}.scaled_X_hat", X_hat * scale[scenario])
    V = tap(f"{at}.V", scaled + shift[scenario])
    if not training:
        return V, {}

    def move(moving: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(n >= 2, options.momentum * moving + (1 - options.momentum) * now, moving)

    moved = {"mean": move(mean, mu), "variance": move(variance, nu)}
    return V, {f"next.{at}.{key}": jax.lax.stop_gradient(x) for key, x in moved.items()}


def star(params: Params, H: jax.Array, scenario: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """Shared weights times a scenario's own, layer by layer; (B, 1)."""
    n_layers = len(params)
    for i in range(1, n_layers + 1):
        name = f"layer_{i}"
        shared, own = params[name]["shared"], params[name]["scenario"]
        layer = {
            "W": tap(f"star.{name}.W_star", shared["W"] * own["W"]),
            "b": tap(f"star.{name}.b_star", shared["b"] + own["b"]),
        }
        A = dense_by_scenario(layer, H, scenario)
        if i == n_layers:
            return tap("z_main", A)
        H = tap(f"star.H_{i}", ACTIVATIONS[options.activation](tap(f"star.A_{i}", A)))
    raise ValueError("the star has no layer")
