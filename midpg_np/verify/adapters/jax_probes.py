"""What a comparison of numbers cannot see in a JAX function: each probe returns sentences.

JAX is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

REPEAT = (
    "{where} cannot be repeated: {name} is another in a second call with equal arguments. Draw no "
    "numbers outside of jax.random, keep nothing between calls, and read 'partner' from the inputs."
)
NOT_TRACED = "jax.jit cannot trace the function: {} All numbers were computed without it."
OTHER_IN_JIT = (
    "{where} gives another {name} under jax.jit than without it, by {error:.1e}: something is "
    "computed once, while the function is traced."
)
UNUSED_TAP = "what tap({0!r}, x) returns is not used: go on with it, as in x = tap({0!r}, x)."


class Traced:
    """A function under ``jax.jit``; as it is, if it can be called but not traced.

    Parameters
    ----------
    function : callable

    Attributes
    ----------
    problems : list of str
        Why it cannot be traced.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        import jax

        self.function, self.jitted = function, jax.jit(function)
        self.problems: list[str] = []

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        if self.problems:
            return self.function(*args)
        try:
            return self.jitted(*args)
        except Exception as error:  # code that was written without jit in mind raises anything
            result = self.function(*args)
            self.problems.append(NOT_TRACED.format(first_line(error)))
            return result


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, as a sentence."""
    text = (str(error).splitlines() or [""])[0].rstrip(" .:;")
    return f"{text or type(error).__name__}."


def not_repeated(where: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Say whether two calls with equal arguments gave different numbers.

    Parameters
    ----------
    where : str
        "training" or "a prediction".
    first, second : mapping
        What came out, by name.
    """
    for name in [*first, *second]:
        is_same = (
            name in first
            and name in second
            and np.array_equal(
                np.asarray(first[name], float), np.asarray(second[name], float), equal_nan=True
            )
        )
        if not is_same:
            return [REPEAT.format(where=where, name=name)]
    return []


def other_in_jit(
    where: str, plain: Mapping[str, Any], traced: Mapping[str, Any], tolerance: float
) -> list[str]:
    """Say whether a function gives other numbers when it is traced.

    Parameters
    ----------
    where : str
        "training" or "a prediction".
    plain, traced : mapping
        What came out without ``jax.jit`` and with it.
    tolerance : float
        Error allowed relative to the largest entry, or to 1.
    """
    for name, array in plain.items():
        want = np.asarray(array, float)
        got = np.asarray(traced[name], float) if name in traced else np.full_like(want, np.inf)
        if got.shape != want.shape or not np.isfinite(want).all():
            continue  # the comparison says so
        error = float(np.abs(got - want).max(initial=0.0))
        if not error <= tolerance * max(1.0, float(np.abs(want).max(initial=0.0))):
            return [OTHER_IN_JIT.format(where=where, name=name, error=error)]
    return []


def narrow(found: Mapping[str, Any], dtype: str) -> list[str]:
    """Say which arrays have fewer digits than the run should have."""
    import jax.numpy as jnp

    full = np.dtype(dtype).itemsize
    names = [
        name
        for name, x in found.items()
        if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < full
    ]
    if not names:
        return []
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [
        f"{names[0]}{others} came out in {found[names[0]].dtype}, though all that went in has "
        f"{dtype}: leave out the conversion, or everything is compared with wider tolerances."
    ]
