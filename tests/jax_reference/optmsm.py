"""OptMSM (the reconstruction) in JAX, from derivations 10.1."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense, lookup


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,) and, in training, "orthogonality"."""
    d_aw = options.n_aware * options.dim_embedding
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    E_sp, E_sh = tap("E_sp", X[:, :d_aw]), tap("E_sh", X[:, d_aw:])
    A_c = tap("A_c", dense(params["encoder"], E_sp))
    c = tap("c", ACTIVATIONS[options.activation](A_c))
    shared = params["shared"]
    embed = jax.vmap(lambda A, a: E_sh @ A + a, out_axes=1)
    G = tap("G", embed(shared["A"], shared["a"]))
    w = tap("w", weights(shared, c, inputs["scenario"], options, tap))
    m = tap("m", jnp.einsum("bk,bkq->bq", w, G))
    rho = tap("rho", jnp.concatenate([c, m], axis=1))
    theta = hypernetwork(params, E_sp, inputs["scenario"], options, tap)
    z = tower(theta, rho, options, tap)
    outputs = {"logit": tap("logit", z[:, 0])}
    if training and options.orth_weight:
        outputs["orthogonality"] = tap("orthogonality", orthogonality(G, options, tap))
    return outputs


def weights(params: Params, c: jax.Array, scenario: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """Weights (B, D) of the shared embeddings."""
    if options.combine == "select":
        return jax.nn.one_hot(scenario, options.n_scenarios, dtype=c.dtype)
    return jax.nn.softmax(tap("alpha", dense(params["attention"], c)))


def orthogonality(G: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """Mean square of the cosine, or of the product, of two different embeddings of a row."""
    if options.orth_on == "cosine":
        nu = tap("nu", jnp.sqrt((G**2).sum(axis=-1, keepdims=True) + options.eps))
        G = tap("G_hat", G / nu)
    n_rows, n, _ = G.shape
    O = tap("O", (G @ G.mT) * (1 - jnp.eye(n)))  # noqa: E741
    return (O**2).sum() / (n_rows * max(n * (n - 1), 1))


def hypernetwork(
    params: Params, E_sp: jax.Array, scenario: jax.Array, options: Any, tap: Tap
) -> jax.Array:
    """All weights of the tower of each row, (B, n_theta)."""
    hyper = params["hypernetwork"]
    first, second = hyper["omega_0"]["layer_1"], hyper["omega_0"]["layer_2"]
    leaves = (first["W"], first["b"], second["W"], second["b"])
    omega_0 = tap("omega_0", jnp.concatenate([leaf.ravel() for leaf in leaves]))
    by_row = options.hyper_input == "aware"
    u = E_sp if by_row else params["code"]["Z"]
    if options.hyper == "low_rank":
        u, Omega = tap("u", u @ hyper["Omega_in"]), hyper["Omega_out"]
    else:
        u, Omega = tap("u", u), hyper["Omega"]
    theta = tap("theta", u @ Omega + omega_0)
    return tap("theta_of_rows", theta if by_row else theta[scenario])


def tower(theta: jax.Array, rho: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """Two layers (B, 1) whose weights are cut out of each row's theta."""
    h, start, parts = options.tower_hidden, 0, {}
    shapes = {"W_1": (rho.shape[1], h), "b_1": (h,), "W_2": (h, 1), "b_2": (1,)}
    for name, shape in shapes.items():
        part = theta[:, start : start + prod(shape)].reshape(-1, *shape)
        parts[name] = tap(f"tower.{name}", part)
        start += prod(shape)
    row_affine = jax.vmap(lambda x, W, b: x @ W + b)
    A = tap("tower.A", row_affine(rho, parts["W_1"], parts["b_1"]))
    H = tap("tower.H", ACTIVATIONS[options.activation](A))
    return tap("tower.output", row_affine(H, parts["W_2"], parts["b_2"]))
