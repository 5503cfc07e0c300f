"""Mistakes in the layers of PEPNet: gates, blocks of gates, gated towers."""

from itertools import cycle

import numpy as np
from spoiling import inside, op, result

from midpg_np.layers.gate import Gate
from wrong_systems.pepnet import interleaved

GAMMA = 1.5  # of the catalogue's gates


def other_column(d_delta, cache):
    """Adjoint of the last column of U in place of the first."""
    _, W = cache.layer_1
    dA_2 = d_delta * cache.delta * (1.0 - cache.delta / GAMMA)
    return (dA_2 @ cache.layer_2.W.T * cache.activation) @ W[-1:].T


def fields_in_order(dE_prior, dim):
    """Fields 2, 0, 3 were read; give the parts to 0, 2, 3."""
    parts = dE_prior.reshape(len(dE_prior), 3, dim)
    dX = np.zeros((len(dE_prior), 4, dim))
    dX[:, [0, 2, 3]] = parts
    return dX.reshape(len(dE_prior), -1)


def first_call_only():
    """A gate's backward whose dU counts in every second call only."""
    keep = cycle((1.0, 0.0))
    right = Gate.backward

    def wrong(self, d_delta, cache):
        dU, grads = right(self, d_delta, cache)
        return next(keep) * dU, grads

    return wrong


SIGMOID = "layers.gate.scaled_sigmoid_backward"
WRONG = {
    "pepnet: gate's adjoint without (1 - delta / gamma)": inside(
        "scenario_gate shared", SIGMOID, lambda d, c: d * c[0]
    ),
    "pepnet: 1 - delta whatever gamma": inside(
        "scenario_gate shared", SIGMOID, lambda d, c: d * c[0] * (1.0 - c[0])
    ),
    "pepnet: gamma forgotten in the adjoint": inside(
        "scenario_gate grouped",
        SIGMOID,
        lambda d, c: d * c[0] / c[1] * (1.0 - c[0] / c[1]),
    ),
    "pepnet: ReLU inside the gate forgotten": inside(
        "scenario_gate shared", "layers.gate.biased_backward", lambda dH, *_: (dH, dH.sum(axis=0))
    ),
    "pepnet: live columns taken from the end": result(
        "scenario_gate shared partly live", lambda g, dy, c: g | {"U": other_column(dy, c)}
    ),
    "pepnet: adjoint of a block interleaved": op(
        "scenario_blocks textbook", W=lambda g, dy, x: np.ascontiguousarray(interleaved(g["W"]))
    ),
    "pepnet: all blocks get the adjoint": op(
        "scenario_blocks grouped",
        b=lambda g, dy, x: np.broadcast_to(dy.sum(axis=0), g["b"].shape).copy(),
    ),
    "pepnet: blocks of absent scenarios left out": op(
        "scenario_blocks grouped", W=lambda g, dy, x: g["W"][g["W"].any(axis=(1, 2))]
    ),
    "pepnet: prior fields in sorted order": op(
        "pick_fields", X=lambda g, dy, x: fields_in_order(dy, g["X"].shape[1] // 4)
    ),
    "pepnet: only the last gate's input learns": inside(
        "scenario_tower hidden_output shared",
        "layers.gated_tower.Gate.backward",
        first_call_only(),
    ),
    "pepnet: tower's input forgets its gate": result(
        "scenario_tower layer_input shared",
        lambda g, dy, c: g | {"O": g["O"] / c.gates["gate_0"].delta},
    ),
}
