"""Negative pairs of the regulariser: whose context e_aw meets whose core."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_batch_last, scatter_add_rows

NEGATIVES = ("permutation", "derangement", "other_scenario")


class ShuffleCache(NamedTuple):
    """Partners (B,) and the number of rows that they are taken from."""

    partner: Array
    n_rows: int


def shuffle(e: Array, partner: Array) -> tuple[Array, ShuffleCache]:
    """Contexts of the negative pairs: y_b = e_partner(b) (derivations 3.3a).

    Backward: de_i = sum of dy_b over all b with partner(b) = i.  That is a scatter by ``partner``;
    a gather by it would be the adjoint of the inverse permutation, the same only where all cycles
    have length 1 or 2.

    Shapes
    ------
    e : (B, d_e)
    partner : (B,)
    """
    get_xp(e=e, partner=partner)
    cache = ShuffleCache(partner, e.shape[0])
    if is_batch_last(e) and kernels.fuses(e, partner):
        return kernels.take_samples(e.T, partner).T, cache
    return e[partner], cache


def shuffle_backward(dy: Array, cache: ShuffleCache) -> Array:
    """Return ``de`` (derivations 3.4r)."""
    if is_batch_last(dy) and kernels.fuses(dy, cache.partner):
        return kernels.give_samples(dy.T, cache.partner).T
    de = get_xp(dy=dy).zeros((cache.n_rows, dy.shape[1]), dtype=dy.dtype)
    scatter_add_rows(de, cache.partner, dy)
    return de


def draw_partner(rng: np.random.Generator, scenario: np.ndarray, kind: str) -> np.ndarray:
    """Return pi (B,): the negative pair of row b is (e_aw[pi[b]], Q[b]).

    - "permutation": uniform over all permutations, fixed points and own scenario included: the
      negatives are draws from the product of the batch's own marginals.
    - "derangement": uniform over permutations without a fixed point, so that no matching pair (on
      average one per batch) is among the negatives.
    - "other_scenario": independent uniform draws among rows of another scenario.  No permutation,
      and not the product of the marginals: the loss can fall below the floor of derivations 3.3e.

    Raises
    ------
    ValueError
        If the batch is too small: one row for a derangement, one scenario for "other_scenario".
    """
    if kind == "permutation":
        return rng.permutation(len(scenario))
    if kind == "derangement":
        return _draw_derangement(rng, len(scenario))
    return _draw_other_scenario(rng, scenario)


def _draw_derangement(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    if n_rows < 2:
        raise ValueError(
            "negatives='derangement' needs at least 2 rows in a batch; got 1. "
            "Use a larger batch or negatives='permutation'."
        )
    identity = np.arange(n_rows)
    while True:  # a permutation has no fixed point with probability 1/e, so 2.7 draws on average
        partner = rng.permutation(n_rows)
        if not (partner == identity).any():
            return partner


def _draw_other_scenario(rng: np.random.Generator, scenario: np.ndarray) -> np.ndarray:
    n_rows = len(scenario)
    order = np.argsort(scenario, kind="stable")
    sorted_scenario = scenario[order]
    own_start = np.searchsorted(sorted_scenario, scenario, side="left")
    own_end = np.searchsorted(sorted_scenario, scenario, side="right")
    n_others = n_rows - (own_end - own_start)
    if not n_others.all():
        raise ValueError(
            f"negatives='other_scenario' needs at least 2 scenarios in a batch; got {n_rows} rows "
            f"of scenario {scenario[0]}. Use a larger batch or negatives='permutation'."
        )
    # Number the rows of other scenarios 0 ... n_others - 1 by skipping the own block.
    position = rng.integers(0, n_others)
    position = np.where(position < own_start, position, position + (own_end - own_start))
    return order[position]
