"""Mistakes in the star, in the auxiliary network and in their sum (derivations 6.5)."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from midpg_np.ops import sigmoid
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.adam import adam_step
from midpg_np.verify.longhand.rules import ADD, MULTIPLY
from midpg_np.verify.mistakes.by_scenario import activated
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    SERVING,
    STATE,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    reading,
    value,
)
from midpg_np.verify.mistakes.star_norm import STAR_NORM

STAR = ("star",)
WEIGHTS, BIASES = "star.*.W_star", "star.*.b_star"
OWNED = "star.*.scenario.*"

# --- star -----------------------------------------------------------------------------------------


def _of_last_scenario(step: Step, _: Any) -> Step:
    """Let the shared weights hear from the last scenario of the batch only."""

    def backward(dW_star: Any, _: Any, W: Any, W_d: Any, scenario: Any) -> tuple[Any, ...]:
        last = scenario.max()
        return dW_star[last] * W_d[last], dW_star * W, None

    rule = Rule(lambda W, W_d, scenario: step.rule.forward(W, W_d), backward)
    return replace(step, inputs=(*step.inputs, "scenario"), rule=rule)


MAIN = (
    Mistake(
        name="weights of star and scenario added",
        models=STAR,
        equation="6.1",
        wrong="W_star = W + W_d",
        right="W_star = W * W_d",
        shows=VALUE,
        fix="Multiply the shared kernel by the scenario's, entry by entry.",
        changes=(value(WEIGHTS, ADD),),
    ),
    Mistake(
        name="biases of star and scenario multiplied",
        models=STAR,
        equation="6.1",
        wrong="b_star = b * b_d",
        right="b_star = b + b_d",
        shows=VALUE,
        fix="Kernels multiply, biases add.",
        changes=(value(BIASES, MULTIPLY),),
    ),
    Mistake(
        name="activation on the main logit",
        models=STAR,
        equation="6.1",
        wrong="z_main = phi(H W_star + b_star)",
        right="z_main = H W_star + b_star in the last layer",
        shows=VALUE,
        fix="The last layer has no activation; with ReLU z_main would never be negative.",
        changes=(value("z_main", activated),),
        options={"activation": "tanh"},  # behind a ReLU a batch of positive logits looks right
    ),
    Mistake(
        name="gradient of the shared weights without the scenario's",
        models=STAR,
        equation="6.3",
        wrong="dW = sum_d Gamma_d",
        right="dW = sum_d Gamma_d * W_d",
        shows=GRADIENT,
        fix="A product sends to each factor the other; at the start W_d = 1 hides it.",
        changes=(adjoint(WEIGHTS, lambda right, dW_star, *_: dW_star.sum(axis=0)),),
    ),
    Mistake(
        name="gradient of the scenario's weights without the shared",
        models=STAR,
        equation="6.3",
        wrong="dW_d = Gamma_d",
        right="dW_d = Gamma_d * W",
        shows=GRADIENT,
        fix="A product sends to each factor the other.",
        changes=(adjoint(WEIGHTS, lambda right, dW_star, *_: dW_star + 0.0, 1),),
    ),
    Mistake(
        name="gradient of the shared weights from the last scenario",
        models=STAR,
        equation="6.3",
        wrong="dW = Gamma_d * W_d of the last d, assigned in the loop over scenarios",
        right="dW = sum_d Gamma_d * W_d",
        shows=GRADIENT,
        fix="Add (+=) over the scenarios: all of them read W.",
        changes=(Change(WEIGHTS, _of_last_scenario, (0,)),),
    ),
    Mistake(
        name="scenario's weights not registered with the optimiser",
        models=STAR,
        equation="2.6",
        wrong="theta' = theta for W_d and b_d",
        right="theta' = theta - eta m / (sqrt(v) + epsilon) for every parameter",
        shows=STATE,
        fix="Keep them in an nn.ParameterList or one nn.Parameter, not in a Python list.",
        update=lambda name, p, g: p if fnmatchcase(name, OWNED) else adam_step(p, g),
        moves=OWNED,
    ),
)

# --- auxiliary network, two logits ----------------------------------------------------------------


def _sum_of_probabilities(z_main: Any, z_aux: Any) -> Any:
    p = 0.5 * (sigmoid(z_main)[0] + sigmoid(z_aux)[0])
    return np.log(p / (1.0 - p))


def _sum_of_probabilities_backward(dz: Any, _: Any, *logits: Any) -> tuple[Any, ...]:
    parts = [sigmoid(z)[0] for z in logits]
    p = 0.5 * sum(parts)
    return tuple(0.5 * dz * part * (1.0 - part) / (p * (1.0 - p)) for part in parts)


MEAN_OF_LOGITS = Rule(
    lambda z_main, z_aux: 0.5 * (z_main + z_aux),
    lambda dz, _, z_main, z_aux: (0.5 * dz, 0.5 * dz),
)
MAIN_ONLY = Rule(lambda z_main, z_aux: z_main + 0.0, lambda dz, _, z_main, z_aux: (dz, 0.0 * dz))


def _normalised(step: Step, model: Any) -> tuple[str, ...]:
    """Read V in place of X, where there is one."""
    e_dom, X = step.inputs
    return e_dom, "norm.V" if model.has_norm and X == "X" else X


AUXILIARY = (
    Mistake(
        name="probabilities summed in place of logits",
        models=STAR,
        equation="6.1",
        wrong="p = (sigmoid(z_main) + sigmoid(z_aux)) / 2",
        right="p = sigmoid(z_main + z_aux)",
        shows=VALUE,
        fix="Add the logits and apply the sigmoid once.",
        changes=(value("z", Rule(_sum_of_probabilities, _sum_of_probabilities_backward)),),
    ),
    Mistake(
        name="two logits averaged",
        models=STAR,
        equation="6.1",
        wrong="z = (z_main + z_aux) / 2",
        right="z = z_main + z_aux",
        shows=VALUE,
        fix="Add the logits.",
        changes=(value("z", MEAN_OF_LOGITS),),
    ),
    Mistake(
        name="auxiliary network left out of prediction",
        models=STAR,
        equation="6.1",
        wrong="z = z_main in prediction",
        right="z = z_main + z_aux in prediction",
        shows=SERVING,
        fix="The auxiliary network is a part of the model, not a loss for training.",
        changes=(value("z", MAIN_ONLY, in_training=False),),
    ),
    Mistake(
        name="auxiliary network reads the normalised input",
        models=STAR,
        equation="6.1",
        wrong="z_aux = MLP([e_dom, V])",
        right="z_aux = MLP([e_dom, X])",
        shows=VALUE,
        fix="Hand X to the auxiliary network; do not overwrite it with its normalised value.",
        changes=(reading("aux.U", _normalised),),
    ),
    Mistake(
        name="input detached in front of the auxiliary network",
        models=STAR,
        equation="6.3",
        wrong="dX from the star only",
        right="dX = dX of the star + dX of the auxiliary network",
        shows=GRADIENT,
        fix="X has two readers: add their adjoints, do not detach.",
        changes=(dropped("aux.U", 1),),
    ),
    Mistake(
        name="scenario's embedding not trained",
        models=STAR,
        equation="6.3",
        wrong="de_dom = 0",
        right="de_dom[d] = sum of dU over the rows of d",
        shows=GRADIENT,
        fix="The embedding of the scenario is a parameter: register it, do not detach it.",
        changes=(dropped("aux.U", 0),),
    ),
)

STAR_MISTAKES = (*STAR_NORM, *MAIN, *AUXILIARY)
