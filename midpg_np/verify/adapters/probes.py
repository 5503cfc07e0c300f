"""What a comparison of numbers cannot see in predictions, whatever framework they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Predict = Callable[[Mapping[str, Any]], np.ndarray]
FAILURES = (RuntimeError, ValueError, IndexError, TypeError)  # of a batch that code did not expect
RANDOM_PREDICTIONS = "predictions are random: a second one differs. {}"


def prediction_problems(
    predict: Predict, inputs: Mapping[str, Any], tolerance: float, advice: str
) -> list[str]:
    """Say whether a prediction depends on anything but its row (derivations 11).

    Parameters
    ----------
    predict : callable
        Returns logits (B,) for inputs of B rows.
    inputs : mapping
        Arrays of the framework whose first axis is the row.
    tolerance : float
        Error allowed relative to the largest logit, or to 1.
    advice : str
        A sentence on what to do about random numbers.
    """
    n_rows = len(inputs["codes"])
    whole = predict(inputs)
    if whole.shape != (n_rows,) or not np.isfinite(whole).all():
        return []  # the comparison says so
    if not np.array_equal(whole, predict(inputs)):
        return [RANDOM_PREDICTIONS.format(advice)]
    allowed = tolerance * max(1.0, float(np.abs(whole).max()))
    backwards = np.arange(n_rows)[::-1].copy()  # PyTorch has no negative steps
    turned = predict({name: array[backwards] for name, array in inputs.items()})[::-1]
    problems = _alone(predict, inputs, whole, allowed)
    return problems + _compared(
        "a prediction depends on the order of the rows", "in reversed order", turned, whole, allowed
    )


def _alone(
    predict: Predict, inputs: Mapping[str, Any], whole: np.ndarray, allowed: float
) -> list[str]:
    """Predict row by row."""
    alone = np.empty_like(whole)
    for row in range(len(whole)):
        try:
            one = predict({name: array[row : row + 1] for name, array in inputs.items()})
        except FAILURES as error:
            return [f"a prediction of one row fails: {str(error).splitlines()[0]}."]
        if one.shape != (1,):
            return [f"a prediction of one row has shape {one.shape}; expected (1,)."]
        alone[row] = one[0]
    what = "a prediction depends on the other rows of its batch"
    return _compared(what, "alone", alone, whole, allowed)


def _compared(what: str, how: str, got: np.ndarray, whole: np.ndarray, allowed: float) -> list[str]:
    error = np.abs(got - whole)
    if not (error > allowed).any():
        return []
    row = int(error.argmax())
    n_wrong = int((error > allowed).sum())
    return [
        f"{what}: row {row} gives {whole[row]:+.6e}, and {got[row]:+.6e} {how} "
        f"({n_wrong} of {len(whole)} rows differ by more than {allowed:.1e})."
    ]
