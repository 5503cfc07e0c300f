"""The function that is compared with a case, how it is called, and what comes out of it.

JAX is imported where it is used: the package does not need it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.verify.adapters.common import called_with, mapped_sources, named_results, quantity
from midpg_np.verify.adapters.jax_tree import ParamTree
from midpg_np.verify.names import NameMap

OPTIONAL = ("tap", "training")
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Pass(NamedTuple):
    """What came out of a call, by name: what was tapped on the way, and what was returned."""

    tapped: dict[str, Any]
    returned: dict[str, Any]

    @property
    def found(self) -> dict[str, Any]:
        """All of it."""
        return self.tapped | self.returned


class Recorder:
    """The ``tap`` of a call: it keeps what it is given, and adds arrays of zeros.

    The gradient of what is added is that of the intermediate, for code that goes on with the sum.

    Parameters
    ----------
    places : NameMap
    probes : mapping, optional
        What is added, by name; None if nothing is traced in this call.
    """

    def __init__(self, places: NameMap, probes: Mapping[str, Any] | None) -> None:
        self.wanted, self.probes = mapped_sources(places), probes
        self.tapped: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def __call__(self, name: str, x: Any) -> Any:
        """Keep an intermediate and return what to go on with.

        Raises
        ------
        ValueError
            If it is no array, or one of a transformation that ends before the call does.
        """
        import jax
        import jax.numpy as jnp

        if not isinstance(x, (jax.Array, np.ndarray)):
            raise ValueError(f"tap({name!r}) was given a {type(x).__name__}; expected an array.")
        if self.probes is None and isinstance(x, jax.core.Tracer):
            raise ValueError(
                f"tap({name!r}) was called inside of jax.jit, jax.vmap, jax.lax.scan or the like, "
                "out of which it can take no array; call it outside, on what comes out."
            )
        key = self._key(name)
        self.tapped[key] = jnp.asarray(x)
        if self.probes and key in self.probes:
            self.tapped[key] += self.probes[key]
        return self.tapped[key]

    def _key(self, name: str) -> str:
        """Return the name of this call; from the second on it has the number of the call."""
        number = self.counts.get(name, 0)
        self.counts[name] = number + 1
        numbered = f"{name}[{number}]"
        return numbered if number or numbered in self.wanted else name


@dataclass(frozen=True)
class Subject:
    """A function and the structure of its parameters.

    Parameters
    ----------
    function : callable
        ``function(params, inputs)``, perhaps with ``tap`` and ``training``.
    tree : ParamTree
    places : NameMap
    takes : frozenset of str
        Which of the two it has.
    """

    function: Callable[..., Any]
    tree: ParamTree
    places: NameMap
    takes: frozenset[str]

    def __call__(
        self,
        arrays: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        training: bool,
        probes: Mapping[str, Any] | None = None,
    ) -> Pass:
        """Call the function.

        Parameters
        ----------
        arrays : mapping
            Parameters and state by path.
        inputs : mapping
            The batch.
        training : bool
        probes : mapping, optional
            As in ``Recorder``.
        """
        import jax
        import jax.numpy as jnp

        tap = Recorder(self.places, probes)
        options = {"tap": tap, "training": training}
        options = {name: options[name] for name in self.takes}
        with called_with(inputs):
            returned = self.function(self.tree.filled(arrays), dict(inputs), **options)
        if isinstance(returned, np.ndarray):
            returned = jnp.asarray(returned)
        named = named_results(returned, self.places, jax.Array, "arrays", jnp.asarray)
        return Pass(tap.tapped, named)


def optional_arguments(function: Callable[..., Any]) -> frozenset[str]:
    """Return which of "tap" and "training" a function takes.

    Raises
    ------
    ValueError
        If it does not take two arguments, or needs others.
    """
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    positional = [p for p in positional if p.name not in OPTIONAL][:2]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    is_open = (p for p in parameters if p.default is p.empty and p.kind not in VARIADIC)
    others = [p.name for p in is_open if p not in positional and p.name not in OPTIONAL]
    if (len(positional) < 2 and not takes_any) or others:
        names = [p.name for p in parameters]
        raise ValueError(
            f"the function takes {names}; expected (params, inputs), and tap and training if it "
            "has them. Wrap one that needs more, as lambda params, inputs: ..."
        )
    return frozenset(p.name for p in parameters if p.name in OPTIONAL)


def read(arrays: Mapping[str, Any], places: NameMap, name: str) -> Any:
    """Return a quantity of the case as an array that JAX differentiates; None if it is not there.

    A term that was only tapped counts: it is part of the loss all the same.
    """
    import jax.numpy as jnp

    return quantity(arrays, places, name, jnp.concatenate)
