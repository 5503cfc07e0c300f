"""Every model written out step by step: the long form that dumps are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from midpg_np.models import model_name
from midpg_np.verify.longhand.calculation import Calculation, Rule, Sheet, Step
from midpg_np.verify.longhand.dnn import dnn
from midpg_np.verify.longhand.dpg import dpg, midpg

LONGHAND: dict[str, Callable[..., Calculation]] = {
    "dnn": dnn,
    "dpg": dpg,
    "midpg": midpg,
}

__all__ = ["LONGHAND", "Calculation", "Rule", "Sheet", "Step", "write_out"]


def write_out(model: Any, *, training: bool = True) -> Calculation:
    """Return the steps of one training step of a model, or of a prediction."""
    return LONGHAND[model_name(model)](model, training=training)
