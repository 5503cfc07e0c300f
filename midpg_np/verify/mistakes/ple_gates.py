"""Mistakes in the gates of experts (derivations 5.6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.ops import sigmoid
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.ple_rules import SOFTMAX, softmax_of, softmax_over_own
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    reading,
    value,
)

PLE = ("ple",)
WEIGHTS = "level_*.gate_*.w"
LOGITS = "level_*.gate_*.alpha"
MIXTURE = "level_*.G_*"


def _gate(forward: Any, backward: Any) -> Rule:
    """Weights from logits; a gate of scope "own" has the scenarios for another input."""
    return Rule(
        lambda alpha, *_: forward(alpha),
        lambda dw, w, alpha, *rest: (backward(dw, w, alpha), *(None for _ in rest)),
    )


def _softmax(alpha: Any) -> Any:
    return SOFTMAX.forward(alpha)


def _softmax_backward(dw: Any, w: Any) -> Any:
    return SOFTMAX.backward(dw, w, None)[0]


def _twice_backward(dw: Any, w: Any, alpha: Any) -> Any:
    return _softmax_backward(_softmax_backward(dw, w), _softmax(alpha))


NO_SOFTMAX = _gate(lambda alpha: alpha + 0.0, lambda dw, w, alpha: dw)
SIGMOIDS = _gate(lambda alpha: sigmoid(alpha)[0], lambda dw, w, alpha: dw * w * (1.0 - w))
OVER_THE_BATCH = _gate(
    lambda alpha: _softmax(alpha.T).T, lambda dw, w, alpha: _softmax_backward(dw.T, w.T).T
)
TWICE = _gate(lambda alpha: _softmax(_softmax(alpha)), _twice_backward)


def _shared_experts_only(step: Step, model: Any) -> Rule:
    """Softmax over the places at the end of the list."""
    n_shared = model.n_shared

    def forward(alpha: Any, *_: Any) -> Any:
        counts = np.arange(alpha.shape[1]) >= alpha.shape[1] - n_shared
        return softmax_of(alpha, np.broadcast_to(counts, alpha.shape))

    return Rule(forward, step.rule.backward)


def _own_experts_only(step: Step, model: Any) -> Step:
    own = softmax_over_own(model.n_scenarios, model.n_specific, model.n_shared)
    return replace(step, inputs=(step.inputs[0], "scenario"), rule=own)


PLE_GATES = (
    Mistake(
        name="gate without softmax",
        models=PLE,
        equation="5.1",
        wrong="w = alpha",
        right="w = softmax(alpha)",
        shows=VALUE,
        fix="A gate is one affine map and a softmax over its candidates.",
        changes=(value(WEIGHTS, NO_SOFTMAX),),
    ),
    Mistake(
        name="gate with sigmoids in place of softmax",
        models=PLE,
        equation="5.1",
        wrong="w_e = sigmoid(alpha_e)",
        right="w = softmax(alpha)",
        shows=VALUE,
        fix="The weights of a gate add up to 1.",
        changes=(value(WEIGHTS, SIGMOIDS),),
    ),
    Mistake(
        name="gate's softmax over the batch",
        models=PLE,
        equation="2.4",
        wrong="w_be = exp(alpha_be) / sum_b' exp(alpha_b'e)",
        right="w_be = exp(alpha_be) / sum_e' exp(alpha_be')",
        shows=VALUE,
        fix="Normalise over the experts, the last axis: softmax(dim=-1), not dim=0.",
        changes=(value(WEIGHTS, OVER_THE_BATCH),),
    ),
    Mistake(
        name="gate's softmax applied twice",
        models=PLE,
        equation="5.1",
        wrong="w = softmax(softmax(alpha))",
        right="w = softmax(alpha)",
        shows=VALUE,
        fix='Apply it once: a layer with activation="softmax" has done it already.',
        changes=(value(WEIGHTS, TWICE),),
    ),
    Mistake(
        name="shared gate mixes the shared experts only",
        models=PLE,
        equation="5.1",
        wrong="w^s = softmax over the m_s shared experts",
        right="w^s = softmax over all D m_k + m_s experts",
        shows=VALUE,
        fix="The shared stream mixes the experts of every scenario and the shared ones.",
        changes=(value("level_*.gate_s.w", _shared_experts_only),),
    ),
    Mistake(
        name="shared gate leaves other scenarios' experts out",
        models=PLE,
        equation="5.2",
        wrong="w^s_i = softmax over the experts of s_i and the shared ones",
        right="w^s_i = softmax over all D m_k + m_s experts",
        shows=VALUE,
        fix='Mix all experts, or choose shared_gate_scope="own" in both programs.',
        changes=(Change("level_*.gate_s.w", _own_experts_only),),
    ),
    Mistake(
        name="shared gate mixes other scenarios' experts too",
        models=PLE,
        equation="5.2",
        wrong="w^s_i = softmax over all D m_k + m_s experts",
        right="w^s_i = softmax over the experts of s_i and the shared ones",
        shows=VALUE,
        fix='With shared_gate_scope="own" set the logits of other scenarios to -inf.',
        changes=(reading("level_*.gate_s.w", lambda step, _: step.inputs[:1], SOFTMAX),),
        options={"shared_gate_scope": "own"},
    ),
    Mistake(
        name="softmax's derivative without the inner product",
        models=PLE,
        equation="2.4",
        wrong="d alpha = w * dw",
        right="d alpha = w * (dw - <w, dw>)",
        shows=GRADIENT,
        fix="Subtract <w, dw> row by row; where a gate is confident the error is small.",
        changes=(adjoint(WEIGHTS, lambda right, dw, w, *_: w * dw),),
    ),
    Mistake(
        name="gates' weights detached in the mixture",
        models=PLE,
        equation="5.3",
        wrong="dw_e = 0",
        right="dw_e = <dG, S_e>",
        shows=GRADIENT,
        fix="Gates learn through their weights: no detach, no argmax, no sampling in between.",
        changes=(dropped(MIXTURE, 0),),
    ),
    Mistake(
        name="input detached in front of the gates",
        models=PLE,
        equation="5.3",
        wrong="dG^{j-1} from the experts only",
        right="dG^{j-1} += d alpha W_g^T",
        shows=GRADIENT,
        fix="A stream is read by its experts and by its gate: add both adjoints.",
        changes=(dropped(LOGITS, 0),),
    ),
)
