"""Mistakes of models that send each row through weights of its scenario (derivations 2.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import activation
from midpg_np.verify.mistakes.mistake import SERVING, VALUE, Mistake, reading, value

ROUTED = ("ple", "star")
MAPS = ("G_own", "tower.A_*", "tower.output", "star.A_*", "z_main")
"""Steps that read a row's scenario to choose its weights or its stream."""


def with_ids(change: Callable[[Any], Any]) -> Callable[[Step, Any], Rule]:
    """Return a rule maker: the same operation with other scenario ids, its last input."""

    def make(step: Step, _: Any) -> Rule:
        return Rule(
            lambda *inputs: step.rule.forward(*inputs[:-1], change(inputs[-1])),
            lambda dy, y, *inputs: step.rule.backward(dy, y, *inputs[:-1], change(inputs[-1])),
        )

    return make


def activated(step: Step, model: Any) -> Rule:
    """Put the model's activation behind an operation."""
    act = activation(model.activation)

    def backward(dy: Any, _: Any, *inputs: Any) -> tuple[Any, ...]:
        A = step.rule.forward(*inputs)
        return step.rule.backward(*act.backward(dy, None, A), A, *inputs)

    return Rule(lambda *inputs: act.forward(step.rule.forward(*inputs)), backward)


def place_among_present(scenario: Any) -> Any:
    """Return ids 0, 1, ... for the scenarios of the batch, whichever they are."""
    return np.unique(scenario, return_inverse=True)[1]


def _sorted_rows(scenario: Any) -> Any:
    return np.argsort(scenario, kind="stable")


def _left_sorted_backward(dy: Any, _: Any, z: Any, scenario: Any) -> tuple[Any, ...]:
    dz = np.zeros_like(z)
    dz[_sorted_rows(scenario), 0] = dy
    return dz, None


LEFT_SORTED = Rule(lambda z, scenario: z[_sorted_rows(scenario), 0], _left_sorted_backward)

BY_SCENARIO = (
    Mistake(
        name="logits left in the order of the scenarios",
        models=ROUTED,
        equation="2.7",
        wrong="z = [z of the rows of scenario 0, z of the rows of scenario 1, ...]",
        right="z_i belongs to row i of the batch",
        shows=VALUE,
        fix="Write the logits back to their rows (z[rows] = ..., index_copy) in place of cat.",
        changes=(reading("logit", lambda step, _: (step.inputs[0], "scenario"), LEFT_SORTED),),
    ),
    Mistake(
        name="weights by place among the scenarios present",
        models=ROUTED,
        equation="2.7",
        wrong="A_i = H_i W_m + b_m, the m-th scenario of the batch being s_i",
        right="A_i = H_i W_d + b_d with d = s_i",
        shows=VALUE,
        fix="Index with the ids that unique returns, not with its inverse or a loop counter.",
        changes=tuple(value(at, with_ids(place_among_present)) for at in MAPS),
    ),
    Mistake(
        name="prediction with the weights of scenario 0",
        models=ROUTED,
        equation="2.7",
        wrong="A_i = H_i W_0 + b_0 in prediction",
        right="A_i = H_i W_d + b_d with d = s_i",
        shows=SERVING,
        fix="Send the scenario with each request; a missing id must not fall back to 0.",
        changes=tuple(
            value(at, with_ids(lambda scenario: 0 * scenario), in_training=False) for at in MAPS
        ),
    ),
)
