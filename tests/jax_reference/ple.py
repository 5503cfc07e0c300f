"""PLE in JAX, from derivations 5.1: all rows pass all experts and gates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_reference.blocks import ACTIVATIONS, Params, Tap, dense, dense_by_scenario, lookup


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,)."""
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    scenario, n_levels = inputs["scenario"], len(options.expert_layers)
    streams, G_s = [X] * options.n_scenarios, X
    for j in range(1, n_levels + 1):
        level = Level(params[f"level_{j}"], f"level_{j}", options, tap)
        own, shared = level.experts(streams, G_s)
        if options.n_shared and j < n_levels:
            G_s = level.shared_stream(G_s, own, shared, scenario)
        streams = [level.stream(k, G, own[k] + shared) for k, G in enumerate(streams)]
    rows = jnp.arange(len(scenario))
    H = tap("G_own", jnp.stack(streams)[scenario, rows])
    return {"logit": tap("logit", tower(params["tower"], H, scenario, options, tap)[:, 0])}


class Level:
    """One level: experts, and the gates that mix them."""

    def __init__(self, params: Params, name: str, options: Any, tap: Tap) -> None:
        self.params, self.name, self.options, self.tap = params, name, options, tap

    def experts(
        self, streams: list[jax.Array], G_s: jax.Array
    ) -> tuple[list[list[jax.Array]], list[jax.Array]]:
        """Outputs (B, q) of each scenario's experts, and of the shared ones."""
        own = [
            [self.expert("specific", (k, e), G, f"{k}_{e}") for e in range(self.options.n_specific)]
            for k, G in enumerate(streams)
        ]
        n_shared = self.options.n_shared
        return own, [self.expert("shared", (e,), G_s, f"s_{e}") for e in range(n_shared)]

    def expert(self, kind: str, place: tuple[int, ...], H: jax.Array, label: str) -> jax.Array:
        """Run an MLP with an activation after its last layer too."""
        at, layers = f"{self.name}.expert_{label}", self.params[kind]
        for i in range(1, len(layers) + 1):
            layer = {leaf: x[place] for leaf, x in layers[f"layer_{i}"].items()}
            A = self.tap(f"{at}.A_{i}", dense(layer, H))
            output = "E" if i == len(layers) else f"H_{i}"
            H = self.tap(f"{at}.{output}", ACTIVATIONS[self.options.activation](A))
        return H

    def stream(self, k: int, G: jax.Array, experts: list[jax.Array]) -> jax.Array:
        """What the gate of scenario k lets through."""
        S = self.tap(f"{self.name}.S_{k}", jnp.stack(experts, axis=1))
        gate = {leaf: x[k] for leaf, x in self.params["specific_gate"].items()}
        return self.mix(S, self.logits(gate, G, str(k)), str(k))

    def shared_stream(
        self, G_s: jax.Array, own: list[list[jax.Array]], shared: list[jax.Array], scenario: Any
    ) -> jax.Array:
        """What the shared gate lets through: of all experts, or of those that are a row's own."""
        experts = [expert for of_k in own for expert in of_k] + shared
        S = self.tap(f"{self.name}.S", jnp.stack(experts, axis=1))
        parts = self.params["shared_gate"]
        gate = {}
        for leaf, of_scenarios in parts["specific"].items():
            kernel = jnp.concatenate([*of_scenarios, parts["shared"][leaf]], axis=-1)
            gate[leaf] = self.tap(f"{self.name}.gate_s.{leaf}", kernel)
        alpha = self.logits(gate, G_s, "s")
        if self.options.shared_gate_scope == "all":
            return self.mix(S, alpha, "s")
        owner = np.repeat(np.arange(len(own)), self.options.n_specific)
        is_own = owner == scenario[:, None]
        counts = jnp.pad(is_own, ((0, 0), (0, len(shared))), constant_values=True)
        return self.mix(S, alpha, "s", counts)

    def logits(self, gate: Params, G: jax.Array, label: str) -> jax.Array:
        """Affine map of a gate, or a linear one."""
        alpha = dense(gate, G) if self.options.gate_bias else G @ gate["W"]
        return self.tap(f"{self.name}.gate_{label}.alpha", alpha)

    def mix(self, S: jax.Array, alpha: jax.Array, label: str, counts: Any = None) -> jax.Array:
        """Sum of experts with the softmax of alpha as weights."""
        w = self.tap(f"{self.name}.gate_{label}.w", jax.nn.softmax(alpha, where=counts))
        return self.tap(f"{self.name}.G_{label}", jnp.einsum("be,beq->bq", w, S))


def tower(params: Params, H: jax.Array, scenario: jax.Array, options: Any, tap: Tap) -> jax.Array:
    """MLP (B, 1) of each row's scenario."""
    n_layers = len(params)
    for i in range(1, n_layers):
        A = tap(f"tower.A_{i}", dense_by_scenario(params[f"layer_{i}"], H, scenario))
        H = tap(f"tower.H_{i}", ACTIVATIONS[options.activation](A))
    return tap("tower.output", dense_by_scenario(params[f"layer_{n_layers}"], H, scenario))
