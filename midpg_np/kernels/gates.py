"""Gates that multiply what they gate: delta = gain sigmoid(P + b), y = delta R (derivations 7.1).

Batch first, as the models that have gates store it.
"""

from __future__ import annotations

from midpg_np.backend import Array
from midpg_np.kernels.cores import bounded, bounded_backward
from midpg_np.kernels.dispatch import fused
from midpg_np.kernels.launch import ROWS_OF_BLOCK, Launcher, Source

GATES = Source(
    r"""
extern "C" __global__ void gate(
    REAL* P, const REAL* bias, const REAL* R, REAL* y, REAL gain, wide B, int O, wide chunk
) {
    int o = feature();
    if (o >= O) return;
    for (wide b = first_sample(chunk); b < last_sample(B, chunk); b += ROWS_AT_ONCE) {
        wide i = b * O + o;
        REAL delta = gain * sigmoid(P[i] + bias[o]);
        P[i] = delta;
        y[i] = delta * R[i];
    }
}

extern "C" __global__ void gate_backward(
    REAL* dy, const REAL* R, const REAL* delta, REAL* dP, REAL per_gain, REAL* partial,
    wide B, int O, wide chunk
) {
    int o = feature();
    REAL sum = 0;
    if (o < O)
        for (wide b = first_sample(chunk); b < last_sample(B, chunk); b += ROWS_AT_ONCE) {
            wide i = b * O + o;
            REAL factor = delta[i], dp = dy[i] * R[i] * factor * ((REAL)1 - factor * per_gain);
            dP[i] = dp;
            dy[i] *= factor;
            sum += dp;
        }
    column_sum(sum, partial, O);
}
""",
    is_exact=False,
)


def _gate_on_device(
    launch: Launcher, P: Array, b: Array, R: Array, gain: float
) -> tuple[Array, Array]:
    P, b, R = launch.inputs(P, b, R)
    y = launch.empty(*P.shape)
    launch.columns(GATES, "gate", P.shape, ROWS_OF_BLOCK, P, b, R, y, launch.real(gain))
    return P, y


@fused(_gate_on_device, compiled="gates")
def gate(P: Array, b: Array, R: Array, gain: float) -> tuple[Array, Array]:
    """Return delta = gain sigmoid(P + b), in the memory of P, which is given up; and y.

    Shapes
    ------
    P, R, delta, y : (B, O)
    b : (O,)
    """
    P[...] = bounded(P + b, gain)
    return P, P * R


def _gate_backward_on_device(
    launch: Launcher, dy: Array, R: Array, delta: Array, gain: float
) -> tuple[Array, Array, Array]:
    dy, R, delta = launch.inputs(dy, R, delta)
    dP = launch.empty(*dy.shape)
    args = dy, R, delta, dP, launch.real(1.0 / gain)
    return dP, dy, launch.column_sums(GATES, "gate_backward", dy.shape, *args)


@fused(_gate_backward_on_device, compiled="gates")
def gate_backward(dy: Array, R: Array, delta: Array, gain: float) -> tuple[Array, Array, Array]:
    """Return dP = dy R delta (1 - delta / gain), dR = dy delta, and db, the sum of dP by column.

    dR may lie in the memory of dy, which is given up.

    Shapes
    ------
    dy, dP, dR : (B, O)
    db : (O,)
    """
    dP = bounded_backward(dy * R, delta, gain)
    dy *= delta
    return dP, dy, dP.sum(axis=0)
