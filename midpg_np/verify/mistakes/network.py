"""Mistakes in plain layers: the backbone of DNN, DPG and MI-DPG (derivations 2.2, 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import AFFINE, activation
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    only_where,
    value,
)

BACKBONES = ("dnn", "dpg", "midpg")
HIDDEN = ("H_*", "mlp.H_*")  # in DPG and MI-DPG, in DNN
BIASES = (("mlp.A_*", 2), ("mlp.output", 2), ("z", 2), ("*.A", 1))


def _activated_logit(step: Step, model: Any) -> Rule:
    """Return the rule act(z), (B, 1) -> (B,)."""
    act = activation(model.activation)

    def backward(dy: Any, _: Any, z: Any) -> tuple[Any, ...]:
        return act.backward(dy[:, None], None, z)

    return Rule(lambda z: act.forward(z)[:, 0], backward)


def _reads_x(step: Step, model: Any) -> bool:
    return "X" in step.inputs


def _without_context(step: Step, model: Any) -> Step:
    """Let the first layer read X with zeros in place of E_aw."""
    n = model.n_aware * model.dim_embedding

    def cleared(X: Any) -> Any:
        return np.concatenate([0.0 * X[:, :n], X[:, n:]], axis=1)

    def backward(dA: Any, A: Any, X: Any, W: Any, b: Any) -> tuple[Any, ...]:
        dX, dW, db = AFFINE.backward(dA, A, cleared(X), W, b)
        return cleared(dX), dW, db

    rule = Rule(lambda X, W, b: AFFINE.forward(cleared(X), W, b), backward)
    return replace(step, rule=rule)


NETWORK = (
    Mistake(
        name="backbone without activations",
        models=BACKBONES,
        equation="2.2",
        wrong="H^{l+1} = A^l",
        right="H^{l+1} = ReLU(A^l)",
        shows=VALUE,
        fix="Apply the activation after each hidden layer.",
        changes=tuple(value(at, activation("identity")) for at in HIDDEN),
        applies=lambda model: model.activation != "identity",
    ),
    Mistake(
        name="activation's derivative forgotten",
        models=BACKBONES,
        equation="2.2",
        wrong="dA = dH^{l+1}",
        right="dA = dH^{l+1} * 1[A > 0]",
        shows=GRADIENT,
        fix="Units that were off send nothing back.",
        changes=tuple(adjoint(at, lambda right, dH, *_: dH + 0.0) for at in HIDDEN),
    ),
    Mistake(
        name="activation behind the logit",
        models=BACKBONES,
        equation="2.2",
        wrong="z = act(H w + b)",
        right="z = H w + b",
        shows=VALUE,
        fix="The last layer has no activation: a logit may be negative.",
        changes=(value("logit", _activated_logit),),
        options={"activation": "tanh"},  # a ReLU shows where a logit is negative
    ),
    Mistake(
        name="gradient of the biases averaged over the batch",
        models=BACKBONES,
        equation="2.2",
        wrong="db = 1/B sum_b dA_b",
        right="db = sum_b dA_b",
        shows=GRADIENT,
        fix="1/B is in the loss already: the adjoint of a bias is a column sum.",
        changes=tuple(adjoint(at, lambda right, dA, *_: right / len(dA), of) for at, of in BIASES),
        applies=lambda model: not getattr(model, "modulate_bias", False),
    ),
    Mistake(
        name="scenario-aware fields left out of the input",
        models=("dnn",),
        equation="4",
        wrong="A^1 = [0, E_ag] W + b",
        right="A^1 = [E_aw, E_ag] W + b",
        shows=VALUE,
        fix="Feed all fields: a comparison with models that see the scenario is unfair otherwise.",
        changes=(only_where(_reads_x, Change("mlp.[Ao]*", _without_context)),),
    ),
)
