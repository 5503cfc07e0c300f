"""The step of the optimiser that a case holds (derivations 2.6)."""

from __future__ import annotations

from typing import Any

import numpy as np

LEARNING_RATE, EPSILON = 1e-3, 1e-8


def adam_step(param: Any, gradient: Any) -> Any:
    """First step of Adam: both moments, corrected for their start at zero, are g and g^2.

    theta' = theta - lr g / (|g| + epsilon).
    """
    return param - LEARNING_RATE * gradient / (np.abs(gradient) + EPSILON)
