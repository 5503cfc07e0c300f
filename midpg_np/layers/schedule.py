"""Linear schedule of a constant, driven by a counter of training steps (derivations 8.1)."""

from __future__ import annotations

from midpg_np.backend import Array, get_xp

MAX_STEPS = 2**24  # a counter in float32 cannot count further


def linear_schedule(step: Array, start: float, end: float, n_steps: int) -> Array:
    """Go from ``start`` to ``end`` in ``n_steps`` equal steps, and stay there (derivations 8.1c).

    The counter is state without gradient, so there is no backward.

    Shapes
    ------
    step : (N,)
    value : (N,)
    """
    progress = get_xp(step).minimum(step / n_steps, 1.0)
    return start * (1.0 - progress) + end * progress  # exactly ``end`` at the end
