"""Mistakes in the normalisation by scenario and its moving statistics (derivations 6.5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.layers.initial import EMBEDDING_STD
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import ADD, MULTIPLY
from midpg_np.verify.longhand.scenario_rules import scenario_sum
from midpg_np.verify.longhand.star_rules import (
    MEAN,
    MOVING,
    VARIANCE,
    moved,
    row_counts,
    statistic,
)
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    SERVING,
    STATE,
    VALUE,
    Mistake,
    adjoint,
    dropped,
    reading,
    value,
)

STAR = ("star",)
MU, NU = "*norm.mu", "*norm.nu"

# --- statistics -----------------------------------------------------------------------------------


def over_all_rows(power: int) -> Rule:
    """Return the statistic of the whole batch, the same for every scenario."""

    def forward(x: Any, moving: Any, scenario: Any) -> Any:
        return np.repeat((x**power).mean(axis=0, keepdims=True), len(moving), axis=0)

    def backward(dy: Any, _: Any, x: Any, moving: Any, scenario: Any) -> tuple[Any, ...]:
        return dy.sum(axis=0) / len(x) * power * x ** (power - 1), None, None

    return Rule(forward, backward)


def _constant(number: float) -> Rule:
    return Rule(
        lambda x, moving, scenario: np.full_like(moving, number),
        lambda dy, _, x, moving, scenario: (None, None, None),
    )


def _by_batch_size(right: Any, dy: Any, _: Any, x: Any, moving: Any, scenario: Any) -> Any:
    """Divide by B in place of n_d."""
    return right * row_counts(scenario, len(moving))[scenario] / len(scenario)


def _single_rows_too(power: int) -> Any:
    """Return a changed adjoint: that of the batch formula also where there is a single row."""

    def wrong(right: Any, dy: Any, _: Any, x: Any, moving: Any, scenario: Any) -> Any:
        return statistic(power, least=1).backward(dy, None, x, moving, scenario)[0]

    return wrong


def _epsilon_beside(step: Step, model: Any) -> Rule:
    """1 / (sqrt(nu) + eps); where nu = 0 nothing comes back, as the deviations are zero too."""

    def backward(dr: Any, r: Any, nu: Any) -> tuple[Any, ...]:
        root = np.sqrt(np.where(nu > 0, nu, 1.0))
        return (-0.5 * dr * r**2 / root * (nu > 0),)

    return Rule(lambda nu: 1.0 / (np.sqrt(nu) + model.eps), backward)


STATISTICS = (
    Mistake(
        name="statistics over the whole batch",
        models=STAR,
        equation="6.1",
        wrong="mu = 1/B sum_i X_i, nu = 1/B sum_i (X_i - mu)^2 over all rows",
        right="mu_d, nu_d over the n_d rows of scenario d",
        shows=VALUE,
        fix="Sum by scenario (segment sums, index_add_); BatchNorm1d mixes the scenarios.",
        changes=(
            value(MU, over_all_rows(1), in_serving=False),
            value(NU, over_all_rows(2), in_serving=False),
        ),
    ),
    Mistake(
        name="a single row normalised by itself",
        models=STAR,
        equation="6.1",
        wrong="mu_d = X_i, nu_d = 0 for n_d = 1, so V_i = beta + beta_d",
        right="mu_d = M_d, nu_d = N_d for n_d = 1",
        shows=VALUE,
        fix="Use the moving statistics where a scenario has fewer than two rows.",
        changes=(
            value(MU, statistic(1, least=1), in_serving=False),
            value(NU, statistic(2, least=1), in_serving=False),
        ),
    ),
    Mistake(
        name="unbiased variance in the normalisation",
        models=STAR,
        equation="6.1",
        wrong="nu_d = 1/(n_d - 1) sum_i (X_i - mu_d)^2",
        right="nu_d = 1/n_d sum_i (X_i - mu_d)^2",
        shows=VALUE,
        fix="Ask for the biased variance: var(correction=0); torch.var divides by n - 1.",
        changes=(value(NU, statistic(2, n_fewer=1), in_serving=False),),
    ),
    Mistake(
        name="training normalised by the moving statistics",
        models=STAR,
        equation="6.1",
        wrong="X_hat = (X - M_d) / sqrt(N_d + eps) in training",
        right="X_hat = (X - mu_d) / sqrt(nu_d + eps) in training",
        shows=VALUE,
        fix="Put the model into training mode: model.train(), training=True.",
        changes=(value(MU, MOVING), value(NU, MOVING)),
    ),
    Mistake(
        name="epsilon beside the root",
        models=STAR,
        equation="6.1",
        wrong="X_hat = (X - mu) / (sqrt(nu) + eps)",
        right="X_hat = (X - mu) / sqrt(nu + eps)",
        shows=VALUE,
        fix="Add epsilon to the variance, under the root.",
        changes=(value("*norm.inverse_std", _epsilon_beside),),
    ),
    Mistake(
        name="statistics detached",
        models=STAR,
        equation="6.3",
        wrong="dX = r dX_hat",
        right="dX = r (dX_hat - mean(dX_hat) - X_hat mean(dX_hat X_hat))",
        shows=GRADIENT,
        fix="Compute mu and nu inside the graph, without no_grad or detach.",
        changes=(dropped(MU), dropped(NU)),
    ),
    Mistake(
        name="way through the mean forgotten",
        models=STAR,
        equation="6.3",
        wrong="dX = r (dX_hat - X_hat mean(dX_hat X_hat))",
        right="dX = r (dX_hat - mean(dX_hat) - X_hat mean(dX_hat X_hat))",
        shows=GRADIENT,
        fix="Subtract the mean of dX_hat: dX sums to zero inside each scenario.",
        changes=(dropped(MU),),
    ),
    Mistake(
        name="way through the variance forgotten",
        models=STAR,
        equation="6.3",
        wrong="dX = r (dX_hat - mean(dX_hat))",
        right="dX = r (dX_hat - mean(dX_hat) - X_hat mean(dX_hat X_hat))",
        shows=GRADIENT,
        fix="Subtract X_hat mean(dX_hat X_hat): nu depends on every row.",
        changes=(dropped(NU),),
    ),
    Mistake(
        name="means of the adjoint divided by the batch",
        models=STAR,
        equation="6.3",
        wrong="mean(.) = 1/B sum over the rows of d",
        right="mean(.) = 1/n_d sum over the rows of d",
        shows=GRADIENT,
        fix="Divide by the rows n_d of the scenario, as in the forward.",
        changes=(adjoint(MU, _by_batch_size), adjoint(NU, _by_batch_size)),
    ),
    Mistake(
        name="batch formula where the statistics were constants",
        models=STAR,
        equation="6.3",
        wrong="dX = r (dX_hat - mean(dX_hat) - X_hat mean(dX_hat X_hat)) for n_d = 1",
        right="dX = r dX_hat for n_d = 1",
        shows=GRADIENT,
        fix="Moving statistics are constants: only the direct way is left for a single row.",
        changes=(adjoint(MU, _single_rows_too(1)), adjoint(NU, _single_rows_too(2))),
    ),
)

# --- scale and shift ------------------------------------------------------------------------------

SCALE_AND_SHIFT = (
    Mistake(
        name="scales added",
        models=STAR,
        equation="6.1",
        wrong="V = (gamma + gamma_d) X_hat + (beta + beta_d)",
        right="V = (gamma * gamma_d) X_hat + (beta + beta_d)",
        shows=VALUE,
        fix="Scales multiply, shifts add.",
        changes=(value("*norm.scale", ADD),),
    ),
    Mistake(
        name="shifts multiplied",
        models=STAR,
        equation="6.1",
        wrong="V = (gamma * gamma_d) X_hat + (beta * beta_d)",
        right="V = (gamma * gamma_d) X_hat + (beta + beta_d)",
        shows=VALUE,
        fix="Scales multiply, shifts add; a product of shifts that start at zero never moves.",
        changes=(value("*norm.shift", MULTIPLY),),
    ),
    Mistake(
        name="gradient of the shared scale without the scenario's",
        models=STAR,
        equation="6.3",
        wrong="dgamma = sum_d c_d",
        right="dgamma = sum_d gamma_d * c_d",
        shows=GRADIENT,
        fix="A product sends to each factor the other; at the start gamma_d = 1 hides it.",
        changes=(adjoint("*norm.scale", lambda right, dy, *_: dy.sum(axis=0)),),
    ),
    Mistake(
        name="gradient of the scenario's scale without the shared one",
        models=STAR,
        equation="6.3",
        wrong="dgamma_d = c_d",
        right="dgamma_d = gamma * c_d",
        shows=GRADIENT,
        fix="A product sends to each factor the other; at the start gamma = 1 hides it.",
        changes=(adjoint("*norm.scale", lambda right, dy, *_: dy + 0.0, 1),),
    ),
)

# --- moving statistics ----------------------------------------------------------------------------


def _unbiased(step: Step, model: Any) -> Rule:
    """Move by the variance with the divisor n_d - 1."""
    right = moved(model.momentum)

    def forward(moving: Any, now: Any, scenario: Any) -> Any:
        n = row_counts(scenario, len(moving)).astype(moving.dtype)
        return right.forward(moving, now * n / np.maximum(n - 1, 1), scenario)

    return Rule(forward, right.backward)


def _absent_decay(step: Step, model: Any) -> Rule:
    """Move absent scenarios towards zero, the mean of no rows."""
    right = moved(model.momentum)

    def forward(moving: Any, now: Any, scenario: Any) -> Any:
        is_absent = row_counts(scenario, len(moving)) == 0
        decayed = model.momentum * moving
        return np.where(is_absent, decayed, right.forward(moving, now, scenario))

    return Rule(forward, right.backward)


def _of_single_rows(own_statistic: Any) -> Any:
    """Return a rule maker: scenarios with a single row move too, by a statistic of that row."""

    def make(step: Step, model: Any) -> Rule:
        right = moved(model.momentum, least=1)

        def forward(moving: Any, now: Any, scenario: Any, X: Any) -> Any:
            is_single = row_counts(scenario, len(moving)) == 1
            alone = own_statistic(scenario_sum(X, scenario, len(moving)))
            return right.forward(moving, np.where(is_single, alone, now), scenario)

        return Rule(forward, lambda dy, _, *inputs: tuple(None for _ in inputs))

    return make


MOVING_STATISTICS = (
    Mistake(
        name="prediction normalised by its own batch",
        models=STAR,
        equation="6.1",
        wrong="X_hat = (X - mu_d) / sqrt(nu_d + eps) in prediction",
        right="X_hat = (X - M_d) / sqrt(N_d + eps) in prediction",
        shows=SERVING,
        fix="Put the model into evaluation mode: model.eval(), training=False.",
        changes=(value(MU, MEAN, in_training=False), value(NU, VARIANCE, in_training=False)),
    ),
    Mistake(
        name="moving statistics not saved",
        models=STAR,
        equation="6.1",
        wrong="M_d = 0, N_d = 0.01^2 in prediction, as at the start",
        right="M_d, N_d as training has left them",
        shows=SERVING,
        fix="Register them (register_buffer), so that they are saved and loaded with the model.",
        changes=(
            value(MU, _constant(0.0), in_training=False),
            value(NU, _constant(EMBEDDING_STD**2), in_training=False),
        ),
    ),
    Mistake(
        name="moving statistics never moved",
        models=STAR,
        equation="6.1",
        wrong="M_d <- M_d, N_d <- N_d",
        right="M_d <- rho M_d + (1 - rho) mu_d, N_d <- rho N_d + (1 - rho) nu_d",
        shows=STATE,
        fix="Run the updates with the step: in TensorFlow 1 they wait in UPDATE_OPS.",
        changes=(value("next.*", moved(1.0)),),
    ),
    Mistake(
        name="momentum taken for its rest",
        models=STAR,
        equation="6.1",
        wrong="M_d <- (1 - rho) M_d + rho mu_d",
        right="M_d <- rho M_d + (1 - rho) mu_d",
        shows=STATE,
        fix="rho weighs the old value; PyTorch's momentum is 1 - rho.",
        changes=(value("next.*", lambda step, model: moved(1.0 - model.momentum)),),
    ),
    Mistake(
        name="unbiased variance in the moving statistics",
        models=STAR,
        equation="6.1",
        wrong="N_d <- rho N_d + (1 - rho) nu_d n_d / (n_d - 1)",
        right="N_d <- rho N_d + (1 - rho) nu_d",
        shows=STATE,
        fix="Keep the biased variance; PyTorch's BatchNorm keeps the unbiased one.",
        changes=(value("next.*variance", _unbiased),),
    ),
    Mistake(
        name="statistics of absent scenarios decay",
        models=STAR,
        equation="6.1",
        wrong="M_d <- rho M_d, N_d <- rho N_d for n_d = 0",
        right="M_d <- M_d, N_d <- N_d for n_d = 0",
        shows=STATE,
        fix="Move present scenarios only; a segment mean without rows is 0 (or NaN).",
        changes=(value("next.*", _absent_decay),),
    ),
    Mistake(
        name="single rows move the statistics",
        models=STAR,
        equation="6.1",
        wrong="M_d <- rho M_d + (1 - rho) X_i, N_d <- rho N_d for n_d = 1",
        right="M_d <- M_d, N_d <- N_d for n_d = 1",
        shows=STATE,
        fix="Move a scenario's statistics only if it has at least two rows.",
        changes=(
            reading("next.*", lambda step, _: (*step.inputs, "X")),
            value("next.*mean", _of_single_rows(lambda x: x)),
            value("next.*variance", _of_single_rows(np.zeros_like)),
        ),
    ),
)

STAR_NORM = (*STATISTICS, *SCALE_AND_SHIFT, *MOVING_STATISTICS)
