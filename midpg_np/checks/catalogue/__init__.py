"""Every op, loss and layer as a case: what ``midpg gradcheck`` and the tests run."""

from __future__ import annotations

import numpy as np

from midpg_np.checks.catalogue import (
    experts,
    gates,
    low_rank,
    operations,
    pruning,
    reconstruction,
    scenarios,
    star,
    weighting,
)
from midpg_np.checks.catalogue.builders import Builder, Sizes

__all__ = ["CASES", "Builder", "Sizes"]

_BUILDERS: list[Builder] = [
    *operations.BUILDERS,
    *scenarios.BUILDERS,
    *experts.BUILDERS,
    *star.BUILDERS,
    *gates.BUILDERS,
    *pruning.BUILDERS,
    *low_rank.BUILDERS,
    *reconstruction.BUILDERS,
    *weighting.BUILDERS,
]

CASES: dict[str, Builder] = {
    builder(Sizes(), np.random.default_rng(0)).name: builder for builder in _BUILDERS
}
