"""One check of a whole model, op or layer, by its name.

Apart from the command, so that a process that checks starts without importing what prints.
"""

from __future__ import annotations

import numpy as np

from midpg_np.checks import GradientReport, check_directions, check_gradients
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.experiments.full_size_models import FULL_SIZE_CASES
from midpg_np.experiments.small_models import MODEL_CASES


def check_small(name: str, seed: int) -> GradientReport:
    """Check every entry of an op, loss, layer or small model, with numbers drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    return check_gradients((CASES | MODEL_CASES)[name](Sizes(), rng), rng)


def check_full_size(name: str, seed: int) -> GradientReport:
    """Check one direction per array of a model of full size, with numbers drawn by ``seed``."""
    rng = np.random.default_rng(seed)
    return check_directions(FULL_SIZE_CASES[name](rng), rng)
