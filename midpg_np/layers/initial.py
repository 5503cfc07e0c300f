"""Initial values, drawn on the host in float64 (derivations 2.6)."""

from __future__ import annotations

import math

import numpy as np

from midpg_np.tree import Tree

EMBEDDING_STD = 0.01  # of freshly drawn embeddings


def glorot_uniform(rng: np.random.Generator, dim_in: int, dim_out: int) -> np.ndarray:
    """Draw (dim_in, dim_out) from U(-a, a) with a = sqrt(6 / (dim_in + dim_out)).

    See derivations 2.6a.
    """
    bound = np.sqrt(6.0 / (dim_in + dim_out))
    return rng.uniform(-bound, bound, size=(dim_in, dim_out))


def init_affine(rng: np.random.Generator, dim_in: int, dim_out: int) -> Tree:
    """Glorot kernel ``W`` (dim_in, dim_out) and zero bias ``b`` (dim_out,)."""
    return {"W": glorot_uniform(rng, dim_in, dim_out), "b": np.zeros(dim_out)}


def init_scenario_affine(
    rng: np.random.Generator, n_scenarios: int, dim_in: int, dim_out: int
) -> Tree:
    """Draw W (D, I, O), Glorot for each scenario, and zero b (D, O)."""
    W = np.stack([glorot_uniform(rng, dim_in, dim_out) for _ in range(n_scenarios)])
    return {"W": W, "b": np.zeros((n_scenarios, dim_out))}


def init_stacked_affine(
    rng: np.random.Generator, stack: tuple[int, ...], dim_in: int, dim_out: int
) -> Tree:
    """Draw W (*stack, I, O), Glorot for each map of the stack by itself, and zero b (*stack, O)."""
    W = np.stack([glorot_uniform(rng, dim_in, dim_out) for _ in range(math.prod(stack))])
    return {"W": W.reshape(*stack, dim_in, dim_out), "b": np.zeros((*stack, dim_out))}
