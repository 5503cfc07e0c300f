"""Every model written out step by step: the long form that dumps are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from midpg_np.models import model_name
from midpg_np.verify.longhand.adasparse import adasparse
from midpg_np.verify.longhand.apg import apg
from midpg_np.verify.longhand.calculation import Calculation, Rule, Sheet, Step
from midpg_np.verify.longhand.dnn import dnn
from midpg_np.verify.longhand.dpg import dpg, midpg
from midpg_np.verify.longhand.optmsm import optmsm
from midpg_np.verify.longhand.pepnet import pepnet
from midpg_np.verify.longhand.ple import ple
from midpg_np.verify.longhand.star import star

LONGHAND: dict[str, Callable[..., Calculation]] = {
    "dnn": dnn,
    "dpg": dpg,
    "midpg": midpg,
    "apg": apg,
    "optmsm": optmsm,
    "pepnet": pepnet,
    "adasparse": adasparse,
    "ple": ple,
    "star": star,
}

__all__ = ["LONGHAND", "Calculation", "Rule", "Sheet", "Step", "write_out"]


def write_out(model: Any, *, training: bool = True) -> Calculation:
    """Return the steps of one training step of a model, or those of a prediction, up to "logit"."""
    calculation = LONGHAND[model_name(model)](model, training=training)
    if training:
        return calculation
    prediction = replace(calculation, target="logit")
    return replace(prediction, steps=prediction.relevant)
