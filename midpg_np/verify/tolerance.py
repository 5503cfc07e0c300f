"""How far a right implementation may be off: rounding of its number format, no more.

Two sources add up: rounding of each array as it is stored, relative to its largest entry, and what
rounding on the way to it has become.  The second is measured: the step is computed once more in
float32, and its deviation, scaled to the dump's format, is what this calculation does to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from midpg_np.verify.outcome import outcome

# Name of a dtype: its machine epsilon, and the error allowed relative to the largest entry.
FORMATS = {
    "float64": (2.0**-52, 1e-12),
    "float32": (2.0**-23, 1e-5),
    "float16": (2.0**-10, 1e-2),
    "bfloat16": (2.0**-7, 6e-2),
}
NOISE_FACTOR = 32.0  # another order of the same sums deviates by a few times as much


def rounding_noise(model: Any, given: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the largest deviation of each quantity in float32, per unit of epsilon."""
    narrow = {
        name: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in given.items()
    }
    wide = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in narrow.items()
    }
    exact, rounded = outcome(model, wide), outcome(model, narrow)
    epsilon = FORMATS["float32"][0]
    return {
        name: float(np.abs(np.asarray(rounded[name], dtype=np.float64) - right).max(initial=0.0))
        / epsilon
        for name, right in exact.items()
    }


def allowed_error(want: np.ndarray, dtype: str, noise: float) -> float:
    """Return the largest absolute error of a right array; integers must be equal."""
    if dtype not in FORMATS:
        return 0.0
    epsilon, relative = FORMATS[dtype]
    return relative * float(np.abs(want).max(initial=0.0)) + NOISE_FACTOR * epsilon * noise
