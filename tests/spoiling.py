"""Ways to turn a right case into a wrong one."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple
from unittest.mock import patch

from midpg_np.checks import wake_units
from midpg_np.checks.catalogue import CASES


class Wrong(NamedTuple):
    """A right case by name and what spoils it."""

    case: str
    spoil: Callable

    @property
    def forward(self):
        """Name of the right case, whose forward it keeps."""
        return self.case

    def build(self, sizes, rng):
        right = CASES[self.case](sizes, rng)
        return self.spoil(wake_units(right))


def result(case, change):
    """Return another tree: ``change(grads, d_output, cache)``."""

    def spoil(right):
        def backward(d_outputs, cache):
            return change(right.backward(d_outputs, cache), d_outputs[0], cache)

        return replace(right, backward=backward)

    return Wrong(case, spoil)


def op(case, **changes):
    """Return other adjoints for some inputs of an op: ``name=change(grads, dy, inputs)``."""

    def change(grads, dy, cache):
        return grads | {name: wrong(grads, dy, cache[1]) for name, wrong in changes.items()}

    return result(case, change)


def parameter(case, name, change):
    """Return another gradient for one parameter of a layer: ``change(gradient, d_output)``."""

    def spoilt(grads, dy, cache):
        params = grads["params"]
        return grads | {"params": params | {name: change(params[name], dy)}}

    return result(case, spoilt)


def inside(case, target, wrong):
    """Replace the function ``target`` (a path inside the package) while the backward runs."""

    def spoil(right):
        def backward(d_outputs, cache):
            with patch(f"midpg_np.{target}", wrong):
                return right.backward(d_outputs, cache)

        return replace(right, backward=backward)

    return Wrong(case, spoil)
