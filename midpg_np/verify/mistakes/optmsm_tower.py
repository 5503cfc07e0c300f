"""Mistakes in OptMSM's hypernetwork and generated tower (derivations 10.5)."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from midpg_np.ops import relu
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.optmsm_rules import cut
from midpg_np.verify.longhand.rules import MATMUL, activation
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    SERVING,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    value,
)

ONLY = ("optmsm",)

# --- hypernetwork ---------------------------------------------------------------------------------


def _rectified_code(step: Step, model: Any) -> Rule:
    """u = ReLU(Z Omega_in); without factors there is nothing to put a ReLU between."""
    if model.hyper != "low_rank":
        return step.rule
    return Rule(
        lambda Z, Omega: relu(Z @ Omega)[0],
        lambda du, u, Z, Omega: MATMUL.backward(du * (u.real > 0), None, Z, Omega),
    )


WITHOUT_OMEGA_0 = Rule(
    lambda u, Omega, omega_0: u @ Omega,
    lambda dy, _, u, Omega, omega_0: (dy @ Omega.T, u.T @ dy, None),
)


def _places(scenario: Any) -> Any:
    """Return each row's place among the scenarios present."""
    return np.unique(scenario, return_inverse=True)[1].reshape(-1)


def _added_at(rows: Any, dy: Any, theta: Any) -> Any:
    d_theta = np.zeros_like(theta)
    np.add.at(d_theta, rows, dy)
    return d_theta


BY_PLACE = Rule(
    lambda theta, scenario: theta[_places(scenario)],
    lambda dy, _, theta, scenario: (_added_at(_places(scenario), dy, theta), None),
)


def _if_by_scenario(rule: Rule) -> Any:
    """Exchange the rule unless each row has a code of its own."""
    return lambda step, model: rule if model.hyper_input == "code" else step.rule


def _at_places(right: Any, dy: Any, _: Any, theta: Any, *scenario: Any) -> Any:
    return _added_at(_places(*scenario), dy, theta) if scenario else right


def _last_row_wins(right: Any, dy: Any, _: Any, theta: Any, *scenario: Any) -> Any:
    if not scenario:
        return right
    d_theta = np.zeros_like(theta)
    d_theta[scenario[0]] = dy
    return d_theta


def _first_rows_tower(step: Step, _: Any) -> Rule:
    """Every row gets the theta of row 0."""

    def forward(*inputs: Any) -> Any:
        theta = step.rule.forward(*inputs)
        return np.broadcast_to(theta[0], theta.shape) + 0.0

    def backward(dy: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
        first = np.zeros_like(dy)
        first[0] = dy.sum(axis=0)
        return step.rule.backward(first, y, *inputs)

    return Rule(forward, backward)


HYPERNETWORK = (
    Mistake(
        name="ReLU between the factors of Omega",
        models=ONLY,
        equation="10.1",
        wrong="u = ReLU(Z Omega_in)",
        right="u = Z Omega_in",
        shows=VALUE,
        fix="Omega_in Omega_out is one matrix of low rank: nothing stands between its factors.",
        changes=(value("u", _rectified_code),),
        options={"hyper": "low_rank"},
    ),
    Mistake(
        name="code detached in the hypernetwork",
        models=ONLY,
        equation="10.3",
        wrong="dZ = 0",
        right="dZ = du Omega_in^T (full: dZ = dTheta Omega^T)",
        shows=GRADIENT,
        fix="Codes are parameters (not a buffer); with hyper_input='aware' E_sp has two readers.",
        changes=(dropped("u", 0),),
    ),
    Mistake(
        name="omega_0 left out",
        models=ONLY,
        equation="10.1",
        wrong="theta_d = Z_d Omega",
        right="theta_d = Z_d Omega + omega_0",
        shows=VALUE,
        fix="Keep the bias of the hypernetwork: it is the tower that all scenarios share.",
        changes=(value("theta", WITHOUT_OMEGA_0),),
    ),
    Mistake(
        name="gradient of omega_0 averaged over the scenarios",
        models=ONLY,
        equation="10.3",
        wrong="d_omega_0 = 1/D sum_d dtheta_d",
        right="d_omega_0 = sum_d dtheta_d",
        shows=GRADIENT,
        fix="omega_0 is read by every scenario: sum, do not average.",
        changes=(adjoint("theta", lambda right, dy, *_: right / len(dy), 2),),
    ),
    Mistake(
        name="towers by place among the scenarios present",
        models=ONLY,
        equation="10.1",
        wrong="theta of the m-th scenario of the batch = Z_m Omega + omega_0",
        right="theta of a row = Z_d Omega + omega_0 with d its scenario's id",
        shows=VALUE,
        fix="Index Z by the ids that unique() returns, not by their places.",
        changes=(value("theta_of_rows", _if_by_scenario(BY_PLACE)),),
    ),
    Mistake(
        name="gradients of towers by place among the scenarios present",
        models=ONLY,
        equation="10.3",
        wrong="dtheta_m = sum over rows of the m-th scenario of the batch",
        right="dtheta_d = sum over rows of scenario d",
        shows=GRADIENT,
        fix="Write rows of dZ to the ids; absent scenarios have gradient exactly zero.",
        changes=(adjoint("theta_of_rows", _at_places),),
    ),
    Mistake(
        name="gradient of a tower from its last row only",
        models=ONLY,
        equation="10.3",
        wrong="dtheta[s] = dtheta_b: the last row of a scenario sets it",
        right="dtheta_d = sum of dtheta_b over the rows of scenario d",
        shows=GRADIENT,
        fix="Add without buffering (np.add.at, index_add_), not by assignment.",
        changes=(adjoint("theta_of_rows", _last_row_wins),),
    ),
    Mistake(
        name="prediction with the tower of the batch's first row",
        models=ONLY,
        equation="10.1",
        wrong="prediction: z_b from theta of row 0",
        right="prediction: z_b from theta of row b's scenario",
        shows=SERVING,
        fix="A batch of requests mixes scenarios: choose the tower row by row.",
        changes=(value("theta_of_rows", _first_rows_tower, in_training=False),),
    ),
)

# --- tower ----------------------------------------------------------------------------------------


def _biases_first(step: Step, model: Any) -> Rule:
    """Cut theta as (b_1, W_1, b_2, W_2)."""
    dim_in, h = model.dim_specific + model.dim_shared, model.tower_hidden
    shapes = {"b_1": (h,), "W_1": (dim_in, h), "b_2": (1,), "W_2": (h, 1)}
    names = list(shapes)
    name = step.output.removeprefix("tower.")
    start = sum(prod(shapes[before]) for before in names[: names.index(name)])
    return cut(start, *shapes[name])


def _outputs_first(step: Step, model: Any) -> Rule:
    """Read W_1 as (h, d_in), in the layout of nn.Linear."""
    dim_in, h = model.dim_specific + model.dim_shared, model.tower_hidden
    rule = cut(0, h, dim_in)
    return Rule(
        lambda theta: rule.forward(theta).swapaxes(1, 2),
        lambda dW, y, theta: rule.backward(dW.swapaxes(1, 2), y, theta),
    )


def _sorted_logits(step: Step, model: Any) -> Step:
    """Give the logits back as they lay, sorted by scenario."""
    if not model.routes_by_scenario:
        return step

    def backward(dy: Any, _: Any, x: Any, scenario: Any) -> tuple[Any, ...]:
        dx = np.zeros_like(x)
        dx[np.argsort(scenario, kind="stable"), 0] = dy
        return dx, None

    rule = Rule(lambda x, scenario: x[np.argsort(scenario, kind="stable"), 0], backward)
    return replace(step, inputs=(*step.inputs, "scenario"), rule=rule)


TOWER = (
    Mistake(
        name="theta cut with the biases first",
        models=ONLY,
        equation="10.1",
        wrong="theta = (b_1, W_1, b_2, W_2)",
        right="theta = (W_1, b_1, W_2, b_2)",
        shows=VALUE,
        fix="Cut and join by one table of offsets, for omega_0 as well.",
        changes=(value("tower.[Wb]_[12]", _biases_first),),
    ),
    Mistake(
        name="generated kernel read with its outputs first",
        models=ONLY,
        equation="10.1",
        wrong="W_1 = reshape(theta_1, (h, d_c + q))^T",
        right="W_1 = reshape(theta_1, (d_c + q, h))",
        shows=VALUE,
        fix="A slice of theta holds inputs before outputs; F.linear wants it transposed.",
        changes=(value("tower.W_1", _outputs_first),),
    ),
    Mistake(
        name="generated tower without its activation",
        models=ONLY,
        equation="10.1",
        wrong="z_b = a_b W_2 + b_2",
        right="z_b = phi(a_b) W_2 + b_2",
        shows=VALUE,
        fix="Apply the activation between the two generated maps.",
        changes=(value("tower.H", activation("identity")),),
    ),
    Mistake(
        name="logits left sorted by scenario",
        models=ONLY,
        equation="10.1",
        wrong="z = logits in the order of the sorted rows",
        right="z_b belongs to row b of the batch",
        shows=VALUE,
        fix="Undo the sorting (inverse of argsort) before the loss meets the labels.",
        changes=(Change("logit", _sorted_logits),),
    ),
)
