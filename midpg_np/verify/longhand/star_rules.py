"""Rules of a normalisation by scenario (derivations 6.1 and 6.3).

A statistic (D, I) has a row for each scenario.  Inputs of a rule are called x (B, I), ``moving``
(D, I), the moving statistic, and ``scenario`` (B,).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand.calculation import Rule
from midpg_np.verify.longhand.scenario_rules import scenario_sum

LEAST = 2
"""Rows that a scenario must have to be normalised by itself."""


def row_counts(scenario: Any, n_scenarios: int) -> Any:
    """Return n_d as a column (D, 1)."""
    return np.bincount(scenario, minlength=n_scenarios)[:, None]


def statistic(power: int, least: int = LEAST, n_fewer: int = 0) -> Rule:
    """Mean of x^power over the rows of d; for n_d < least the moving statistic, a constant.

    ``n_fewer`` is taken off the divisor n_d.
    """

    def divisor(scenario: Any, moving: Any) -> tuple[Any, Any]:
        n = row_counts(scenario, len(moving))
        return n >= least, np.maximum(n - n_fewer, 1).astype(moving.dtype)

    def forward(x: Any, moving: Any, scenario: Any) -> Any:
        is_own, n = divisor(scenario, moving)
        return np.where(is_own, scenario_sum(x**power, scenario, len(moving)) / n, moving)

    def backward(dy: Any, _: Any, x: Any, moving: Any, scenario: Any) -> tuple[Any, ...]:
        is_own, n = divisor(scenario, moving)
        return (dy * is_own / n)[scenario] * power * x ** (power - 1), None, None

    return Rule(forward, backward)


MEAN = statistic(1)
"""mu_d = 1/n_d sum_i X_i."""

VARIANCE = statistic(2)
"""nu_d = 1/n_d sum_i (X_i - mu_d)^2, from the deviations."""

MOVING = Rule(
    lambda x, moving, scenario: moving + 0.0, lambda dy, _, x, moving, scenario: (None, None, None)
)
"""The moving statistic in the place of the batch's, as in prediction."""

DEVIATION = Rule(
    lambda X, mu, scenario: X - mu[scenario],
    lambda dy, _, X, mu, scenario: (dy, -scenario_sum(dy, scenario, len(mu)), None),
)
"""X_i - mu_d."""


def inverse_root(eps: float) -> Rule:
    """r = (nu + eps)^(-1/2); dnu = -dr r^3 / 2."""
    return Rule(
        lambda nu: 1.0 / np.sqrt(nu + eps),
        lambda dr, r, nu: (-0.5 * dr * r**3,),
    )


TIMES_OWN = Rule(
    lambda x, r, scenario: x * r[scenario],
    lambda dy, _, x, r, scenario: (
        dy * r[scenario],
        scenario_sum(dy * x, scenario, len(r)),
        None,
    ),
)
"""y_i = x_i r_d."""

PLUS_OWN = Rule(
    lambda x, shift, scenario: x + shift[scenario],
    lambda dy, _, x, shift, scenario: (dy, scenario_sum(dy, scenario, len(shift)), None),
)
"""y_i = x_i + shift_d."""


def moved(momentum: float, least: int = LEAST) -> Rule:
    """Next moving statistic: rho M_d + (1 - rho) mu_d for scenarios of ``least`` rows or more."""

    def forward(moving: Any, now: Any, scenario: Any) -> Any:
        is_own = row_counts(scenario, len(moving)) >= least
        return np.where(is_own, momentum * moving + (1.0 - momentum) * now, moving)

    return Rule(forward, lambda dy, _, moving, now, scenario: (None, None, None))
