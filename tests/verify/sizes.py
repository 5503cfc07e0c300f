"""Small cases for the tests of ``verify``: every width distinct, every corner in the batch."""

from functools import cache

import numpy as np
import pytest
from small import small_model

from midpg_np.models import MODELS
from midpg_np.verify.case import make_case
from midpg_np.verify.diagnose import pairs
from midpg_np.verify.mistakes import MISTAKES, mistakes_of

ENTRIES = [(name, kind) for name, mistake in MISTAKES.items() for kind in mistake.models]
IDS = [f"{kind}: {name}" for name, kind in ENTRIES]

# Every eighth of them, where another test goes through all.
SAMPLED = [
    pytest.param(*entry, id=label) for entry, label in list(zip(ENTRIES, IDS, strict=True))[::8]
]


@cache
def small_case(kind, seed=0, n_rows=None, **options):
    """Draw a case of a small model."""
    model = small_model(kind, **options)
    return make_case(model, seed, n_rows or 12)


def case_of(name, kind, seed=0):
    """Draw a case in which a mistake shows."""
    mistake = MISTAKES[name]
    return small_case(kind, seed, mistake.n_rows, **mistake.options)


def random_pairs(n, seed):
    """Draw pairs of mistakes that show on one case, over all models."""
    rng = np.random.default_rng(seed)
    found = [
        (kind, first, second)
        for kind in MODELS
        for first, second in pairs(mistakes_of(kind), case_of("labels exchanged", kind).calculation)
        if dict(first.options) == dict(second.options)
        and first.n_rows == second.n_rows
        and not (first.update and second.update)
    ]
    return [found[i] for i in rng.choice(len(found), n, replace=False)]
