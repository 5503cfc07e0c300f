"""A training step written out: named quantities, one rule each, and the adjoints by the same list.

The models' own passes are written for reading and for speed; they fuse, sort rows and keep what
they need.  To say which line of a foreign implementation is wrong, every quantity needs a name, the
names of what it is computed from, and a rule that can be exchanged for a wrong one.  That is all
there is here: no rule is differentiated, each brings an adjoint that was derived by hand
(docs/decisions/0011-longhand.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """One operation with its adjoint.

    Parameters
    ----------
    forward : callable
        ``forward(*inputs) -> y``; works on complex input unless it decides or counts.
    backward : callable
        ``backward(dy, y, *inputs) -> adjoints``, one per input; None where the input is an integer
        or has no derivative.
    is_stop : bool
        The operation is a stop-gradient: a numerical check holds its value fixed.
    """

    forward: Callable[..., np.ndarray]
    backward: Callable[..., tuple[Any, ...]]
    is_stop: bool = False


@dataclass(frozen=True)
class Step:
    """``output = rule(*inputs)``, with the number of its equation."""

    output: str
    inputs: tuple[str, ...]
    rule: Rule
    equation: str = ""


class Sheet:
    """What a model's steps are written on, in order of computation."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, output: str, rule: Rule, *inputs: str, eq: str = "") -> str:
        """Write down ``output = rule(*inputs)`` and return the name of the output."""
        self.steps.append(Step(output, inputs, rule, eq))
        return output


@dataclass(frozen=True)
class Calculation:
    """Steps in order of computation.

    Parameters
    ----------
    steps : tuple of Step
        Every output has one step, and is written before it is read.
    target : str
        The scalar that is differentiated.
    constants : frozenset of str
        Given real quantities that have no gradient: labels, moving averages.
    """

    steps: tuple[Step, ...]
    target: str = "loss"
    constants: frozenset[str] = field(default_factory=frozenset)

    @property
    def given(self) -> list[str]:
        """Names that are read and not computed: parameters, inputs, state, in order of reading."""
        computed = {step.output for step in self.steps}
        return list(dict.fromkeys(n for s in self.steps for n in s.inputs if n not in computed))

    def run(self, given: Mapping[str, Any], frozen: Mapping[str, Any] | None = None) -> Values:
        """Return the given and all computed quantities, in order of computation.

        Parameters
        ----------
        given : mapping
            A value for each name in ``self.given``, and any others.
        frozen : mapping, optional
            Values behind stop-gradients, to hold fixed.
        """
        values = dict(given)
        for step in self.steps:
            if frozen is not None and step.rule.is_stop:
                values[step.output] = frozen[step.output]
            else:
                values[step.output] = step.rule.forward(*(values[name] for name in step.inputs))
        return values

    def adjoints(self, values: Mapping[str, Any]) -> Values:
        """Return the adjoint of every quantity that the target depends on, in backward order.

        A quantity's adjoint is whole once its first reader has been passed on the way back.
        """
        adjoint: Values = {self.target: np.ones_like(values[self.target])}
        collected: Values = dict(adjoint)
        for step in reversed(self.relevant):
            parts = self.contributions(step, values, collected)
            for name, part in parts.items():
                collected[name] = collected[name] + part if name in collected else part
            done = [name for name in self.completed_by(step) if name in collected]
            adjoint |= {name: collected[name] for name in done}
        return adjoint

    def contributions(
        self, step: Step, values: Mapping[str, Any], adjoints: Mapping[str, Any]
    ) -> Values:
        """Return what one step sends back to its inputs; zeros where a derivative is stopped."""
        if step.output not in adjoints:  # an integer, or state
            return {}
        inputs = [values[name] for name in step.inputs]
        sent = step.rule.backward(adjoints[step.output], values[step.output], *inputs)
        parts: Values = {}
        for name, value, part in zip(step.inputs, inputs, sent, strict=True):
            if not self.has_adjoint(name, value):
                continue
            part = np.zeros_like(value) if part is None else part
            parts[name] = parts[name] + part if name in parts else part
        return parts

    def has_adjoint(self, name: str, value: Any) -> bool:
        """Whether a quantity is differentiable: real, and no constant."""
        return name not in self.constants and np.asarray(value).dtype.kind in "fc"

    @cached_property
    def relevant(self) -> tuple[Step, ...]:
        """The steps that the target depends on."""
        needed, steps = {self.target}, []
        for step in reversed(self.steps):
            if step.output in needed:
                needed.update(step.inputs)
                steps.append(step)
        return tuple(reversed(steps))

    @cached_property
    def readers(self) -> dict[str, tuple[Step, ...]]:
        """The relevant steps that read each quantity, in order of computation."""
        found: dict[str, tuple[Step, ...]] = {}
        for step in self.relevant:
            for name in dict.fromkeys(step.inputs):
                found[name] = (*found.get(name, ()), step)
        return found

    def completed_by(self, step: Step) -> list[str]:
        """Return the inputs of which a step is the first reader, last in the backward pass."""
        return [name for name in dict.fromkeys(step.inputs) if self.readers[name][0] is step]
