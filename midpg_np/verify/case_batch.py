"""The batch of a case: every corner that hides mistakes elsewhere is in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.batch import Batch


def case_batch(model: Any, rng: np.random.Generator, n_rows: int) -> tuple[Batch, dict[str, Any]]:
    """Draw a batch and the random numbers of a step.

    Of three or more scenarios one has no row, one has one row and the others unequal numbers; rows
    are in no order; some ids repeat.
    """
    scenario = rng.permutation(scenarios(model.n_scenarios, n_rows))
    vocab = np.asarray(model.vocab_sizes)
    codes = rng.integers(0, vocab, size=(n_rows, len(vocab)))
    if vocab[0] > 1:  # the first field tells the scenario, as in data; 0 is "unknown"
        codes[:, 0] = 1 + scenario % (vocab[0] - 1)
    codes[1:2, -1] = codes[0, -1]
    label = (rng.random(n_rows) < 0.5).astype(np.float64)
    label[:2] = (1.0, 0.0)[: len(label)]
    batch = Batch(codes, scenario, label)
    draws = dict(model.draw(rng, batch))
    if getattr(model, "negatives", "") == "permutation":
        draws["partner"] = permutation(rng, n_rows)
    return batch, draws


def scenarios(n_scenarios: int, n_rows: int) -> np.ndarray:
    """Return ids (B,): the last scenario has one row, the last but one none, the rest 2, 3, ..."""
    if n_scenarios < 2 or n_rows < 2:
        return np.zeros(n_rows, dtype=np.int64)
    full = np.arange(max(n_scenarios - 2, 1))
    pattern = np.repeat(full, np.arange(2, 2 + len(full)))
    return np.append(np.resize(pattern, n_rows - 1), n_scenarios - 1)


def permutation(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """Return a permutation (B,) with a 3-cycle and a fixed point, as far as there are rows."""
    partner = np.arange(n_rows)
    partner[:3] = np.roll(partner[:3], -1)
    partner[4:] = np.roll(rng.permutation(partner[4:]), 1)
    return partner
