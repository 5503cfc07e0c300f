"""A change that is made in some of the steps that its pattern matches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from midpg_np.verify.longhand import Step
from midpg_np.verify.mistakes.mistake import Change


def only_where(applies: Callable[[Step, Any], bool], change: Change) -> Change:
    """Return the change, made where ``applies(step, model)``."""

    def make(step: Step, model: Any) -> Step:
        return change.make(step, model) if applies(step, model) else step

    return replace(change, make=make)
