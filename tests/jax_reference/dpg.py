"""DPG in JAX, from derivations 3.2: every weighting matrix is built."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense, lookup, mlp

GENERATORS = {
    "r": ("row_generator",),
    "c": ("column_generator",),
    "rc": ("row_generator", "column_generator"),
    "non": ("core_generator",),
}


class Generated(NamedTuple):
    """What the generators read, what they put out side by side, and the core (B, d_r, d_c)."""

    U: jax.Array
    outputs: jax.Array
    Q: jax.Array


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,)."""
    z, _, _ = network(params, inputs, options, tap)
    return {"logit": tap("logit", z[:, 0])}


def network(
    params: Params, inputs: Params, options: Any, tap: Tap
) -> tuple[jax.Array, jax.Array, dict[str, Generated]]:
    """Return the output (B, 1), E_aw, and what was generated for each layer."""
    d_aw = options.n_aware * options.dim_embedding
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    E_aw = tap("E_aw", X[:, :d_aw])
    H, generated = X, {}
    for i, name in enumerate(modulated_names(options), start=1):
        beside = H
        if options.dedup_first and name == "layer_1" and options.dwm_inputs == "both":
            beside = tap("E_ag", X[:, d_aw:])
        U = tap(f"{name}.U", generators_input(E_aw, beside, name, options, tap))
        generated[name] = generate(params[name], U, options, tap, name)
        S = tap(f"{name}.S", psi(generated[name].Q, params[name]["W"].shape, options.repeat_mode))
        H = tap(f"{name}.A", modulated(params[name], H, S, options, tap, name))
        if name != "head":
            H = tap(f"H_{i + 1}", ACTIVATIONS[options.activation](H))
    z = H if options.modulate_output else tap("z", dense(params["head"], H))
    return z, E_aw, generated


def modulated_names(options: Any) -> list[str]:
    """Names of the modulated layers, in order."""
    names = [f"layer_{i + 1}" for i in range(len(options.hidden))]
    return [*names, "head"] if options.modulate_output else names


def generators_input(
    E_aw: jax.Array, beside: jax.Array, name: str, options: Any, tap: Tap
) -> jax.Array:
    """U: the context, and beside it what the layer itself reads."""
    if options.dwm_inputs == "aw_only":
        return E_aw
    if options.dwm_detach_h:
        beside = tap(f"{name}.sg_H", jax.lax.stop_gradient(beside))
    return jnp.concatenate([E_aw, beside], axis=1)


def generate(params: Params, U: jax.Array, options: Any, tap: Tap, at: str) -> Generated:
    """Run the generators of a layer and make its core of what they put out (3)-(5)."""
    weighting = params["weighting"]
    outputs = {
        generator: mlp(weighting[generator], U, tap, f"{at}.{generator}")
        for generator in GENERATORS[options.variant]
    }
    side_by_side = jnp.concatenate(list(outputs.values()), axis=1)
    n_rows, (d_r, d_c) = len(U), core_shape(params["W"].shape, options)
    if options.variant == "non":
        P = tap(f"{at}.P", outputs["core_generator"].reshape(n_rows, d_r, d_c))
        Q = tap(f"{at}.Q", options.gain * jax.nn.sigmoid(P))
        return Generated(U, side_by_side, Q)
    R, C = weighting.get("R_share"), weighting.get("C_share")
    if R is None:
        R = tap(f"{at}.S_R", outputs["row_generator"].reshape(n_rows, d_r, -1))
    if C is None:
        C = tap(f"{at}.S_C", outputs["column_generator"].reshape(n_rows, -1, d_c))
    if options.sigmoid_on == "factors":
        sigma_R = tap(f"{at}.sigma_S_R", jax.nn.sigmoid(R))
        sigma_C = tap(f"{at}.sigma_S_C", jax.nn.sigmoid(C))
        P = tap(f"{at}.P", sigma_R @ sigma_C)
        Q = options.gain * P
    else:
        P = tap(f"{at}.P", R @ C)
        Q = options.gain * jax.nn.sigmoid(P)
    return Generated(U, side_by_side, tap(f"{at}.Q", Q))


def core_shape(w_shape: tuple[int, int], options: Any) -> tuple[int, int]:
    """d_r and d_c; an axis of width 1 is not divided."""
    if options.variant == "non":
        return w_shape
    divisors = (options.row_divisor, options.col_divisor)
    d_r, d_c = (1 if d == 1 else d // f for d, f in zip(w_shape, divisors, strict=True))
    return d_r, d_c


def psi(Q: jax.Array, w_shape: tuple[int, int], mode: str) -> jax.Array:
    """Copy the entries of a core until it has the shape of W."""
    f_r, f_c = w_shape[0] // Q.shape[1], w_shape[1] // Q.shape[2]
    if mode == "block":
        return jnp.repeat(jnp.repeat(Q, f_r, axis=1), f_c, axis=2)
    return jnp.tile(Q, (1, f_r, f_c))


def modulated(
    params: Params, H: jax.Array, S: jax.Array, options: Any, tap: Tap, name: str
) -> jax.Array:
    """Affine map with the weights S * W of each row (1)."""
    in_out = options.w_layout == "in_out"
    SW = tap(f"{name}.SW", S * params["W"])
    product = tap(f"{name}.product", jnp.einsum("bij,bi->bj" if in_out else "bji,bi->bj", SW, H))
    if not options.modulate_bias:
        return product + params["b"]
    S_mean = tap(f"{name}.S_mean", S.mean(axis=1 if in_out else 2))
    return product + tap(f"{name}.weighted_b", S_mean * params["b"])
