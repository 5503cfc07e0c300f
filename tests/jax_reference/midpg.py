"""MI-DPG in JAX, from derivations 3.2 and 3.3: DPG and a regulariser."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax_reference.blocks import Params, Tap, mlp
from jax_reference.dpg import Generated, generate, network, psi


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,) and, in training, "mi"."""
    z, E_aw, generated = network(params, inputs, options, tap)
    outputs = {"logit": tap("logit", z[:, 0])}
    if not training:
        return outputs
    mi = mutual_information(params, E_aw, generated, inputs["partner"], options, tap)
    return outputs | {"mi": tap("mi", mi)}


def mutual_information(
    params: Params,
    E_aw: jax.Array,
    generated: dict[str, Generated],
    partner: jax.Array,
    options: Any,
    tap: Tap,
) -> jax.Array:
    """Matching and shuffled pairs, scored by every discriminator (6), (7)."""
    e = E_aw
    if options.mi_detach_context or options.mi_grad_to != "all":
        e = tap("mi.sg_E_aw", jax.lax.stop_gradient(E_aw))
    e_neg = tap("mi.E_neg", e[partner])
    names = list(generated)
    groups = {"all": names} if options.disc_scope == "concat" else {name: [name] for name in names}
    losses = []
    for group, members in groups.items():
        signals = [signal(params[name], generated[name], options, tap, name) for name in members]
        q = tap(f"mi.{group}.q", jnp.concatenate(signals, axis=1))
        discriminator = params["discriminators"][group]
        t_pos = score(discriminator, e, q, options, tap, group, "pos")
        t_neg = score(discriminator, e_neg, q, options, tap, group, "neg")
        losses.append(tap(f"mi.{group}.loss", jensen_shannon(t_pos, t_neg)))
    total = jnp.stack(losses)
    return total.mean() if options.mi_reduce == "mean" else total.sum()


def signal(params: Params, made: Generated, options: Any, tap: Tap, name: str) -> jax.Array:
    """What a discriminator reads of one layer, (B, width) (3.8, rows 17 and 18)."""
    at = f"mi.{name}"
    if options.mi_grad_to == "disc+gen":  # the generator learns, what it reads does not
        U = tap(f"{at}.sg_U", jax.lax.stop_gradient(made.U))
        made = generate(params, U, options, tap, at)
    if options.disc_input == "factors":
        q = made.outputs
    elif options.disc_input == "full":
        S = tap(f"{at}.S", psi(made.Q, params["W"].shape, options.repeat_mode))
        q = S.reshape(len(S), -1)
    else:
        q = made.Q.reshape(len(made.Q), -1)
    q = tap(f"{at}.signal", q)
    if options.mi_grad_to == "disc":
        q = tap(f"{at}.sg_signal", jax.lax.stop_gradient(q))
    return q


def score(
    params: Params, e: jax.Array, q: jax.Array, options: Any, tap: Tap, group: str, kind: str
) -> jax.Array:
    """Logits (B,) of the pairs (e_b, q_b)."""
    at = f"mi.{group}.{kind}"
    if options.disc == "bilinear":
        out = jnp.einsum("bi,ij,bj->b", e, params["M"], q)[:, None] + params["b"]
        out = tap(f"{at}.output", out)
    else:
        out = mlp(params, tap(f"{at}.pair", jnp.concatenate([e, q], axis=1)), tap, at)
    return tap(f"mi.{group}.t_{kind}", out[:, 0])


def jensen_shannon(t_pos: jax.Array, t_neg: jax.Array) -> jax.Array:
    """-mean[log T+ + log(1 - T-)] with T = sigmoid(t) (7)."""
    return -(jax.nn.log_sigmoid(t_pos) + jax.nn.log_sigmoid(-t_neg)).mean()
