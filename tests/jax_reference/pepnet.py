"""PEPNet in JAX, from derivations 7.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense, dense_by_scenario, lookup

Affine = Callable[[Params, jax.Array], jax.Array]


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,)."""
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    O = epnet(params["epnet"], X, options, tap)  # noqa: E741
    E_prior = tap("E_prior", prior(X, options))
    sg_O = tap("sg_O", jax.lax.stop_gradient(O))
    U = tap("U", jnp.concatenate([E_prior, sg_O], axis=1))

    def routed(layer: Params, x: jax.Array) -> jax.Array:
        return dense_by_scenario(layer, x, inputs["scenario"])

    affine = routed if options.towers == "per_scenario" else dense
    return {"logit": tap("logit", ppnet(params["ppnet"], O, U, affine, options, tap)[:, 0])}


def epnet(params: Params, X: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """Scale embeddings by a gate that reads the domain."""
    d_aw = options.n_aware * options.dim_embedding
    start = d_aw if options.ep_input == "agnostic" else 0
    E_dom, E = tap("E_dom", X[:, :d_aw]), tap("E", X[:, start:])
    sg_E = tap("sg_E", jax.lax.stop_gradient(E))
    U_dom = tap("U_dom", jnp.concatenate([E_dom, sg_E], axis=1))
    delta = gate(params, U_dom, dense, options, tap, "epnet")
    if not start:
        return tap("O", delta * E)
    E_gated, E_plain = tap("E_gated", delta * E), tap("E_plain", X[:, :start])
    return tap("O", jnp.concatenate([E_plain, E_gated], axis=1))


def prior(X: jax.Array, options: Any) -> jax.Array:
    """Embeddings of the prior fields; those of all agnostic fields if none are named."""
    fields = list(options.prior_fields) or list(range(options.n_aware, len(options.vocab_sizes)))
    if options.prior_scenario:
        fields += [field for field in range(options.n_aware) if field not in fields]
    by_field = X.reshape(len(X), len(options.vocab_sizes), -1)
    return by_field[:, jnp.array(fields)].reshape(len(X), -1)


def gate(
    params: Params, U: jax.Array, affine: Affine, options: Any, tap: Tap, name: str
) -> jax.Array:
    """Two layers and gamma sigmoid; the second is a tower's own where there are several."""
    A_1 = tap(f"{name}.A_1", dense(params["layer_1"], U))
    R = tap(f"{name}.R", jax.nn.relu(A_1))
    A_2 = tap(f"{name}.A_2", affine(params["layer_2"], R))
    return tap(f"{name}.delta", options.gamma * jax.nn.sigmoid(A_2))


def ppnet(
    params: Params,
    O: jax.Array,  # noqa: E741
    U: jax.Array,
    affine: Affine,
    options: Any,
    tap: Tap,
) -> jax.Array:
    """Tower (B, 1) whose hidden vectors are scaled by gates; all gates read U."""
    n_hidden, H = len(options.hidden), O
    for i in range(n_hidden + 1):
        if i > 0 or options.gate_at == "layer_input":
            delta = gate(params[f"gate_{i}"], U, affine, options, tap, f"gate_{i}")
            H = tap(f"H_{i + 1}", delta * H)
        A = affine(params[f"layer_{i + 1}"], H)
        if i < n_hidden:
            A = tap(f"A_{i + 1}", A)
            H = tap(f"R_{i + 1}", ACTIVATIONS[options.activation](A))
    return tap("z", A)
