"""Mistakes in the core of a weighting matrix and in its repetition (derivations 3.9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.ops import sigmoid
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import MATMUL, scale, scaled_sigmoid
from midpg_np.verify.longhand.weighting import repeat
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    value,
)

DPG = ("dpg", "midpg")


def _has_sigmoid_on_core(model: Any) -> bool:
    return bool(model.variant == "non" or model.sigmoid_on == "product")


def _has_sigmoid_on_product(model: Any) -> bool:
    return bool(model.variant != "non" and model.sigmoid_on == "product")


# --- repeat ---------------------------------------------------------------------------------------


def _other_mode(step: Step, model: Any) -> Rule:
    """Block for tile and tile for block."""
    name = step.output.removeprefix("mi.").removesuffix(".S")
    mode = "tile" if model.repeat_mode == "block" else "block"
    d_m, d_n = model.layers[name].w_shape
    return repeat(d_m, d_n, mode)


def _other_adjoint(step: Step, model: Any) -> Step:
    wrong = _other_mode(step, model)
    return replace(step, rule=replace(step.rule, backward=wrong.backward))


def _one_copy(step: Step, model: Any) -> Step:
    """Adjoint of the copies as if only the first of each were there."""

    def wrong(right: Any, dS: Any, S: Any, Q: Any) -> Any:
        d_r, d_c = Q.shape[1:]
        if model.repeat_mode == "tile":
            return dS[:, :d_r, :d_c]
        return dS[:, :: S.shape[1] // d_r, :: S.shape[2] // d_c]

    return adjoint("*", wrong).make(step, model)


REPEAT = (
    Mistake(
        name="core tiled in place of repeated",
        models=DPG,
        equation="3.2",
        wrong="S_ij = Q at (i mod d_r, j mod d_c)",
        right="S_ij = Q at (i // f_r, j // f_c)",
        shows=VALUE,
        fix="Repeat elements (repeat_interleave, np.repeat); tile repeats the whole core.",
        changes=(value("*.S", _other_mode),),
    ),
    Mistake(
        name="adjoint of repeat averaged",
        models=DPG,
        equation="3.4",
        wrong="dQ_rc = mean of dS_ij over the copies",
        right="dQ_rc = sum of dS_ij over the copies",
        shows=GRADIENT,
        fix="Copying has summation as its adjoint; the error is the factor f_r f_c.",
        changes=(adjoint("*.S", lambda right, dS, S, Q: right * Q.size / S.size),),
    ),
    Mistake(
        name="adjoint of repeat reads one copy",
        models=DPG,
        equation="3.4",
        wrong="dQ_rc = dS_ij of the first copy",
        right="dQ_rc = sum of dS_ij over the copies",
        shows=GRADIENT,
        fix="Sum over the copies: reshape to (d_r, f_r, d_c, f_c) and sum over both f.",
        changes=(Change("*.S", _one_copy, (0,)),),
    ),
    Mistake(
        name="adjoint of repeat in the other layout",
        models=DPG,
        equation="3.4",
        wrong="dQ_rc = sum of dS_ij over i = r mod d_r, j = c mod d_c",
        right="dQ_rc = sum of dS_ij over i // f_r = r, j // f_c = c",
        shows=GRADIENT,
        fix="Sum what the forward copied: blocks for repeat, strides for tile.",
        changes=(Change("*.S", _other_adjoint, (0,)),),
    ),
)

# --- core and factors -----------------------------------------------------------------------------


def _gain_inside(step: Step, model: Any) -> Rule:
    """sigmoid(gain P)."""
    return Rule(
        lambda P: sigmoid(model.gain * P)[0],
        lambda dQ, Q, P: (dQ * model.gain * Q * (1.0 - Q),),
    )


def _sigmoid_of_factors(left: Any, right: Any) -> Any:
    return sigmoid(left)[0] @ sigmoid(right)[0]


def _sigmoid_of_factors_backward(dP: Any, _: Any, left: Any, right: Any) -> tuple[Any, ...]:
    s, t = sigmoid(left)[0], sigmoid(right)[0]
    ds, dt = MATMUL.backward(dP, None, s, t)
    return ds * s * (1 - s), dt * t * (1 - t)


def _other_order(x: Any, dims: tuple[int, int]) -> Any:
    """Fill a factor column by column."""
    return np.swapaxes(x.reshape(len(x), *reversed(dims)), 1, 2)


def _filled_by_columns(step: Step, _: Any) -> Rule:
    """Rule of a factor that takes the generator's output column by column."""

    def forward(x: Any) -> Any:
        return _other_order(x, step.rule.forward(x).shape[1:])

    def backward(dy: Any, _: Any, x: Any) -> tuple[Any, ...]:
        return (np.swapaxes(dy, 1, 2).reshape(x.shape),)

    return Rule(forward, backward)


def _shared_averaged(name: str, of: int, variant: str) -> Mistake:
    return Mistake(
        name=f"gradient of {name} averaged over the batch",
        models=DPG,
        equation="3.4",
        wrong=f"d{name} = 1/B sum_b (...)",
        right=f"d{name} = sum_b (...)",
        shows=GRADIENT,
        fix="1/B is in the loss already: the adjoint of what all rows share is a sum.",
        changes=(adjoint("*.P", lambda right, dP, *_: right / len(dP), of),),
        options={"variant": variant},
        applies=lambda model: model.variant == variant,
    )


CORE = (
    Mistake(
        name="sigmoid missing on the core",
        models=DPG,
        equation="3.2",
        wrong="Q = gain P",
        right="Q = gain sigmoid(P)",
        shows=VALUE,
        fix="Apply the sigmoid to P before it is repeated.",
        changes=(value("*.Q", lambda step, model: scale(model.gain)),),
        applies=_has_sigmoid_on_core,
    ),
    Mistake(
        name="tanh in place of the sigmoid on the core",
        models=DPG,
        equation="3.2",
        wrong="Q = gain tanh(P)",
        right="Q = gain sigmoid(P)",
        shows=VALUE,
        fix="Weights lie in (0, gain): use the sigmoid.",
        changes=(
            value(
                "*.Q",
                lambda step, model: Rule(
                    lambda P: model.gain * np.tanh(P),
                    lambda dQ, Q, P: (dQ * (model.gain - Q**2 / model.gain),),
                ),
            ),
        ),
        applies=_has_sigmoid_on_core,
    ),
    Mistake(
        name="sigmoid on the factors in place of their product",
        models=DPG,
        equation="3.8",
        wrong="Q = gain sigmoid(S_R) sigmoid(S_C)",
        right="Q = gain sigmoid(S_R S_C)",
        shows=VALUE,
        fix="Multiply the factors first; the sigmoid comes after the product (3)-(5).",
        changes=(
            value("*.P", Rule(_sigmoid_of_factors, _sigmoid_of_factors_backward)),
            value("*.Q", lambda step, model: scale(model.gain)),
        ),
        applies=_has_sigmoid_on_product,
    ),
    Mistake(
        name="gain forgotten",
        models=DPG,
        equation="3.2",
        wrong="Q = sigmoid(P)",
        right="Q = gain sigmoid(P)",
        shows=VALUE,
        fix="Multiply the sigmoid by the gain.",
        changes=(value("*.Q", scaled_sigmoid(1.0)),),
        options={"gain": 2.0},
    ),
    Mistake(
        name="gain inside the core's sigmoid",
        models=DPG,
        equation="3.2",
        wrong="Q = sigmoid(gain P)",
        right="Q = gain sigmoid(P)",
        shows=VALUE,
        fix="The gain stands outside: it sets the range (0, gain).",
        changes=(value("*.Q", _gain_inside),),
        options={"gain": 2.0},
        applies=_has_sigmoid_on_core,
    ),
    Mistake(
        name="sigmoid's derivative without the gain",
        models=DPG,
        equation="2.3",
        wrong="dP = dQ Q (1 - Q)",
        right="dP = dQ Q (1 - Q / gain)",
        shows=GRADIENT,
        fix="With Q = gain sigmoid(P) the derivative is Q (1 - Q / gain).",
        changes=(adjoint("*.Q", lambda right, dQ, Q, P: dQ * Q * (1 - Q)),),
        options={"gain": 2.0},
    ),
    Mistake(
        name="sigmoid's derivative forgotten",
        models=DPG,
        equation="2.3",
        wrong="dP = dQ",
        right="dP = dQ Q (1 - Q / gain)",
        shows=GRADIENT,
        fix="Multiply by the derivative of the sigmoid.",
        changes=(adjoint("*.Q", lambda right, dQ, Q, P: dQ + 0.0),),
    ),
    _shared_averaged("C_share", 1, "r"),
    _shared_averaged("R_share", 0, "c"),
    Mistake(
        name="generated factor filled by columns",
        models=DPG,
        equation="3.2",
        wrong="S_R = reshape(G(U), (d_k, d_r))^T",
        right="S_R = reshape(G(U), (d_r, d_k)), row by row",
        shows=VALUE,
        fix="Reshape to (B, d_r, d_k) in row-major order; checkpoints are exchanged in it.",
        changes=(value("*.S_[RC]", _filled_by_columns),),
        options={"d_k": 2},
    ),
)

WEIGHTING_CORE = (*REPEAT, *CORE)
