"""Gates as loops; functions and shapes as in ``kernels.gates``."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops, sigmoid
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def gate(P: Array, b: Array, R: Array, gain: float) -> tuple[Array, Array]:
    """As ``kernels.gate``."""
    P = contiguous(P)
    y = empty(np, P.shape, P.dtype)
    run(_gate, P, contiguous(b), contiguous(R), y, P.dtype.type(gain))
    return P, y


def gate_backward(dy: Array, R: Array, delta: Array, gain: float) -> tuple[Array, Array, Array]:
    """As ``kernels.gate_backward``."""
    dy, dP = contiguous(dy), empty(np, dy.shape, dy.dtype)
    db = empty(np, dy.shape[1:], dy.dtype)
    run(_gate_backward, dy, contiguous(R), contiguous(delta), dP, db, dy.dtype.type(1.0 / gain))
    return dP, dy, db


@fast_loops
def _gate(P, b, R, y, gain):
    for i in range(P.shape[0]):
        for o in range(P.shape[1]):
            delta = gain * sigmoid(P[i, o] + b[o])
            P[i, o] = delta
            y[i, o] = delta * R[i, o]


@fast_loops
def _gate_backward(dy, R, delta, dP, db, per_gain):
    db[:] = 0.0
    for i in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            factor = delta[i, o]
            dp = dy[i, o] * R[i, o] * (factor - factor * factor * per_gain)
            dP[i, o] = dp
            dy[i, o] *= factor
            db[o] += dp
