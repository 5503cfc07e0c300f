"""Every model at the size at which it is trained, to check one direction per parameter array.

8 fields of 1000 codes, embeddings 16 wide, hidden layers of 128, 64 and 32 units, 10 scenarios in
unequal numbers; MI-DPG with every weighting variant and its cores an eighth or a half of W.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from midpg_np.batch import Batch
from midpg_np.checks.case import Case
from midpg_np.checks.model import model_case, perturbed_params
from midpg_np.layers.dwm import VARIANTS
from midpg_np.models import MODELS, make_model

N_FIELDS, N_SCENARIOS, VOCAB_SIZE, N_ROWS = 8, 10, 1000, 64

# ``builder(rng, n_rows=..., vocab_size=...)``
FullSizeBuilder = Callable[..., Case]

# Options by title, where a model has choices that matter here or needs some.
_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "pepnet": {"pepnet": {"prior_fields": (2, 3)}},
    "midpg": {
        f"midpg {variant} 1/{divisor}": {
            "variant": variant,
            "row_divisor": divisor,
            "col_divisor": divisor,
        }
        for variant in VARIANTS
        if variant != "non"
        for divisor in (8, 2)
    }
    | {"midpg non": {"variant": "non"}},  # its core is as large as W
}


def full_size_batch(
    rng: np.random.Generator, n_rows: int = N_ROWS, vocab_size: int = VOCAB_SIZE
) -> Batch:
    """Draw rows of all scenarios, the first the most frequent."""
    codes = rng.integers(0, vocab_size, size=(n_rows, N_FIELDS))
    scenario = np.minimum(rng.geometric(0.3, size=n_rows) - 1, N_SCENARIOS - 1)
    return Batch(codes, scenario, (rng.random(n_rows) < 0.2).astype(float))


def _case(
    name: str,
    options: dict[str, Any],
    title: str,
    rng: np.random.Generator,
    n_rows: int = N_ROWS,
    vocab_size: int = VOCAB_SIZE,
) -> Case:
    common = {"vocab_sizes": (vocab_size,) * N_FIELDS, "n_aware": 2, "dim_embedding": 16}
    model = make_model(name, n_scenarios=N_SCENARIOS, **(common | options))
    batch = full_size_batch(rng, n_rows, vocab_size)
    params = perturbed_params(model, rng, scale=0.1)
    return model_case(model, params, batch, model.draw(rng, batch), title)


FULL_SIZE_CASES: dict[str, FullSizeBuilder] = {
    title: partial(_case, name, options, title)
    for name in MODELS
    for title, options in _OPTIONS.get(name, {name: {}}).items()
}
