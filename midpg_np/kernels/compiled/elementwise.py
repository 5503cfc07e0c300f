"""Bias and ReLU as loops; functions and shapes as in ``kernels.elementwise``."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops
from midpg_np.kernels.dispatch import empty
from midpg_np.recording import contiguous, run


def relu(x: Array) -> tuple[Array, Array]:
    """As ``kernels.relu``."""
    flat, shaped = _flat(x)
    y, is_positive = empty(np, flat.shape, flat.dtype), empty(np, flat.shape, _BOOL)
    run(_relu, flat, y, is_positive)
    return shaped(y), shaped(is_positive)


def relu_backward(dy: Array, is_positive: Array) -> Array:
    """As ``kernels.relu_backward``."""
    if is_positive.strides != tuple(s // dy.itemsize for s in dy.strides):
        dy *= is_positive
        return dy
    flat, shaped = _flat(dy)
    run(_relu_backward, flat, _flat(is_positive)[0])
    return shaped(flat)


def bias_relu(P: Array, b: Array) -> tuple[Array, Array, Array]:
    """As ``kernels.bias_relu``."""
    P = contiguous(P)
    H, is_positive = empty(np, P.shape, P.dtype), empty(np, P.shape, _BOOL)
    run(_bias_relu, P, b, H, is_positive)
    return P, H, is_positive


def bias_relu_backward(dH: Array, is_positive: Array) -> tuple[Array, Array]:
    """As ``kernels.bias_relu_backward``."""
    dH, is_positive = contiguous(dH), contiguous(is_positive)
    db = empty(np, dH.shape[:1], dH.dtype)
    run(_bias_relu_backward, dH, is_positive, db)
    return dH, db


def bias_relu_batch_first(P: Array, b: Array) -> tuple[Array, Array, Array]:
    """As ``kernels.bias_relu_batch_first``."""
    P = contiguous(P)
    H, is_positive = empty(np, P.shape, P.dtype), empty(np, P.shape, _BOOL)
    run(_bias_relu_batch_first, P, contiguous(b), H, is_positive)
    return P, H, is_positive


def bias_relu_batch_first_backward(dH: Array, is_positive: Array) -> tuple[Array, Array]:
    """As ``kernels.bias_relu_batch_first_backward``."""
    dH, is_positive = contiguous(dH), contiguous(is_positive)
    db = empty(np, dH.shape[1:], dH.dtype)
    run(_bias_relu_batch_first_backward, dH, is_positive, db)
    return dH, db


def sum_samples(x: Array) -> Array:
    """As ``kernels.sum_samples``."""
    x = contiguous(x)
    result = empty(np, x.shape[:1], x.dtype)
    run(_sum_samples, x, result)
    return result


_BOOL = np.dtype(np.bool_)


def _flat(x: Array) -> tuple[Array, Any]:
    """Return the entries in the order of memory, and what gives such a vector the shape of x."""
    if x.flags.c_contiguous:
        return x.reshape(-1), lambda y: y.reshape(x.shape)
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    stored = x.transpose(order)
    if not stored.flags.c_contiguous:
        return _flat(contiguous(x))
    back = sorted(range(x.ndim), key=order.__getitem__)
    return stored.reshape(-1), lambda y: y.reshape(stored.shape).transpose(back)


@fast_loops
def _relu(x, y, is_positive):
    zero = x.dtype.type(0.0)
    for i in range(x.size):
        y[i] = zero if x[i] < zero else x[i]
        is_positive[i] = x[i] > 0.0


@fast_loops
def _relu_backward(dy, is_positive):
    for i in range(dy.size):
        dy[i] = dy[i] if is_positive[i] else 0.0


@fast_loops
def _bias_relu(P, b, H, is_positive):
    zero = P.dtype.type(0.0)
    for o in range(P.shape[0]):
        bias = b[o]
        for i in range(P.shape[1]):
            a = P[o, i] + bias
            P[o, i] = a
            H[o, i] = zero if a < zero else a
            is_positive[o, i] = a > 0.0


@fast_loops
def _bias_relu_backward(dH, is_positive, db):
    for o in range(dH.shape[0]):
        s = dH.dtype.type(0.0)
        for i in range(dH.shape[1]):
            da = dH[o, i] if is_positive[o, i] else dH.dtype.type(0.0)
            dH[o, i] = da
            s += da
        db[o] = s


@fast_loops
def _bias_relu_batch_first(P, b, H, is_positive):
    zero = P.dtype.type(0.0)
    for i in range(P.shape[0]):
        for o in range(P.shape[1]):
            a = P[i, o] + b[o]
            P[i, o] = a
            H[i, o] = zero if a < zero else a
            is_positive[i, o] = a > 0.0


@fast_loops
def _bias_relu_batch_first_backward(dH, is_positive, db):
    db[:] = 0.0
    for i in range(dH.shape[0]):
        for o in range(dH.shape[1]):
            da = dH[i, o] if is_positive[i, o] else dH.dtype.type(0.0)
            dH[i, o] = da
            db[o] += da


@fast_loops
def _sum_samples(x, result):
    for j in range(x.shape[0]):
        s = x.dtype.type(0.0)
        for b in range(x.shape[1]):
            s += x[j, b]
        result[j] = s
