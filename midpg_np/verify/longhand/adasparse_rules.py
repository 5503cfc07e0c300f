"""Rules of AdaSparse: schedule, threshold, sparsity regulariser (derivations 8)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand.calculation import Rule


def schedule(start: float, end: float, n_steps: int) -> Rule:
    """(1 - tau) start + tau end with tau = min(t / T, 1); the count t (1,) has no derivative."""

    def forward(step: Any) -> Any:
        tau = np.minimum(step / n_steps, 1.0)
        return (1.0 - tau) * start + tau * end

    return Rule(forward, lambda dy, _, step: (None,))


TEMPERED = Rule(
    lambda v_in, alpha: alpha * v_in,
    lambda dy, _, v_in, alpha: (alpha * dy, None),
)
"""alpha v_in with a temperature that is no variable."""


def above(epsilon: float) -> Rule:
    """1[v > epsilon], an integer: 1 or 0."""
    return Rule(lambda v: (v.real > epsilon).astype(np.int8), lambda dy, _, v: (None,))


MASKED = Rule(lambda v, kept: v * kept, lambda dy, _, v, kept: (dy * kept, None))
"""v 1[v > epsilon]; what is removed gets no gradient."""

HARD = Rule(lambda v, kept: kept.astype(v.dtype), lambda dy, _, v, kept: (None, None))
"""1[v > epsilon] as a number, with its true derivative, 0."""

SUBTRACT = Rule(lambda x, y: x - y, lambda dy, _, x, y: (dy, -dy))
"""x - y."""

ADVANCE = Rule(lambda step: step + 1.0, lambda dy, _, step: (None,))
"""One training step more."""


def pruned_share(ratio: str) -> Rule:
    """r = 1 - mean of pi (B, N): (1,) over all of them, or (B,), row by row.

    A factor of 0 has the slope of any other: -1 / (number of factors in the mean).
    """
    if ratio == "batch":
        return Rule(
            lambda pi: 1.0 - pi.mean().reshape(1),
            lambda dr, _, pi: (np.broadcast_to(-dr / pi.size, pi.shape),),
        )
    return Rule(
        lambda pi: 1.0 - pi.mean(axis=1),
        lambda dr, _, pi: (np.broadcast_to(-dr[:, None] / pi.shape[1], pi.shape),),
    )


def distance(middle: float) -> Rule:
    """|r - middle|; its slope is the sign."""

    def sign(r: Any) -> Any:
        return np.where(r.real > middle, 1, -1).astype(np.int8)

    return Rule(lambda r: sign(r) * (r - middle), lambda dy, _, r: (sign(r) * dy,))


def is_outside(r_min: float, r_max: float) -> Rule:
    """1[r not in [r_min, r_max]], an integer: 1 or 0."""
    return Rule(
        lambda r: ((r.real < r_min) | (r.real > r_max)).astype(np.int8),
        lambda dy, _, r: (None,),
    )


PENALTY_WEIGHT = Rule(
    lambda gap, outside, lambda_hat: lambda_hat * gap * outside,
    lambda dy, _, gap, outside, lambda_hat: (dy * lambda_hat * outside, None, None),
)
"""lambda = lambda_hat |r - middle| 1[r outside]."""

MEAN_PRODUCT = Rule(
    lambda weight, gap: np.asarray((weight * gap).mean()),
    lambda dy, _, weight, gap: (dy * gap / gap.size, dy * weight / gap.size),
)
"""Mean of lambda |r - middle|, over one r or one for each row."""
