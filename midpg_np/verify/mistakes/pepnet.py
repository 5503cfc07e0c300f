"""Mistakes in PEPNet: what its gates read, who learns from them, towers (derivations 7.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.pepnet_rules import TOWER_AFFINE, fields
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    only_where,
    reading,
    value,
)
from midpg_np.verify.mistakes.pepnet_gates import GATES, PEPNET, UNGATED, gates_embeddings

TOWERS = {"towers": "per_scenario"}


def _passed(right: Any, dy: Any, *_: Any) -> Any:
    return dy


# --- what the gates read, and who learns from it --------------------------------------------------


def _other_order(step: Step, _: Any) -> tuple[str, ...]:
    return step.inputs[::-1]


def _reads(name: str) -> Callable[[Step, Any], bool]:
    return lambda step, _: name in step.inputs


def _is_later_gate(step: Step, model: Any) -> bool:
    first = next(iter(model.ppnet.gates))
    return not step.output.startswith(first + ".")


def _kernel_from_ungated(step: Step, _: Any) -> Step:
    """dW from R, which enters the gate, in place of H, which leaves it."""
    H, *others = step.inputs
    number = int(H.removeprefix("H_")) if H.startswith("H_") else 0
    if not number:  # O has no gate behind it
        return step
    R = f"R_{number - 1}" if number > 1 else "O"
    right = step.rule

    def backward(dA: Any, A: Any, *inputs: Any) -> tuple[Any, ...]:
        *own, R = inputs
        dH, _, *rest = right.backward(dA, A, *own)
        return dH, right.backward(dA, A, R, *own[1:])[1], *rest, None

    rule = Rule(lambda *inputs: right.forward(*inputs[:-1]), backward)
    return replace(step, inputs=(H, *others, R), rule=rule)


INPUTS = (
    Mistake(
        name="EPNet's gate not applied",
        models=PEPNET,
        equation="7.1",
        wrong="O = E",
        right="O = delta_dom E",
        shows=VALUE,
        fix="Give the tower the scaled embeddings, not the ones that were looked up.",
        changes=(only_where(gates_embeddings, value("O", UNGATED)), value("E_gated", UNGATED)),
    ),
    Mistake(
        name="domain behind the embeddings",
        models=PEPNET,
        equation="7.1",
        wrong="U_dom = [sg(E), E_dom]",
        right="U_dom = [E_dom, sg(E)]",
        shows=VALUE,
        fix="Concatenate the domain first, or permute the rows of W_1 when weights are copied.",
        changes=(reading("U_dom", _other_order),),
    ),
    Mistake(
        name="prior behind the embeddings",
        models=PEPNET,
        equation="7.1",
        wrong="U = [sg(O), E_prior]",
        right="U = [E_prior, sg(O)]",
        shows=VALUE,
        fix="Concatenate the prior first, or permute the rows of W_1 when weights are copied.",
        changes=(reading("U", _other_order),),
    ),
    Mistake(
        name="PPNet reads the embeddings before EPNet",
        models=PEPNET,
        equation="7.1",
        wrong="U = [E_prior, sg(X)]",
        right="U = [E_prior, sg(O)]",
        shows=VALUE,
        fix="The gates of the tower read what EPNet has scaled.",
        changes=(reading("sg_O", lambda step, model: ("X",)),),
    ),
    Mistake(
        name="prior's fields in sorted order",
        models=PEPNET,
        equation="7.2",
        wrong="E_prior = [E_f for f in sorted(prior_fields)]",
        right="E_prior = [E_f for f in prior_fields]",
        shows=VALUE,
        fix="Pick fields by their numbers in order; a mask over the fields sorts them.",
        changes=(
            value("E_prior", lambda step, model: fields(sorted(model.priors), model.dim_embedding)),
        ),
        options={"prior_fields": (2, 0)},
    ),
    Mistake(
        name="stop-gradient on E missing",
        models=PEPNET,
        equation="7.3",
        wrong="delta_dom = g([E_dom, E])",
        right="delta_dom = g([E_dom, sg(E)])",
        shows=GRADIENT,
        fix="EPNet's gate reads E.detach() (tf.stop_gradient, lax.stop_gradient).",
        changes=(adjoint("sg_E", _passed),),
    ),
    Mistake(
        name="stop-gradient on O missing",
        models=PEPNET,
        equation="7.3",
        wrong="U = [E_prior, O]",
        right="U = [E_prior, sg(O)]",
        shows=GRADIENT,
        fix="The gates of the tower read O.detach() (tf.stop_gradient, lax.stop_gradient).",
        changes=(adjoint("sg_O", _passed),),
    ),
    Mistake(
        name="domain detached as well",
        models=PEPNET,
        equation="7.3",
        wrong="U_dom = sg([E_dom, E])",
        right="U_dom = [E_dom, sg(E)]",
        shows=GRADIENT,
        fix="Detach before concatenating, and only E: the domain learns through its gate.",
        changes=(dropped("U_dom", 0),),
    ),
    Mistake(
        name="prior detached as well",
        models=PEPNET,
        equation="7.3",
        wrong="U = sg([E_prior, O])",
        right="U = [E_prior, sg(O)]",
        shows=GRADIENT,
        fix="Detach before concatenating, and only O: the prior learns through the gates.",
        changes=(dropped("U", 0),),
    ),
    Mistake(
        name="prior learns from the first gate only",
        models=PEPNET,
        equation="7.3",
        wrong="dE_prior = dU^1",
        right="dE_prior = sum_l dU^l",
        shows=GRADIENT,
        fix="All gates read the same prior: add their adjoints, do not overwrite in the loop.",
        changes=(only_where(_is_later_gate, dropped("gate_*.A_1", 0)),),
    ),
    Mistake(
        name="tower reads the detached input of its gates",
        models=PEPNET,
        equation="7.3",
        wrong="H^1 = sg(O)",
        right="H^1 = O",
        shows=GRADIENT,
        fix="Detach a copy for the gates; the tower gets O itself, or its tables never learn.",
        changes=(
            only_where(_reads("O"), dropped("A_1", 0)),
            only_where(_reads("O"), dropped("H_1", 1)),
        ),
    ),
    Mistake(
        name="kernel's adjoint from the vector before its gate",
        models=PEPNET,
        equation="7.3",
        wrong="dW^l = (R^{l-1})^T dA^l",
        right="dW^l = (H^l)^T dA^l",
        shows=GRADIENT,
        fix="A kernel's adjoint is formed with what the layer has read, after the gate.",
        changes=tuple(Change(at, _kernel_from_ungated, (1,)) for at in ("A_*", "z")),
    ),
)

# --- towers ---------------------------------------------------------------------------------------


def _routed(change: Callable[[Any, int], Any]) -> Callable[[Step, Any], Rule]:
    """Send the rows to the towers ``change(scenario, T)``."""

    def rule(step: Step, model: Any) -> Rule:
        right = step.rule
        if "scenario" not in step.inputs:
            return right

        def forward(H: Any, W: Any, b: Any, scenario: Any) -> Any:
            return right.forward(H, W, b, change(scenario, len(W)))

        def backward(dA: Any, A: Any, H: Any, W: Any, b: Any, scenario: Any) -> tuple[Any, ...]:
            return right.backward(dA, A, H, W, b, change(scenario, len(W)))

        return Rule(forward, backward)

    return rule


def _interleaved(blocks: Any) -> Any:
    """Blocks (T, ..., n) cut from [block 0, block 1, ...] as if every T-th column were one's."""
    wide = np.moveaxis(blocks, 0, -2)
    return np.moveaxis(wide.reshape(*wide.shape[:-2], -1, len(blocks)), -1, 0)


def _put_back(blocks: Any) -> Any:
    """Undo ``_interleaved``, which only moves entries: its adjoint."""
    n_blocks, n = len(blocks), blocks.shape[-1]
    wide = np.moveaxis(blocks, 0, -1)
    return np.moveaxis(wide.reshape(*wide.shape[:-2], n_blocks, n), -2, 0)


def _interleaved_backward(
    dA: Any, A: Any, R: Any, W: Any, b: Any, scenario: Any
) -> tuple[Any, ...]:
    W, b = _interleaved(W), _interleaved(b)
    dR, dW, db, _ = TOWER_AFFINE.backward(dA, A, R, W, b, scenario)
    return dR, _put_back(dW), _put_back(db), None


INTERLEAVED = Rule(
    lambda R, W, b, scenario: TOWER_AFFINE.forward(R, _interleaved(W), _interleaved(b), scenario),
    _interleaved_backward,
)


def _sorted_logit(z: Any, scenario: Any) -> Any:
    return z[np.argsort(scenario, kind="stable"), 0]


def _sorted_logit_backward(dy: Any, _: Any, z: Any, scenario: Any) -> tuple[Any, ...]:
    dz = np.zeros_like(z)
    dz[np.argsort(scenario, kind="stable"), 0] = dy
    return dz, None


SORTED_LOGIT = Rule(_sorted_logit, _sorted_logit_backward)


def _with_scenario(step: Step, _: Any) -> tuple[str, ...]:
    return (*step.inputs, "scenario")


def _has_towers(_: Step, model: Any) -> bool:
    return model.routes_by_scenario


OF_TOWERS = (
    Mistake(
        name="gate's blocks interleaved",
        models=PEPNET,
        equation="7.1",
        wrong="block t = columns t, t + T, t + 2T, ... of the gate",
        right="block t = columns t n to (t + 1) n of the gate",
        shows=VALUE,
        fix="Reshape to (B, T, n), not (B, n, T); torch.chunk(T, dim=1) cuts blocks.",
        changes=(only_where(_reads("scenario"), value("gate_*.A_2", INTERLEAVED)),),
        options=TOWERS,
    ),
    Mistake(
        name="first block of the gate for all towers",
        models=PEPNET,
        equation="7.1",
        wrong="delta^l = block 0 for every row",
        right="delta^l = block s_b for row b",
        shows=VALUE,
        fix="Cut the block of the row's tower: delta[arange(B), s] of (B, T, n).",
        changes=(value("gate_*.A_2", _routed(lambda scenario, T: 0 * scenario)),),
        options=TOWERS,
    ),
    Mistake(
        name="one tower object repeated",
        models=PEPNET,
        equation="7.1",
        wrong="W^l = W^l_{T-1} for every row: the last tower that was loaded",
        right="W^l = W^l_d for the rows of scenario d",
        shows=VALUE,
        fix="Build T towers ([Tower() for _ in range(T)]); [Tower()] * T is one, T times.",
        changes=tuple(
            value(at, _routed(lambda scenario, T: 0 * scenario + T - 1)) for at in ("A_*", "z")
        ),
        options=TOWERS,
    ),
    Mistake(
        name="towers counted from one",
        models=PEPNET,
        equation="7.1",
        wrong="row b uses tower s_b - 1",
        right="row b uses tower s_b",
        shows=VALUE,
        fix="Scenarios start at 0; index -1 is the last tower and raises nothing.",
        changes=tuple(
            value(at, _routed(lambda scenario, T: (scenario - 1) % T))
            for at in ("gate_*.A_2", "A_*", "z")
        ),
        options=TOWERS,
    ),
    Mistake(
        name="logits left in the towers' order",
        models=PEPNET,
        equation="7.1",
        wrong="z = [z of scenario 0, z of scenario 1, ...]",
        right="z in the order of the batch",
        shows=VALUE,
        fix="Scatter the towers' logits back to the rows that they came from; do not just join.",
        changes=(only_where(_has_towers, reading("logit", _with_scenario, SORTED_LOGIT)),),
        options=TOWERS,
    ),
)

PEPNET_MISTAKES = (*GATES, *INPUTS, *OF_TOWERS)
