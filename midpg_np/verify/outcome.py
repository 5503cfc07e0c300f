"""One training step from given numbers: every value, adjoint, moved parameter, and the prediction.

Names in a step's outcome: a quantity has its own name ("layer_1.A"), its adjoint is "d.layer_1.A",
what a parameter or a moving average is after the step is "next.layer_1.W", and what a prediction
from the parameters before the step gives is "serving.logit".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Calculation, write_out
from midpg_np.verify.longhand.adam import adam_step
from midpg_np.verify.mistakes.mistake import Mistake

ADJOINT, NEXT, SERVING = "d.", "next.", "serving."
INPUTS = ("codes", "scenario", "label", "partner")


def calculations(model: Any, mistakes: Sequence[Mistake] = ()) -> tuple[Calculation, Calculation]:
    """Return the steps of training and of a prediction, with mistakes built in."""
    return _calculation(model, mistakes, training=True), _calculation(model, mistakes, False)


def _calculation(model: Any, mistakes: Sequence[Mistake], training: bool) -> Calculation:
    calculation = write_out(model, training=training)
    for mistake in mistakes:
        calculation = mistake.applied(calculation, model, training=training)
    return calculation


def outcome(
    model: Any, given: Mapping[str, np.ndarray], mistakes: Sequence[Mistake] = ()
) -> dict[str, np.ndarray]:
    """Return all named quantities of one step: given ones first, then in order of computation.

    Parameters
    ----------
    model
        A model of ``MODELS``.
    given : mapping
        Inputs ("codes", "scenario", "label", "partner"), parameters and moving averages by path.
    mistakes : sequence of Mistake
        What to do wrong.
    """
    return {
        name: array for part in outcomes(model, given, mistakes) for name, array in part.items()
    }


def outcomes(
    model: Any, given: Mapping[str, np.ndarray], mistakes: Sequence[Mistake] = ()
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the parts of an outcome in turn: values, adjoints, next values, the prediction."""
    training = _calculation(model, mistakes, training=True)
    values = training.run(given)
    yield values
    adjoints = training.adjoints(values)
    yield {ADJOINT + name: array for name, array in adjoints.items()}
    yield {
        NEXT + name: _moved(name, given[name], adjoints[name], mistakes)
        for name in given
        if name in adjoints
    }
    serving = _calculation(model, mistakes, training=False)
    yield {SERVING + "logit": serving.run(given)["logit"]}


def _moved(name: str, param: Any, gradient: Any, mistakes: Sequence[Mistake]) -> np.ndarray:
    """Return a parameter after the mistakes' idea of an optimiser's step."""
    for mistake in mistakes:
        if mistake.update is not None:
            return mistake.update(name, param, gradient)
    return adam_step(param, gradient)
