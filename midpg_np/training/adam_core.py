"""Arithmetic of Adam on arrays of any shape, shared by its dense, whole-table and row forms.

One step with gradient g, at step t (counted from 1):

    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g^2
    p <- p - a_t m / (sqrt(v) + e_t),     a_t = lr f_t sqrt(1 - beta2^t) / (1 - beta1^t)

with f_t = 1, or of a schedule (``lr_schedule``).

The two published places of epsilon differ in one scalar: e_t = eps (TensorFlow 1) or
e_t = eps sqrt(1 - beta2^t) (everyone else: epsilon after the bias correction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.training.lr_schedule import LRSchedule

# Elements per pass: parameter, moments, gradient and scratch of a block stay in the second-level
# cache, which makes the step three times as fast on large tables.
BLOCK = 32768
FLUSH_EVERY = 64


@lru_cache(maxsize=8)
def _corrections(
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    eps_mode: str,
    n_steps: int,
    schedule: LRSchedule | None,
) -> tuple[np.ndarray, np.ndarray]:
    # Python's ** on purpose: a vectorised power may round differently in its last lanes, and the
    # row form must find here the very number that the whole-table form used.
    bias1 = [1.0 - beta1**t for t in range(n_steps + 1)]
    root2 = [math.sqrt(1.0 - beta2**t) for t in range(n_steps + 1)]
    steps = range(1, n_steps + 1)
    rates = (lr if schedule is None else lr * schedule.factor(t) for t in steps)
    a = [0.0] + [rate * root2[t] / bias1[t] for t, rate in zip(steps, rates, strict=True)]
    e = [eps * root for root in root2] if eps_mode == "corrected" else [eps] * (n_steps + 1)
    return np.array(a), np.array(e)


def corrections(
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    eps_mode: str,
    step: int,
    schedule: LRSchedule | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a_t and e_t for all t up to ``step`` or beyond, float64, indexed by t.

    See derivations 2.6c, 2.6d.

    Shapes
    ------
    a, e : (T + 1,)
        Where T < ``step`` both have reached their limits, and the last entry stands for the rest.
    """
    beta = max(beta1, beta2)
    saturation = math.ceil(math.log(2.0**-54) / math.log(beta)) if beta > 0.0 else 1
    if schedule is not None:
        saturation = max(saturation, schedule.last_change)
    n_steps = 4096
    while n_steps < min(step, saturation):
        n_steps *= 2
    return _corrections(lr, beta1, beta2, eps, eps_mode, n_steps, schedule)


@dataclass(frozen=True)
class StepSizes:
    """beta1, beta2, and a_t and e_t by step t; where a device counts the steps, its ``now``."""

    beta1: float
    beta2: float
    a: np.ndarray
    e: np.ndarray
    on_device: Array | None = None
    schedule: LRSchedule | None = None

    def now(self, step: int) -> tuple[float, float, bool] | Array:
        """Return what differs from step to step, as kernels take it (``kernels.adam``)."""
        if self.on_device is not None:
            return self.on_device
        return *self.at(step), step % FLUSH_EVERY == 0

    def at(self, step: int) -> tuple[float, float]:
        """Return a_t and e_t of one step."""
        t = min(step, len(self.a) - 1)
        return float(self.a[t]), float(self.e[t])

    def of(self, steps: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Return a_t and e_t of many steps, any shape, rounded to ``dtype`` as scalars are."""
        t = np.minimum(steps, len(self.a) - 1)
        return self.a[t].astype(dtype), self.e[t].astype(dtype)

    def largest_rise(self, steps: np.ndarray, dtype: np.dtype) -> np.ndarray | float:
        """Return by how much the rate can still grow after each of the steps (n,), at least 1."""
        if self.schedule is None:
            return 1.0
        return self.schedule.largest_rise(steps).astype(dtype)


@dataclass(frozen=True)
class StepClock:
    """Counter of the steps on a GPU, with the sizes of all steps: a CUDA graph counts on by itself.

    Shapes
    ------
    step : (1,)
    a, e : (T,)
    now : (3,)
    """

    step: Array
    a: Array
    e: Array
    now: Array

    @classmethod
    def beside(cls, m: Array, a: np.ndarray, e: np.ndarray) -> StepClock:
        """Return a clock at step 0, on the device and in the dtype of ``m``, any shape.

        ``a`` and ``e`` are a_t and e_t by step t.
        """
        xp, dtype = get_xp(m=m), np.dtype(m.dtype)
        a, e = (xp.asarray(x.astype(dtype)) for x in (a, e))
        return cls(xp.zeros((1,), dtype=np.int64), a, e, xp.zeros((3,), dtype=dtype))

    def tick(self) -> Array:
        """Count a step and return its ``now``."""
        kernels.adam_tick(self.step, self.a, self.e, self.now, FLUSH_EVERY)
        return self.now


def accumulate(m: Array, v: Array, g: Array, sizes: StepSizes, scratch: Array) -> None:
    """Add a gradient g to moments m and v that have decayed, in place (derivations 2.6b).

    All have the same shape, that of the parameter.
    """
    xp = get_xp(m=m, v=v, g=g)
    xp.multiply(g, 1.0 - sizes.beta1, out=scratch)
    m += scratch
    xp.multiply(g, g, out=scratch)
    scratch *= 1.0 - sizes.beta2
    v += scratch


def displace(m: Array, v: Array, a: float | Array, e: float | Array, out: Array) -> None:
    """Write ``a m / (sqrt(v) + e)`` to ``out``, which has the same shape as m and v.

    ``a`` and ``e`` are scalars or columns.  See derivations 2.6c.
    """
    xp = get_xp(m=m, v=v)
    xp.sqrt(v, out=out)
    out += e
    xp.divide(m, out, out=out)
    out *= a


def flush(m: Array, v: Array) -> None:
    """Set moments, any shape, that approach the subnormal numbers to zero, in place.

    A moment without gradient decays for ever: 0.9 times the smallest subnormal number rounds to
    itself.  Arithmetic on subnormals is 40 times slower, and these values move no weight: in
    float32 a flushed ``m`` is below 1e-31, so its step is below lr 1e-31 / eps.
    """
    xp = get_xp(m=m, v=v)
    limits = np.finfo(m.dtype)
    m *= xp.abs(m) >= float(limits.tiny) / float(limits.eps)
    v *= v >= float(limits.tiny)


def rows_per_block(xp: object, width: int) -> int:
    """Rows of ``width`` elements to process at once; on a GPU all of them."""
    return max(1, BLOCK // max(width, 1)) if xp is np else 2**62
