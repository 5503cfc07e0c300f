"""Mistakes in the generators and in the weighted product of a layer (derivations 3.9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import STOP, activation
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    value,
)

DPG = ("dpg", "midpg")


def _generators_read_h(model: Any) -> bool:
    return bool(model.dwm_inputs == "both")


def _has_second_copy(model: Any) -> bool:
    return bool(model.dwm_inputs == "both" and not model.dedup_first)


# --- generators and their input -------------------------------------------------------------------


def _identity_of(step: Step, model: Any) -> Rule:
    return activation("identity")


def _rectified(step: Step, _: Any) -> Rule:
    """Reshape of the rectified generator's output."""
    return Rule(
        lambda x: step.rule.forward(np.where(x.real > 0, x, 0.0)),
        lambda dy, _, x: (dy.reshape(x.shape) * (x.real > 0),),
    )


def _second_copy(right: Any, dU: Any, U: Any, E_aw: Any, H: Any) -> Any:
    wrong = right.copy()
    wrong[:, : E_aw.shape[1]] = 0.0
    return wrong


def _backbone_context(step: Step, model: Any) -> Step:
    def wrong(right: Any, *_: Any) -> Any:
        part = right.copy()
        part[:, : model.dim_aware] = 0.0
        return part

    return adjoint("*", wrong, 1).make(step, model)


GENERATORS = (
    Mistake(
        name="hidden state detached in front of the generators",
        models=DPG,
        equation="3.4",
        wrong="dH = (S * W) dA",
        right="dH = (S * W) dA + dU^h",
        shows=GRADIENT,
        fix="H reaches the loss through its product and through every generator of its layer.",
        changes=(dropped("*.U", 1),),
        applies=_generators_read_h,
    ),
    Mistake(
        name="context detached in front of the generators",
        models=DPG,
        equation="3.4",
        wrong="dE_aw without dU^e",
        right="dE_aw += dU^e for every generator",
        shows=GRADIENT,
        fix="Do not detach E_aw: every generator trains the tables of the context.",
        changes=(dropped("*.U", 0),),
    ),
    Mistake(
        name="second copy of the context forgotten",
        models=DPG,
        equation="3.4",
        wrong="dX from the first generator without its first d_aw columns",
        right="U = [E_aw, X] with X = [E_aw, E_ag]: both copies of E_aw send an adjoint",
        shows=GRADIENT,
        fix="Add both column blocks of dU at the first layer.",
        changes=(adjoint("layer_1.U", _second_copy, 1),),
        applies=_has_second_copy,
    ),
    Mistake(
        name="context detached in the backbone's input",
        models=DPG,
        equation="3.4",
        wrong="dE_aw without the first d_aw columns of dH^1",
        right="dE_aw += first d_aw columns of dH^1",
        shows=GRADIENT,
        fix="E_aw is an input of the backbone too.",
        changes=(Change("layer_1.product", _backbone_context, (1,)),),
    ),
    Mistake(
        name="detach in front of the generators missing",
        models=DPG,
        equation="3.8",
        wrong="U = [E_aw, H]",
        right="U = [E_aw, sg(H)]",
        shows=GRADIENT,
        fix="With dwm_detach_h the generator reads H.detach().",
        changes=(
            Change(
                "*.sg_H",
                lambda step, model: replace(
                    step, rule=replace(STOP, backward=lambda dy, _, x: (dy,))
                ),
                (0,),
            ),
        ),
        options={"dwm_detach_h": True},
    ),
    Mistake(
        name="generator without its hidden ReLU",
        models=DPG,
        equation="3.2",
        wrong="G(U) = (U W_1 + b_1) W_2 + b_2",
        right="G(U) = ReLU(U W_1 + b_1) W_2 + b_2",
        shows=VALUE,
        fix="Put a ReLU between the generator's layers.",
        changes=(value("*_generator.H_*", _identity_of),),
    ),
    Mistake(
        name="ReLU behind the generator",
        models=DPG,
        equation="3.2",
        wrong="S_R = reshape(ReLU(G(U)))",
        right="S_R = reshape(G(U))",
        shows=VALUE,
        fix="The generator's last layer is linear; with a ReLU a core could only be above 1/2.",
        changes=(value("*.S_[RC]", _rectified),),
    ),
)

# --- product --------------------------------------------------------------------------------------


def _mean_matrix(S: Any, W: Any) -> Any:
    return np.broadcast_to(S.mean(axis=0) * W, S.shape)


def _mean_matrix_backward(dy: Any, _: Any, S: Any, W: Any) -> tuple[Any, ...]:
    total = dy.sum(axis=0)
    return np.broadcast_to(total * W / len(S), S.shape), total * S.mean(axis=0)


def _bias_weighted_too(step: Step, model: Any) -> Step:
    """Return the step A = (S * W)^T H + mean_i(S_ij) b."""
    product, bias = step.inputs
    axis = 1 if model.w_layout == "in_out" else 2

    def backward(dA: Any, _: Any, product: Any, b: Any, S: Any) -> tuple[Any, ...]:
        dm = np.expand_dims(dA * b, axis) / S.shape[axis]
        return dA, (dA * S.mean(axis=axis)).sum(axis=0), np.broadcast_to(dm, S.shape)

    rule = Rule(lambda product, b, S: product + b * S.mean(axis=axis), backward)
    return replace(step, inputs=(product, bias, f"{step.output.removesuffix('.A')}.S"), rule=rule)


PRODUCT = (
    Mistake(
        name="weighting matrix added to the weights",
        models=DPG,
        equation="3.2",
        wrong="A = (S + W)^T H + b",
        right="A = (S * W)^T H + b",
        shows=VALUE,
        fix="The weighting multiplies entry by entry.",
        changes=(
            value(
                "*.SW",
                Rule(lambda S, W: S + W, lambda dy, _, S, W: (dy, dy.sum(axis=0))),
            ),
        ),
    ),
    Mistake(
        name="one weighting matrix for the whole batch",
        models=DPG,
        equation="3.2",
        wrong="A_b = (mean_b(S_b) * W)^T H_b + b",
        right="A_b = (S_b * W)^T H_b + b",
        shows=VALUE,
        fix="Every row has its own S: use a batched product.",
        changes=(value("*.SW", Rule(_mean_matrix, _mean_matrix_backward)),),
    ),
    Mistake(
        name="gradient of W with the mean of S",
        models=DPG,
        equation="3.4",
        wrong="dW = mean_b(S_b) * sum_b H_b dA_b^T",
        right="dW = sum_b S_b * (H_b dA_b^T)",
        shows=GRADIENT,
        fix="Weight every row's outer product by its own S before the sum.",
        changes=(adjoint("*.SW", lambda right, dy, _, S, W: S.mean(axis=0) * dy.sum(axis=0), 1),),
    ),
    Mistake(
        name="gradient of W without S",
        models=DPG,
        equation="3.4",
        wrong="dW = sum_b H_b dA_b^T",
        right="dW = sum_b S_b * (H_b dA_b^T)",
        shows=GRADIENT,
        fix="dW carries the factor S_b that W carried in the forward.",
        changes=(adjoint("*.SW", lambda right, dy, _, S, W: dy.sum(axis=0), 1),),
    ),
    Mistake(
        name="weighting matrix detached in the product",
        models=DPG,
        equation="3.4",
        wrong="dS = 0",
        right="dS_bij = W_ij H_bi dA_bj",
        shows=GRADIENT,
        fix="S is generated by parameters: do not detach it or compute it without gradient.",
        changes=(dropped("*.SW", 0),),
    ),
    Mistake(
        name="bias weighted though it should not be",
        models=DPG,
        equation="3.8",
        wrong="A = (S * W)^T H + mean_i(S_ij) b",
        right="A = (S * W)^T H + b",
        shows=VALUE,
        fix="Equation (1) weighs W only; the weighted bias is the option modulate_bias.",
        changes=(Change("*.A", _bias_weighted_too),),
        applies=lambda model: not model.modulate_bias,
    ),
)

WEIGHTED_LAYER = (*GENERATORS, *PRODUCT)
