"""The learning rate by step: a factor that follows from the step's number and from nothing else.

Steps count from 1.  With W steps of warm-up, N planned steps and r = final_lr / lr,

    f_t = t / W                                      for t <= W
    f_t = 1                                          "constant"
    f_t = 1 - (1 - r) p                              "linear"
    f_t = r + (1 - r) (1 + cos(pi p)) / 2            "cosine"

with p = (t - W - 1) / (N - W - 1), from 0 at the first step after the warm-up to 1 at step N and
beyond.  There is no state, so an interrupted run goes on with the same rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LR_SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class LRSchedule:
    """Factors f_t of the learning rate.

    Parameters
    ----------
    kind : str
        "constant", "linear" or "cosine".
    warmup_steps : int
        W.
    n_steps : int
        N; of no meaning with "constant".
    final : float
        r, in [0, 1].

    Raises
    ------
    ValueError
        If the planned steps end with the warm-up or before.
    """

    kind: str
    warmup_steps: int = 0
    n_steps: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.kind != "constant" and self.n_steps <= self.warmup_steps:
            raise ValueError(
                f"warmup_steps must be fewer than the steps of the whole run, {self.n_steps}; got "
                f"{self.warmup_steps}. Warm up for fewer, or train for more epochs."
            )

    @property
    def last_change(self) -> int:
        """The step from which on the factor stays as it is."""
        return self.warmup_steps if self.kind == "constant" else self.n_steps

    def factor(self, step: int) -> float:
        """Return f_t."""
        if step <= self.warmup_steps:
            return step / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        n_falling = max(self.n_steps - self.warmup_steps - 1, 1)
        progress = min((step - self.warmup_steps - 1) / n_falling, 1.0)
        left = 1.0 - progress if self.kind == "linear" else (1.0 + math.cos(math.pi * progress)) / 2
        return self.final + (1.0 - self.final) * left

    def largest_rise(self, steps: np.ndarray) -> np.ndarray:
        """Return, for each step t >= 1 of ``steps`` (n,), the largest f_s / f_t of all s >= t.

        Factors fall, or stay, once the warm-up is over.
        """
        return np.maximum(self.warmup_steps / steps, 1.0)
