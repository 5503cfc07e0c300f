"""AdaSparse in JAX, from derivations 8.1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense, lookup


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,) and, in training, "sparsity" and the count of steps."""
    d_aw = options.n_aware * options.dim_embedding
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    E_aw = tap("E_aw", X[:, :d_aw])
    step = jax.lax.stop_gradient(params["schedule"]["step"])
    alpha = tap("alpha", scheduled(step, options.alpha_start, options.alpha_end, options))
    H, factors = X, {}
    names = [*(f"layer_{i + 1}" for i in range(len(options.hidden))), "head"]
    for i, name in enumerate(names, start=1):
        kept = H
        if name != names[0] or options.prune_input != "none":
            U = tap(f"{name}.U", jnp.concatenate([E_aw, H], axis=1))
            pruner = params[name]["pruner"]
            factors[name] = prune(pruner, U, alpha, options, tap, name, training=training)
            kept = multiply_last(H, factors[name], tap, name)
        H = tap(f"{name}.A", dense(params[name], kept))
        if name != "head":
            H = tap(f"H_{i + 1}", ACTIVATIONS[options.activation](H))
    outputs = {"logit": tap("logit", H[:, 0])}
    if not training:
        return outputs
    outputs["next.schedule.step"] = step + 1
    if options.sparsity_weight:
        outputs["sparsity"] = tap("sparsity", sparsity(factors, step, options, tap))
    return outputs


def scheduled(step: jax.Array, start: float, end: float, options: Any) -> jax.Array:
    """A constant on its way from start to end."""
    tau = jnp.minimum(step / options.schedule_steps, 1.0)
    return (1 - tau) * start + tau * end


def prune(
    params: Params,
    U: jax.Array,
    alpha: jax.Array,
    options: Any,
    tap: Tap,
    name: str,
    *,
    training: bool,
) -> jax.Array:
    """Factors pi (B, N) of the neurons that a layer reads."""
    a = tap(f"{name}.v_in", dense(params, U))
    if options.prune != "scaling":
        a = tap(f"{name}.alpha_v_in", alpha * a)
    gain = 1.0 if options.prune == "binarization" else options.beta
    v = tap(f"{name}.v", gain * jax.nn.sigmoid(a))
    is_soft = options.prune == "binarization" and options.binarize_grad == "soft" and training
    if options.prune == "scaling" or is_soft:
        return tap(f"{name}.pi", v)
    kept = tap(f"{name}.kept", v > options.epsilon)
    if options.prune == "binarization":
        hard, rule = kept.astype(v.dtype), options.binarize_grad
    else:
        hard, rule = jnp.where(kept, v, 0.0), options.fusion_grad
    if rule != "ste":
        return tap(f"{name}.pi", hard)
    hard = tap(f"{name}.hard", hard)
    gap = tap(f"{name}.gap", hard - v)
    return tap(f"{name}.pi", v + tap(f"{name}.sg_gap", jax.lax.stop_gradient(gap)))


def multiply_last(H: jax.Array, pi: jax.Array, tap: Tap, name: str) -> jax.Array:
    """Multiply the last columns of H, as many as there are factors."""
    n_plain = H.shape[1] - pi.shape[1]
    if not n_plain:
        return tap(f"{name}.H_pruned", H * pi)
    plain, last = tap(f"{name}.H_plain", H[:, :n_plain]), tap(f"{name}.H_last", H[:, n_plain:])
    pruned = tap(f"{name}.H_last_pruned", last * pi)
    return tap(f"{name}.H_pruned", jnp.concatenate([plain, pruned], axis=1))


def sparsity(factors: Params, step: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """R_s: mean over the layers of how far their pruned share is from its interval."""
    lambda_hat = scheduled(step, options.lambda_start, options.lambda_end, options)
    lambda_hat = tap("lambda_hat", lambda_hat)
    middle = (options.r_min + options.r_max) / 2
    penalties = []
    for name, pi in factors.items():
        share = pi.mean(axis=1) if options.ratio == "per_sample" else pi.mean()[None]
        r = tap(f"{name}.r", 1 - share)
        distance = tap(f"{name}.distance", jnp.abs(r - middle))
        outside = tap(f"{name}.outside", (r < options.r_min) | (r > options.r_max))
        weight = tap(f"{name}.lambda", lambda_hat * distance * outside)
        if options.lambda_detach:
            weight = tap(f"{name}.sg_lambda", jax.lax.stop_gradient(weight))
        penalties.append(tap(f"{name}.penalty", (weight * distance).mean()))
    return jnp.stack(penalties).mean()
