"""How the loops of this folder become machine code: Numba, any real dtype, without Python's lock.

Why loops: NumPy makes one pass over memory for each operation, a loop one for all of them, and
what lies between stays in registers.  Three habits let the compiler use vector registers:

- The batch is the innermost loop and the last axis of every array, ``BLOCK`` samples at a time,
  so that the rows of a block stay in the first-level cache.
- Places in the batch are unsigned (``uintp``): a signed index might be negative, and Python's
  meaning of that would have to be checked for every element.
- What a block produces is collected in arrays made inside the function, which cannot overlap with
  its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.kernels.compiled.kept_code import forget_other_code
from midpg_np.kernels.compiled.lean_numba import import_numba

import_numba()

from numba import njit, types  # noqa: E402
from numba.extending import overload  # noqa: E402

BLOCK = 512  # samples: 2 KiB of a row in float32

# Sums may be reordered and a product fused with a sum; infinity and NaN stay what they are.
FAST = {"reassoc", "contract", "nsz", "arcp"}


def fast_loops(function: Callable[..., Any]) -> Any:
    """Compile a function whose result is right to rounding."""
    return _kept(njit(nogil=True, fastmath=FAST, error_model="numpy", cache=True)(function))


def exact_loops(function: Callable[..., Any]) -> Any:
    """Compile a function that does the operations as written, each of them rounded once."""
    return _kept(njit(nogil=True, error_model="numpy", cache=True)(function))


def _kept(loops: Any) -> Any:
    forget_other_code(Path(loops.stats.cache_path))
    return loops


def read_row(x: Any, i: Any, j: Any, step: Any, places: Any) -> Any:
    """(x[i,j+p step] for p in places), a tuple; for use inside loops.

    Sums in a tuple stay in registers while a loop adds to them, those in an array may not.
    """


def add_products(sums: Any, h: Any, z: Any, b: Any) -> Any:
    """(sums[t] + h z[t,b] for all t), a tuple; for use inside loops."""


def exp(x: Any) -> Any:
    """exp(x), for use inside loops; in float32 vectorised, right to 2 units of the last place."""


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), for use inside loops."""


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), for use inside loops; vectorised as ``exp`` is."""


@overload(read_row, jit_options={"fastmath": FAST}, strict=False)
def _read_row(x: Any, i: Any, j: Any, step: Any, places: types.UniTuple) -> Callable[..., Any]:
    if len(places) == 1:
        return lambda x, i, j, step, places: (x[i, j + places[0] * step],)
    return lambda x, i, j, step, places: (
        x[i, j + places[0] * step],
        *read_row(x, i, j, step, places[1:]),
    )


@overload(add_products, jit_options={"fastmath": FAST}, strict=False)
def _add_products(sums: types.UniTuple, h: Any, z: Any, b: Any) -> Callable[..., Any]:
    last = len(sums) - 1
    if last == 0:
        return lambda sums, h, z, b: (sums[0] + h * z[0, b],)
    return lambda sums, h, z, b: (
        *add_products(sums[:last], h, z, b),
        sums[last] + h * z[last, b],
    )


# exp(x) = 2^k exp(r), k = round(x / ln 2), |r| <= ln(2) / 2: the Taylor polynomial of degree 7 is
# right to 5e-9 there.  ln 2 in two parts, the first of which has few bits, so that k times it is
# exact.
_PER_LN2 = np.float32(1.0 / math.log(2.0))
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2.0) - 0.693359375)
_TAYLOR = tuple(np.float32(1.0 / math.factorial(n)) for n in range(8))
_C2, _C3, _C4, _C5, _C6, _C7 = _TAYLOR[2:]
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_LARGEST = np.float32(87.0)  # exp of it and of its negative are normal numbers
_EXPONENT_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)
_NO_REORDERING: Any = {"fastmath": {"contract", "nsz"}}


@overload(exp, jit_options=_NO_REORDERING, strict=False)
def _exp(x: types.Type) -> Callable[..., Any]:
    def exp_float32(x):
        x = _LARGEST if x > _LARGEST else x
        x = -_LARGEST if x < -_LARGEST else x
        k = np.floor(x * _PER_LN2 + _HALF)
        r = x - k * _LN2_HIGH
        r = r - k * _LN2_LOW
        p = _C4 + r * (_C5 + r * (_C6 + r * _C7))
        p = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * p)))
        power = np.int32((np.int32(k) + _EXPONENT_BIAS) << _MANTISSA_BITS)
        return p * power.view(np.float32)

    return exp_float32 if x == types.float32 else lambda x: math.exp(x)


@overload(sigmoid, jit_options=_NO_REORDERING, strict=False)
def _sigmoid(x: types.Type) -> Callable[..., Any]:
    def sigmoid_float32(x):
        return _ONE / (_ONE + exp(-x))

    return sigmoid_float32 if x == types.float32 else lambda x: 0.5 + 0.5 * math.tanh(0.5 * x)


# log(1 + z) = 2 artanh(s), s = z / (2 + z): for z <= 1 the series in s^2 <= 1/9 up to its eighth
# term is right to 1.4e-9.
_ARTANH = tuple(np.float32(2.0 / (2 * n + 1)) for n in range(8))
_A0, _A1, _A2, _A3, _A4, _A5, _A6, _A7 = _ARTANH
_ZERO, _TWO = np.float32(0.0), np.float32(2.0)


@overload(softplus, jit_options=_NO_REORDERING, strict=False)
def _softplus(x: types.Type) -> Callable[..., Any]:
    def softplus_float32(x):
        z = exp(-abs(x))
        s = z / (_TWO + z)
        q = s * s
        p = _A0 + q * (_A1 + q * (_A2 + q * (_A3 + q * (_A4 + q * (_A5 + q * (_A6 + q * _A7))))))
        return (x if x > _ZERO else _ZERO) + s * p

    return (
        softplus_float32
        if x == types.float32
        else lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    )
