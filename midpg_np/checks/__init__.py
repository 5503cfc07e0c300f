"""Gradient checks: proof that a backward is the derivative of its forward."""

from midpg_np.checks.case import Case, linearise, shift_from_kinks, wake_units
from midpg_np.checks.close import expect_close
from midpg_np.checks.gradient import (
    GradientMismatchError,
    GradientReport,
    check_directions,
    check_gradients,
)
from midpg_np.checks.model import dense_gradients, model_case, perturbed, perturbed_params

__all__ = [
    "Case",
    "GradientMismatchError",
    "GradientReport",
    "check_directions",
    "check_gradients",
    "dense_gradients",
    "expect_close",
    "linearise",
    "model_case",
    "perturbed",
    "perturbed_params",
    "shift_from_kinks",
    "wake_units",
]
