"""DNN in JAX, from derivations 4."""

from __future__ import annotations

from typing import Any

import jax
from jax_reference.blocks import Params, Tap, lookup, mlp


def forward(
    params: Params, inputs: Params, options: Any, tap: Tap, *, training: bool
) -> dict[str, jax.Array]:
    """Return "logit" (B,)."""
    X = tap("X", lookup(params["embedding"]["table"], inputs["codes"], options.vocab_sizes))
    z = mlp(params["mlp"], X, tap, "mlp", options.activation)
    return {"logit": tap("logit", z[:, 0])}
