"""Mistakes in experts and towers (derivations 5.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.adam import adam_step
from midpg_np.verify.longhand.ple_rules import affine_at
from midpg_np.verify.longhand.rules import activation
from midpg_np.verify.mistakes.by_scenario import activated, with_ids
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    STATE,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    reading,
    value,
)
from midpg_np.verify.mistakes.ple_gates import MIXTURE, PLE_GATES

PLE = ("ple",)
OUTPUT = "level_*.expert_*.E"
SEVERAL = {"n_specific": 2}

# --- experts --------------------------------------------------------------------------------------


def _place(step: Step) -> tuple[int, ...]:
    """Place (k, e) in "level_1.expert_k_e.A_1"."""
    k, e = step.output.split(".")[1].removeprefix("expert_").split("_")
    return int(k), int(e)


def _first_of_scenario(step: Step, _: Any) -> Rule:
    return affine_at(_place(step)[0], 0)


def _stride_one(step: Step, model: Any) -> Step:
    """Stack experts k ... k + m_k - 1 of the list; the right ones are read and not used."""
    level, stream = step.output.split(".")
    first, n = int(stream.removeprefix("S_")), model.n_specific
    places = [divmod(i, n) for i in range(first, first + n)]
    wrong = (*(f"{level}.expert_{k}_{e}.E" for k, e in places), *step.inputs[n:])

    def backward(dS: Any, S: Any, *experts: Any) -> tuple[Any, ...]:
        return *step.rule.backward(dS, S, *experts[:-n]), *(None for _ in range(n))

    rule = Rule(lambda *experts: step.rule.forward(*experts[:-n]), backward)
    return replace(step, inputs=(*wrong, *step.inputs[:n]), rule=rule)


def _by_expert(of_scenarios: Any, shared: Any) -> Any:
    """Column of expert e of scenario k at e D + k."""
    columns = np.moveaxis(of_scenarios, 0, -1)
    return np.concatenate([columns.reshape(*columns.shape[:-2], -1), shared], axis=-1)


def _by_expert_backward(dW: Any, _: Any, of_scenarios: Any, shared: Any) -> tuple[Any, ...]:
    n_scenarios, *lead, m_k = of_scenarios.shape
    n = n_scenarios * m_k
    return np.moveaxis(dW[..., :n].reshape(*lead, m_k, n_scenarios), -1, 0), dW[..., n:]


def _of_shared_stream(step: Step, model: Any) -> tuple[str, ...]:
    """Read the shared stream in place of a scenario's."""
    G, *params = step.inputs
    level, dot, _ = G.partition(".")
    return (f"{level}.G_s" if dot and model.n_shared else G), *params


def _experts(*, shared: bool) -> Callable[[Step], tuple[int, ...]]:
    """Tell the places of the shared experts among those that a gate mixes, or of the others."""

    def positions(step: Step) -> tuple[int, ...]:
        names = enumerate(step.inputs)
        return tuple(i for i, name in names if (".expert_s_" in name) == shared)

    return positions


def _last_gate_only(step: Step, model: Any) -> Step:
    """Let shared experts hear from the gate of the last scenario only."""
    n = len(step.inputs) - model.n_shared
    is_last = step.output.endswith(f".S_{model.n_scenarios - 1}")
    return step if is_last else _deaf(step, slice(n, None))


def _shared_experts_only(step: Step, model: Any) -> Step:
    """Let specific experts hear nothing from the shared stream."""
    return _deaf(step, slice(0, len(step.inputs) - model.n_shared))


def _deaf(step: Step, places: slice) -> Step:
    """Return the step whose inputs at some places get no adjoint."""

    def backward(dS: Any, S: Any, *experts: Any) -> tuple[Any, ...]:
        parts = list(step.rule.backward(dS, S, *experts))
        parts[places] = [None] * len(parts[places])
        return tuple(parts)

    return replace(step, rule=replace(step.rule, backward=backward))


def _undivided(right: Any, dG: Any, _: Any, w: Any, S: Any) -> Any:
    return np.broadcast_to(dG[:, None, :], S.shape)


EXPERTS = (
    Mistake(
        name="no activation behind an expert",
        models=PLE,
        equation="5.1",
        wrong="E = A of its last layer",
        right="E = phi(A), the activation after the last layer too",
        shows=VALUE,
        fix="An expert ends with its activation; only towers end without one.",
        changes=(value(OUTPUT, activation("identity")),),
    ),
    Mistake(
        name="derivative of an expert's last activation forgotten",
        models=PLE,
        equation="5.3",
        wrong="dA = dE in an expert's last layer",
        right="dA = dE * phi'(A)",
        shows=GRADIENT,
        fix="The backward of a plain MLP does not fit: an expert has an activation at its end.",
        changes=(adjoint(OUTPUT, lambda right, dE, *_: dE + 0.0),),
    ),
    Mistake(
        name="experts of a scenario with stride one",
        models=PLE,
        equation="5.1",
        wrong="S^k holds the experts at places k ... k + m_k - 1",
        right="S^k holds the experts at places k m_k ... k m_k + m_k - 1",
        shows=VALUE,
        fix="Expert e of scenario k stands at k m_k + e; with m_k = 1 all strides look alike.",
        changes=(Change("level_*.S_*", _stride_one),),
        options=SEVERAL,
    ),
    Mistake(
        name="columns of the shared gate ordered by expert",
        models=PLE,
        equation="5.1",
        wrong="column e D + k weighs the expert at k m_k + e",
        right="column k m_k + e weighs the expert at k m_k + e",
        shows=VALUE,
        fix="Join kernel and list with the scenario as the outer index; check the reshape.",
        changes=(value("level_*.gate_s.[Wb]", Rule(_by_expert, _by_expert_backward)),),
        options=SEVERAL,
    ),
    Mistake(
        name="one expert object repeated",
        models=PLE,
        equation="5.1",
        wrong="E^k_e = expert^k_0(G^k) for every e",
        right="E^k_e = expert^k_e(G^k)",
        shows=VALUE,
        fix="Build a module per expert: ModuleList(f() for _ in range(m)), not [f()] * m.",
        changes=(value("level_*.expert_[0-9]*_[0-9]*.A_*", _first_of_scenario),),
        options=SEVERAL,
    ),
    Mistake(
        name="specific experts read the shared stream",
        models=PLE,
        equation="5.1",
        wrong="E^k = expert^k(G^{s,j-1})",
        right="E^k = expert^k(G^{k,j-1})",
        shows=VALUE,
        fix="Hand every scenario's own stream on; at level 1 all streams are X.",
        changes=(reading("level_[!1]*.expert_[0-9]*_[0-9]*.A_1", _of_shared_stream),),
    ),
    Mistake(
        name="specific gates read the shared stream",
        models=PLE,
        equation="5.1",
        wrong="alpha^k = G^{s,j-1} W_g^k + b_g^k",
        right="alpha^k = G^{k,j-1} W_g^k + b_g^k",
        shows=VALUE,
        fix="A gate reads the stream of its own scenario.",
        changes=(reading("level_[!1]*.gate_[0-9]*.alpha", _of_shared_stream),),
    ),
    Mistake(
        name="experts hear the adjoint without their weight",
        models=PLE,
        equation="5.3",
        wrong="dS_e = dG",
        right="dS_e = w_e dG",
        shows=GRADIENT,
        fix="Every candidate gets the adjoint of the mixture times its weight.",
        changes=(adjoint(MIXTURE, _undivided, 1),),
    ),
    Mistake(
        name="shared experts hear from the last gate only",
        models=PLE,
        equation="5.3",
        wrong="dE^s = w^{D-1} dG^{D-1}, assigned in the loop over gates",
        right="dE^s = sum_k w^k dG^k + w^s dG^s",
        shows=GRADIENT,
        fix="Add (+=) over the gates: a shared expert has D + 1 readers.",
        changes=(Change("level_*.S*", _last_gate_only, _experts(shared=True)),),
    ),
    Mistake(
        name="specific experts detached in the shared stream",
        models=PLE,
        equation="5.3",
        wrong="dE^k_e = w^k_e dG^k",
        right="dE^k_e = w^k_e dG^k + w^s_{k m_k + e} dG^s",
        shows=GRADIENT,
        fix='With scope "all" a specific expert below the last level learns from every scenario.',
        changes=(Change("level_*.S", _shared_experts_only, _experts(shared=False)),),
    ),
    Mistake(
        name="shared stream detached between levels",
        models=PLE,
        equation="5.3",
        wrong="dG^{s,j} = 0",
        right="dG^{s,j} from the shared experts and the shared gate above",
        shows=GRADIENT,
        fix="Carry the adjoint of the shared stream down as those of the scenarios' streams.",
        changes=(
            dropped("level_[!1]*.expert_s_*.A_1"),
            dropped("level_[!1]*.gate_s.alpha"),
        ),
    ),
    Mistake(
        name="input hears from the specific streams only",
        models=PLE,
        equation="5.3",
        wrong="dX = sum_k dG^{k,0}",
        right="dX = sum_k dG^{k,0} + dG^{s,0}",
        shows=GRADIENT,
        fix="All D + 1 streams start at X: add the shared one.",
        changes=(dropped("level_1.expert_s_*.A_1"), dropped("level_1.gate_s.alpha")),
    ),
)

# --- towers ---------------------------------------------------------------------------------------


def _every_row(step: Step, _: Any) -> Step:
    """Let every stream hear from every row."""

    def backward(dy: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
        return *(dy + 0.0 for _ in inputs[:-1]), None

    return replace(step, rule=replace(step.rule, backward=backward))


TOWERS = (
    Mistake(
        name="one tower for all scenarios",
        models=PLE,
        equation="5.1",
        wrong="z_i = tower^0(G_i)",
        right="z_i = tower^k(G_i) with k = s_i",
        shows=VALUE,
        fix="Build a tower per scenario and choose by the row's id; [tower] * D is one object.",
        changes=tuple(
            value(at, with_ids(lambda scenario: 0 * scenario))
            for at in ("tower.A_*", "tower.output")
        ),
    ),
    Mistake(
        name="activation behind the tower",
        models=PLE,
        equation="5.1",
        wrong="z = phi(H W + b)",
        right="z = H W + b in a tower's last layer",
        shows=VALUE,
        fix="A tower ends in a logit; only experts have an activation after their last layer.",
        changes=(value("tower.output", activated),),
        options={"activation": "tanh"},  # behind a ReLU a batch of positive logits looks right
    ),
    Mistake(
        name="streams hear from rows of other scenarios",
        models=PLE,
        equation="5.3",
        wrong="dG^{k,J}_i = dG_i for every k",
        right="dG^{k,J}_i = dG_i if k = s_i, else 0",
        shows=GRADIENT,
        fix="Mask the adjoint: a stream of the last level is read by the rows of its scenario.",
        changes=(Change("G_own", _every_row, (0, 1)),),
    ),
    Mistake(
        name="towers not registered with the optimiser",
        models=PLE,
        equation="2.6",
        wrong="theta' = theta for the towers",
        right="theta' = theta - eta m / (sqrt(v) + epsilon) for every parameter",
        shows=STATE,
        fix="Keep the towers in an nn.ModuleList, not in a Python list.",
        update=lambda name, p, g: p if name.startswith("tower.") else adam_step(p, g),
        moves="tower.*",
    ),
)

PLE_MISTAKES = (*PLE_GATES, *EXPERTS, *TOWERS)
