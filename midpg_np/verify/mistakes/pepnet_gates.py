"""Mistakes in PEPNet's gates and in what they multiply (derivations 7.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midpg_np.ops import ACTIVATIONS, sigmoid
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import ADD, activation, scaled_sigmoid
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    only_where,
    value,
)

PEPNET = ("pepnet",)
TANH = {"activation": "tanh"}


def gates_embeddings(step: Step, _: Any) -> bool:
    """Whether a step multiplies the gate with E; with agnostic inputs, O only joins."""
    return "epnet.delta" in step.inputs


def _gamma_inside(step: Step, model: Any) -> Rule:
    """sigmoid(gamma A)."""
    gamma = model.gamma
    return Rule(
        lambda A: sigmoid(gamma * A)[0],
        lambda dy, y, A: (dy * gamma * y * (1.0 - y),),
    )


def _gamma_left_out(right: Any, d_delta: Any, _: Any, A: Any) -> Any:
    y = sigmoid(A)[0]
    return d_delta * y * (1.0 - y)


ONE_MORE = Rule(
    lambda delta, R: (1.0 + delta) * R,
    lambda dy, _, delta, R: (dy * R, dy * (1.0 + delta)),
)
UNGATED = Rule(lambda delta, R: R + 0.0, lambda dy, _, delta, R: (None, dy))


def _is_last_hidden(step: Step, model: Any) -> bool:
    return step.output == f"H_{len(model.hidden) + 1}"


def _before_activation(step: Step, model: Any) -> Step:
    """H = act(delta A)."""
    R = step.inputs[1]
    if not R.startswith("R_"):  # O has no activation
        return step
    act = activation(model.activation)

    def forward(delta: Any, R: Any, A: Any) -> Any:
        return act.forward(delta * A)

    def backward(dy: Any, y: Any, delta: Any, R: Any, A: Any) -> tuple[Any, ...]:
        (d_product,) = act.backward(dy, y, delta * A)
        return d_product * A, None, d_product * delta

    return replace(step, inputs=(*step.inputs, R.replace("R", "A")), rule=Rule(forward, backward))


def _activated(step: Step, model: Any) -> Rule:
    """Put the tower's activation behind its last map as well."""
    act, right = ACTIVATIONS[model.activation], step.rule

    def backward(dz: Any, _: Any, *inputs: Any) -> tuple[Any, ...]:
        A = right.forward(*inputs)
        return right.backward(act.backward(dz, act.forward(A)[1]), A, *inputs)

    return Rule(lambda *inputs: act.forward(right.forward(*inputs))[0], backward)


GATES = (
    Mistake(
        name="gamma inside the gate's sigmoid",
        models=PEPNET,
        equation="7.1",
        wrong="delta = sigmoid(gamma A_2)",
        right="delta = gamma sigmoid(A_2)",
        shows=VALUE,
        fix="Multiply after the sigmoid: a gate at rest must be gamma / 2 = 1.",
        changes=(value("*.delta", _gamma_inside),),
    ),
    Mistake(
        name="gates without gamma",
        models=PEPNET,
        equation="7.1",
        wrong="delta = sigmoid(A_2)",
        right="delta = gamma sigmoid(A_2)",
        shows=VALUE,
        fix="Multiply the sigmoid by gamma = 2; otherwise a gate at rest halves what it gates.",
        changes=(value("*.delta", scaled_sigmoid(1.0)),),
    ),
    Mistake(
        name="gate without its hidden ReLU",
        models=PEPNET,
        equation="7.1",
        wrong="delta = gamma sigmoid((U W_1 + b_1) W_2 + b_2)",
        right="delta = gamma sigmoid(ReLU(U W_1 + b_1) W_2 + b_2)",
        shows=VALUE,
        fix="Put a ReLU between the gate's two layers; without it they are one.",
        changes=(value("*.R", activation("identity")),),
    ),
    Mistake(
        name="gate with the tower's activation",
        models=PEPNET,
        equation="7.1",
        wrong="delta = gamma sigmoid(act(U W_1 + b_1) W_2 + b_2)",
        right="delta = gamma sigmoid(ReLU(U W_1 + b_1) W_2 + b_2)",
        shows=VALUE,
        fix="A gate keeps ReLU, whatever the tower has.",
        changes=(value("*.R", lambda step, model: activation(model.activation)),),
        options=TANH,
    ),
    Mistake(
        name="gate inside the activation",
        models=PEPNET,
        equation="7.1",
        wrong="H^{l+1} = act(delta^l A^l)",
        right="H^{l+1} = delta^l act(A^l)",
        shows=VALUE,
        fix="Gate what the layer puts out, after its activation; only ReLU hides the difference.",
        changes=(Change("H_*", _before_activation),),
        options=TANH,
    ),
    Mistake(
        name="gate added to the hidden vector",
        models=PEPNET,
        equation="7.1",
        wrong="H^{l+1} = delta^l + R^l",
        right="H^{l+1} = delta^l R^l",
        shows=VALUE,
        fix="Multiply, unit by unit.",
        changes=(value("H_*", ADD),),
    ),
    Mistake(
        name="gate on top of a residual connection",
        models=PEPNET,
        equation="7.1",
        wrong="H^{l+1} = R^l + delta^l R^l",
        right="H^{l+1} = delta^l R^l",
        shows=VALUE,
        fix="Leave the residual out: with gamma = 2 a gate at rest is 1 already.",
        changes=(value("H_*", ONE_MORE),),
    ),
    Mistake(
        name="last hidden layer not gated",
        models=PEPNET,
        equation="7.1",
        wrong="H^{L+1} = R^L",
        right="H^{L+1} = delta^L R^L",
        shows=VALUE,
        fix="Every hidden layer has a gate; only the last map has none behind it.",
        changes=(only_where(_is_last_hidden, value("H_*", UNGATED)),),
    ),
    Mistake(
        name="tower's activation on the logit",
        models=PEPNET,
        equation="7.1",
        wrong="z = act(H^{L+1} W^{L+1} + b^{L+1})",
        right="z = H^{L+1} W^{L+1} + b^{L+1}",
        shows=VALUE,
        fix="The last map has neither activation nor gate.",
        changes=(value("z", _activated),),
        options=TANH,
    ),
    Mistake(
        name="gate's adjoint takes gamma for 1",
        models=PEPNET,
        equation="7.3",
        wrong="dA_2 = d_delta delta (1 - delta)",
        right="dA_2 = d_delta delta (1 - delta / gamma)",
        shows=GRADIENT,
        fix="The sigmoid is delta / gamma; 1 - delta is near 0 where a gate is at rest.",
        changes=(adjoint("*.delta", lambda right, dy, y, A: dy * y * (1.0 - y)),),
    ),
    Mistake(
        name="gamma left out of the gate's adjoint",
        models=PEPNET,
        equation="7.3",
        wrong="dA_2 = d_delta sigmoid(A_2) (1 - sigmoid(A_2))",
        right="dA_2 = d_delta gamma sigmoid(A_2) (1 - sigmoid(A_2))",
        shows=GRADIENT,
        fix="The factor outside the sigmoid multiplies its derivative too.",
        changes=(adjoint("*.delta", _gamma_left_out),),
    ),
    Mistake(
        name="gates detached from the loss",
        models=PEPNET,
        equation="7.3",
        wrong="O = sg(delta_dom) E, H^{l+1} = sg(delta^l) R^l",
        right="O = delta_dom E, H^{l+1} = delta^l R^l",
        shows=GRADIENT,
        fix="Detach a part of the gate's input, not what it puts out: its weights must learn.",
        changes=(
            only_where(gates_embeddings, dropped("O", 0)),
            dropped("E_gated", 0),
            dropped("H_*", 0),
        ),
    ),
    Mistake(
        name="gate's adjoint from what it has multiplied",
        models=PEPNET,
        equation="7.3",
        wrong="d_delta^l = dH^{l+1} H^{l+1}",
        right="d_delta^l = dH^{l+1} R^l",
        shows=GRADIENT,
        fix="Keep R from before the product; a product in place overwrites it.",
        changes=(adjoint("H_*", lambda right, dH, H, *_: dH * H),),
    ),
)
