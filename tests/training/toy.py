"""A small data set with something to learn, and a small model for it."""

import numpy as np

from midpg_np.data.batches import Dataset
from midpg_np.models.dnn import DNN
from midpg_np.models.midpg import MIDPG

VOCAB = (4, 5, 6)


def toy_dataset(n_rows=600, seed=0, n_scenarios=3):
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, size, n_rows) for size in VOCAB], axis=1)
    scenario = rng.integers(0, n_scenarios, n_rows)
    effects = np.random.default_rng(99)
    logit = sum(effects.normal(0, 1.2, size)[codes[:, f]] for f, size in enumerate(VOCAB)) - 0.5
    label = (rng.random(n_rows) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return Dataset(
        codes=codes.astype(np.int64),
        scenario=scenario.astype(np.int64),
        label=label,
        vocab_sizes=VOCAB,
        n_aware=1,
        n_scenarios=n_scenarios,
        field_names=("place", "hour", "item"),
        scenario_names=tuple(f"shop {d}" for d in range(n_scenarios)),
    )


def toy_model(**options):
    return DNN(VOCAB, 1, 3, dim_embedding=4, hidden=(8, 4), **options)


def toy_midpg():
    """A model that draws random numbers at every step."""
    return MIDPG(VOCAB, 1, 3, dim_embedding=4, hidden=(8, 4), row_divisor=4, col_divisor=4)
