"""The core of a weighting matrix as loops; functions and shapes as in ``kernels.cores``."""

from __future__ import annotations

import numpy as np
from numba import uintp

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import BLOCK, fast_loops, sigmoid
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def core(R: Array, C: Array, gain: float) -> Array:
    """As ``kernels.core``."""
    R, C = _three_axes(R), _three_axes(C)
    n_samples = max(R.shape[2], C.shape[2])
    Q = empty(np, (R.shape[0], C.shape[1], n_samples), R.dtype)
    run(_core, R, C, Q, R.dtype.type(gain))
    return Q


def core_backward(
    dQ: Array, Q: Array, R: Array, C: Array, gain: float, dQ_other: Array | None = None
) -> tuple[Array, Array]:
    """As ``kernels.core_backward``."""
    dQ, Q = contiguous(dQ), contiguous(Q)
    other = dQ if dQ_other is None else contiguous(dQ_other)
    R3, C3 = _three_axes(R), _three_axes(C)
    dR, dC = (empty(np, x.shape, x.dtype) for x in (R3, C3))
    adjoints = dQ, other, dQ_other is not None
    run(_core_backward, *adjoints, Q, R3, C3, dR, dC, Q.dtype.type(1.0 / gain))
    return dR.reshape(R.shape), dC.reshape(C.shape)


def bounded(P: Array, gain: float) -> Array:
    """As ``kernels.bounded``."""
    P = contiguous(P)
    Q = empty(np, P.shape, P.dtype)
    run(_bounded, P.reshape(-1), Q.reshape(-1), P.dtype.type(gain))
    return Q


def bounded_backward(dQ: Array, Q: Array, gain: float) -> Array:
    """As ``kernels.bounded_backward``."""
    dQ, Q = contiguous(dQ), contiguous(Q)
    dP = empty(np, Q.shape, Q.dtype)
    run(_bounded_backward, dQ.reshape(-1), Q.reshape(-1), dP.reshape(-1), Q.dtype.type(1.0 / gain))
    return dP


def _three_axes(factor: Array) -> Array:
    """Give a factor that all samples share a batch axis of length 1."""
    factor = contiguous(factor)
    return factor if factor.ndim == 3 else factor[:, :, None]


@fast_loops
def _bounded(P, Q, gain):
    for i in range(P.size):
        Q[i] = gain * sigmoid(P[i])


@fast_loops
def _bounded_backward(dQ, Q, dP, per_gain):
    for i in range(Q.size):
        dP[i] = dQ[i] * (Q[i] - Q[i] * Q[i] * per_gain)


@fast_loops
def _core(R, C, Q, gain):
    d_r, d_c, B = Q.shape
    P = np.empty(BLOCK, Q.dtype)
    for start in range(uintp(0), uintp(B), uintp(BLOCK)):
        n = min(uintp(BLOCK), uintp(B) - start)
        for r in range(d_r):
            for c in range(d_c):
                P[:] = 0.0
                for k in range(R.shape[1]):
                    if R.shape[2] < B:
                        x = R[r, k, 0]
                        for b in range(n):
                            P[b] += x * C[k, c, start + b]
                    elif C.shape[2] < B:
                        x = C[k, c, 0]
                        for b in range(n):
                            P[b] += R[r, k, start + b] * x
                    else:
                        for b in range(n):
                            P[b] += R[r, k, start + b] * C[k, c, start + b]
                for b in range(n):
                    Q[r, c, start + b] = gain * sigmoid(P[b])


@fast_loops
def _core_backward(dQ, other, has_other, Q, R, C, dR, dC, per_gain):
    """dP = (dQ + other) Q (1 - Q / gain); dR = dP C^T, dC = R^T dP."""
    d_r, d_c, B = Q.shape
    dP = np.empty(BLOCK, Q.dtype)
    dR[:] = 0.0
    dC[:] = 0.0
    for start in range(uintp(0), uintp(B), uintp(BLOCK)):
        n = min(uintp(BLOCK), uintp(B) - start)
        for r in range(d_r):
            for c in range(d_c):
                for b in range(n):
                    q = Q[r, c, start + b]
                    dP[b] = dQ[r, c, start + b] * (q - q * q * per_gain)
                if has_other:
                    for b in range(n):
                        q = Q[r, c, start + b]
                        dP[b] += other[r, c, start + b] * (q - q * q * per_gain)
                for k in range(R.shape[1]):
                    if R.shape[2] < B:
                        s, x = dR[r, k, 0], R[r, k, 0]
                        for b in range(n):
                            s += dP[b] * C[k, c, start + b]
                            dC[k, c, start + b] += x * dP[b]
                        dR[r, k, 0] = s
                    elif C.shape[2] < B:
                        s, x = dC[k, c, 0], C[k, c, 0]
                        for b in range(n):
                            s += dP[b] * R[r, k, start + b]
                            dR[r, k, start + b] += x * dP[b]
                        dC[k, c, 0] = s
                    else:
                        for b in range(n):
                            dR[r, k, start + b] += dP[b] * C[k, c, start + b]
                            dC[k, c, start + b] += dP[b] * R[r, k, start + b]
