"""Nothing is timed that does not compute what the package computes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Relative to the largest entry of the array; of arrays that are all small, to a thousandth of the
# largest entry of any gradient.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
N_STEPS = 3


class Reference(NamedTuple):
    """What a step gives: loss, gradients, loss and parameters after three steps of Adam, logits.

    ``logits`` is None where nothing was predicted.
    """

    loss: float
    grads: dict[str, np.ndarray]
    loss_after: float
    params_after: dict[str, np.ndarray]
    logits: np.ndarray | None


class DifferentError(ValueError):
    """An implementation differs from the package; it says where first."""


def measure(step: Any, batch: Any, draws: Any, predicts: bool = True) -> Reference:
    """Run one implementation; it has taken three steps afterwards."""
    staged = step.stage(batch, draws)
    logits = step.predict(staged).copy() if predicts else None
    loss, grads = step.loss_and_grads(staged)
    grads = {path: np.array(g) for path, g in grads.items()}
    for _ in range(N_STEPS):
        step.step(staged)
    loss_after, _ = step.loss_and_grads(staged)
    return Reference(loss, grads, loss_after, step.parameters(), logits)


def check(ours: Reference, theirs: Reference, dtype: str) -> float:
    """Return the largest relative difference.

    Parameters after three steps are compared in float64 only: Adam divides by the root of the
    second moment, so where a gradient is nothing but rounding, its rounding decides the step.

    Raises
    ------
    DifferentError
        If it exceeds the tolerance of the dtype.
    """
    limit = TOLERANCE[dtype]
    floor = 1e-3 * max(float(np.abs(g).max()) for g in ours.grads.values())
    pairs: list[tuple[str, Any, Any, float]] = [
        ("the loss", ours.loss, theirs.loss, 0.0),
        *_paired("the gradient of", ours.grads, theirs.grads, floor),
        (f"the loss after {N_STEPS} steps", ours.loss_after, theirs.loss_after, 0.0),
    ]
    if ours.logits is not None and theirs.logits is not None:
        pairs.insert(0, ("the logits", ours.logits, theirs.logits, 1e-3))
    if dtype == "float64":
        pairs += _paired(f"after {N_STEPS} steps", ours.params_after, theirs.params_after, 1e-3)
    worst = 0.0
    for name, a, b, least in pairs:
        difference = _difference(np.asarray(a, dtype=float), np.asarray(b, dtype=float), least)
        if not difference <= limit:
            raise DifferentError(
                f"{name} differs from the package's by {difference:.1e} of its largest entry; "
                f"{limit:.0e} is allowed in {dtype}."
            )
        worst = max(worst, difference)
    return worst


def _paired(what: str, ours: dict, theirs: dict, floor: float) -> list[tuple[str, Any, Any, float]]:
    if ours.keys() != theirs.keys():
        raise DifferentError(f"{what}: names differ, {sorted(ours.keys() ^ theirs.keys())}.")
    return [(f"{what} {path}", ours[path], theirs[path], floor) for path in ours]


def _difference(a: np.ndarray, b: np.ndarray, least: float) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), least, 1e-300))
