"""Mistakes that every model can have: embeddings, affine maps, the loss, the optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.models import MODELS
from midpg_np.ops import sigmoid, softplus
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.adam import EPSILON, LEARNING_RATE, adam_step
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    SERVING,
    STATE,
    VALUE,
    Mistake,
    adjoint,
    value,
)

ALL = tuple(MODELS)


def _last_wins(right: Any, dX: Any, _: Any, table: Any, rows: Any) -> Any:
    """``grad[rows] = dX``: of several places that read a row, the last one counts."""
    d_table = np.zeros_like(table)
    d_table[rows] = dX.reshape(*rows.shape, -1)
    return d_table


def _last_field_forgotten(right: Any, dX: Any, _: Any, table: Any, rows: Any) -> Any:
    wrong = right.copy()
    wrong[np.unique(rows[:, -1])] = 0.0
    return wrong


SUM_OF_CROSS_ENTROPIES = Rule(
    lambda z, y: np.asarray((softplus(z)[0] - y * z).sum()),
    lambda dy, _, z, y: (dy * (sigmoid(z)[0] - y), None),
)
POSITIVES_ONLY = Rule(
    lambda z, y: np.asarray((y * softplus(-z)[0]).mean()),
    lambda dy, _, z, y: (-dy * y * sigmoid(-z)[0] / len(z), None),
)
LABELS_EXCHANGED = Rule(
    lambda z, y: np.asarray((softplus(z)[0] - (1 - y) * z).mean()),
    lambda dy, _, z, y: (dy * (sigmoid(z)[0] - (1 - y)) / len(z), None),
)


def _twice_through_sigmoid(z: Any, y: Any) -> Any:
    p = sigmoid(z)[0]
    return np.asarray((softplus(p)[0] - y * p).mean())


def _twice_through_sigmoid_backward(dy: Any, _: Any, z: Any, y: Any) -> tuple[Any, ...]:
    p = sigmoid(z)[0]
    return dy * (sigmoid(p)[0] - y) / len(z) * p * (1 - p), None


SQUEEZED = Rule(
    lambda x: x.reshape(x.shape[:1] if len(x) > 1 else ()),
    lambda dy, _, x: (np.reshape(dy, x.shape),),
)


def _probability(step: Step, _: Any) -> Rule:
    """Return the sigmoid of what should be returned; nothing is differentiated in a prediction."""
    return Rule(lambda *inputs: sigmoid(step.rule.forward(*inputs))[0], step.rule.backward)


def _of_one_number(step: Step, _: Any) -> Rule:
    """Return the loss on a logit that may have lost its axis."""

    def backward(dy: Any, loss: Any, z: Any, y: Any) -> tuple[Any, ...]:
        dz, _ = step.rule.backward(dy, loss, np.reshape(z, y.shape), y)
        return np.reshape(dz, np.shape(z)), None

    return Rule(lambda z, y: step.rule.forward(np.reshape(z, y.shape), y), backward)


def _moment_uncorrected(name: str, param: Any, gradient: Any) -> Any:
    return param + 0.1 * (adam_step(param, gradient) - param)


def _epsilon_uncorrected(name: str, param: Any, gradient: Any) -> Any:
    """Epsilon beside the root of the uncorrected second moment, as TensorFlow 1 has it."""
    root = np.sqrt(0.001) * np.abs(gradient)
    return param - LEARNING_RATE * np.sqrt(0.001) * gradient / (root + EPSILON)


COMMON = (
    Mistake(
        name="repeated ids overwrite",
        models=ALL,
        equation="2.1",
        wrong="dT[x] = dE: the last row that read an id sets its gradient",
        right="dT[v] = sum of dE over all places where x = v",
        shows=GRADIENT,
        fix="Add without buffering (np.add.at, index_add_, scatter_add), or sort and sum segments.",
        changes=(adjoint("X", _last_wins),),
    ),
    Mistake(
        name="last field's table gets no gradient",
        models=ALL,
        equation="2.1",
        wrong="dT of the last field = 0",
        right="every field's table collects its own columns of dX",
        shows=GRADIENT,
        fix="Let the loop over fields reach the last one; register its table with the model.",
        changes=(adjoint("X", _last_field_forgotten),),
    ),
    Mistake(
        name="loss summed over the batch",
        models=ALL,
        equation="2.5",
        wrong="L_ce = sum_i [sp(z_i) - y_i z_i]",
        right="L_ce = 1/B sum_i [sp(z_i) - y_i z_i]",
        shows=VALUE,
        fix="Use the mean reduction; a sum makes the step size depend on the batch.",
        changes=(value("ce", SUM_OF_CROSS_ENTROPIES),),
    ),
    Mistake(
        name="loss of positives only",
        models=ALL,
        equation="2.5",
        wrong="L_ce = -1/B sum_i y_i log p_i",
        right="L_ce = -1/B sum_i [y_i log p_i + (1 - y_i) log(1 - p_i)]",
        shows=VALUE,
        fix="Add the term of the negatives; the paper prints the loss without it.",
        changes=(value("ce", POSITIVES_ONLY),),
    ),
    Mistake(
        name="labels exchanged",
        models=ALL,
        equation="2.5",
        wrong="dz = (sigmoid(z) - (1 - y)) / B",
        right="dz = (sigmoid(z) - y) / B",
        shows=VALUE,
        fix="The label is 1 for a conversion.",
        changes=(value("ce", LABELS_EXCHANGED),),
    ),
    Mistake(
        name="sigmoid before a loss on logits",
        models=ALL,
        equation="2.5",
        wrong="L_ce = 1/B sum_i [sp(sigmoid(z_i)) - y_i sigmoid(z_i)]",
        right="L_ce = 1/B sum_i [sp(z_i) - y_i z_i]",
        shows=VALUE,
        fix="Give the loss the logit; it applies the sigmoid itself.",
        changes=(value("ce", Rule(_twice_through_sigmoid, _twice_through_sigmoid_backward)),),
    ),
    Mistake(
        name="gradient of the loss not divided by the batch",
        models=ALL,
        equation="2.5",
        wrong="dz = sigmoid(z) - y",
        right="dz = (sigmoid(z) - y) / B",
        shows=GRADIENT,
        fix="Divide by B in the backward as in the forward.",
        changes=(adjoint("ce", lambda right, dy, y, z, *_: right * len(z)),),
    ),
    Mistake(
        name="squeeze without an axis",
        models=ALL,
        equation="2.5",
        wrong="z = squeeze(Z): a batch of one row loses its batch axis",
        right="z = squeeze(Z, axis=1)",
        shows=VALUE,
        fix="Name the axis: squeeze(1), or index [:, 0].",
        changes=(value("logit", SQUEEZED), value("ce", _of_one_number)),
        n_rows=1,
    ),
    Mistake(
        name="prediction returns a probability",
        models=ALL,
        equation="2.5",
        wrong="prediction = sigmoid(z)",
        right="prediction = z, the logit",
        shows=SERVING,
        fix="Return logits in both modes and apply the sigmoid where probabilities are reported.",
        changes=(value("logit", _probability, in_training=False),),
    ),
    Mistake(
        name="embedding not registered with the optimiser",
        models=ALL,
        equation="2.6",
        wrong="theta' = theta for the tables",
        right="theta' = theta - eta m / (sqrt(v) + epsilon) for every parameter",
        shows=STATE,
        fix="Keep tables in a registered container (nn.ModuleList, not a Python list).",
        update=lambda name, p, g: p if name == "embedding.table" else adam_step(p, g),
        moves="embedding.table",
    ),
    Mistake(
        name="step goes uphill",
        models=ALL,
        equation="2.6",
        wrong="theta' = theta + eta m / (sqrt(v) + epsilon)",
        right="theta' = theta - eta m / (sqrt(v) + epsilon)",
        shows=STATE,
        fix="Subtract the step.",
        update=lambda name, p, g: 2 * p - adam_step(p, g),
        moves="*",
    ),
    Mistake(
        name="first moment not corrected for its start",
        models=ALL,
        equation="2.6",
        wrong="theta' = theta - eta m / (sqrt(v / (1 - beta_2)) + epsilon)",
        right="theta' = theta - eta (m / (1 - beta_1)) / (sqrt(v / (1 - beta_2)) + epsilon)",
        shows=STATE,
        fix="Divide m by 1 - beta_1^t, as v by 1 - beta_2^t.",
        update=_moment_uncorrected,
        moves="*",
    ),
    Mistake(
        name="epsilon beside the uncorrected moment",
        models=ALL,
        equation="2.6",
        wrong="theta' = theta - eta sqrt(1 - beta_2) m / (1 - beta_1) / (sqrt(v) + epsilon)",
        right="theta' = theta - eta m / (1 - beta_1) / (sqrt(v / (1 - beta_2)) + epsilon)",
        shows=STATE,
        fix="Correct v before adding epsilon; TensorFlow 1 and Keras do not.",
        update=_epsilon_uncorrected,
        moves="*",
    ),
)
