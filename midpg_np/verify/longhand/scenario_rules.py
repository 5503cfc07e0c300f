"""Rules of weights by scenario, rows in the order of the batch (derivations 2.7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand.calculation import Rule


def scenario_sum(x: Any, scenario: Any, n_scenarios: int) -> Any:
    """Sum of the rows of each scenario, (D, ...); zero for an absent one."""
    total = np.zeros((n_scenarios, *x.shape[1:]), dtype=x.dtype)
    np.add.at(total, scenario, x)
    return total


def _affine(H: Any, W: Any, b: Any, scenario: Any) -> Any:
    return np.einsum("bi,bio->bo", H, W[scenario]) + b[scenario]


def _affine_backward(dA: Any, _: Any, H: Any, W: Any, b: Any, scenario: Any) -> tuple[Any, ...]:
    return (
        np.einsum("bo,bio->bi", dA, W[scenario]),
        scenario_sum(H[:, :, None] * dA[:, None, :], scenario, len(W)),
        scenario_sum(dA, scenario, len(b)),
        None,
    )


SCENARIO_AFFINE = Rule(_affine, _affine_backward)
"""A_i = H_i W_d + b_d with d = s_i, for W (D, I, O) and b (D, O) (derivations 2.7)."""


def _pick(*inputs: Any) -> Any:
    *streams, scenario = inputs
    return np.stack(streams)[scenario, np.arange(len(scenario))]


def _pick_backward(dy: Any, _: Any, *inputs: Any) -> tuple[Any, ...]:
    *streams, scenario = inputs
    return *(dy * (scenario == k)[:, None] for k in range(len(streams))), None


PICK = Rule(_pick, _pick_backward)
"""Row i of stream s_i, out of one stream (B, q) for each scenario; a stream hears from its rows."""
