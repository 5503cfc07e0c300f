"""What a mistake is: an exchange of single rules in a model's written-out step, with its story."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from midpg_np.verify.longhand import Calculation, Rule, Step

# How a mistake shows (derivations 14).
VALUE, GRADIENT, SERVING, STATE = "value", "gradient", "serving", "state"


@dataclass(frozen=True)
class Change:
    """An exchange of the steps whose output matches a pattern.

    Parameters
    ----------
    at : str
        Pattern of the outputs, as in file names: "layer_*.Q".
    make : callable
        ``make(step, model) -> step``, the wrong one.
    adjoint_of : tuple of int or callable
        Positions of the inputs whose adjoints are wrong, or ``adjoint_of(step)``, which tells
        them; () if the value itself is wrong.
    in_training, in_serving : bool
        Where the wrong step is used.
    within : str
        The part of the model in which the mistake is made, a beginning of names; "" for all of it.
    is_meant : callable
        ``is_meant(step, model)``: a further condition on the steps.
    """

    at: str
    make: Callable[[Step, Any], Step]
    adjoint_of: tuple[int, ...] | Callable[[Step], tuple[int, ...]] = ()
    in_training: bool = True
    in_serving: bool = True
    within: str = ""
    is_meant: Callable[[Step, Any], bool] = lambda step, model: True

    def matches(self, step: Step) -> bool:
        """Whether a step is exchanged."""
        is_inside = f"{step.output}.".startswith(f"{self.within}.") or not self.within
        return is_inside and fnmatchcase(step.output, self.at)

    def made(self, step: Step, model: Any) -> Step:
        """Return the wrong step, or the same one where the change does not apply."""
        is_due = self.matches(step) and self.is_meant(step, model)
        return self.make(step, model) if is_due else step

    def own_names(self, step: Step, model: Any) -> list[str]:
        """Return the quantities that are wrong though all that they are computed from is right."""
        if not (self.matches(step) and self.is_meant(step, model)):
            return []
        if not self.in_training:
            return ["serving.logit"]
        positions = self.adjoint_of(step) if callable(self.adjoint_of) else self.adjoint_of
        return [f"d.{step.inputs[i]}" for i in positions] or [step.output]


@dataclass(frozen=True)
class Mistake:
    """A classic error in a model, its executable form, and what to say about it.

    Parameters
    ----------
    name : str
        A short phrase that names what was done.
    models : tuple of str
        Models in ``MODELS`` that can have it.
    equation : str
        Number of the equation in docs/derivations.
    wrong, right : str
        The formula as it is done and as it should be.
    shows : str
        "value", "gradient" (with right values), "serving" (prediction only) or "state" (what is
        kept after a step).
    fix : str
        What to change, in a sentence.
    changes : tuple of Change
        The executable form.
    update : callable, optional
        ``update(name, param, gradient) -> param`` in place of the optimiser's step.
    moves : str
        Pattern of the parameters that ``update`` treats wrongly.
    options : mapping
        Options of the model beside its defaults under which the mistake shows.
    applies : callable
        ``applies(model)``: whether there is such a thing in a model with these options.
    n_rows : int, optional
        Rows that a batch must have for it to show.
    """

    name: str
    models: tuple[str, ...]
    equation: str
    wrong: str
    right: str
    shows: str
    fix: str
    changes: tuple[Change, ...] = ()
    update: Callable[[str, Any, Any], Any] | None = None
    moves: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    applies: Callable[[Any], bool] = lambda model: True
    n_rows: int | None = None

    def applied(self, calculation: Calculation, model: Any, *, training: bool) -> Calculation:
        """Return the calculation with the mistake in it; it may have no place there."""
        steps = list(calculation.steps)
        for change in self.changes:
            if change.in_training if training else change.in_serving:
                steps = [change.made(step, model) for step in steps]
        return replace(calculation, steps=tuple(steps))

    def changes_step(self, step: Step) -> bool:
        """Whether the mistake exchanges a step."""
        return any(change.matches(step) for change in self.changes)

    def in_single_places(self, calculation: Calculation) -> list[Mistake]:
        """Return the mistake made in one part of the model alone, if it has several places."""
        outputs = [step.output for step in calculation.steps if self.changes_step(step)]
        places = list(dict.fromkeys(output.rpartition(".")[0] or output for output in outputs))
        if len(places) < 2:
            return []
        return [
            replace(
                self,
                name=f"{self.name} (only in {place})",
                changes=tuple(replace(c, within=place) for c in self.changes),
            )
            for place in places
        ]

    def own_names(self, calculation: Calculation, model: Any) -> set[str]:
        """Return the names that the mistake makes wrong by itself, not through others."""
        names = {
            name
            for change in self.changes
            for step in calculation.steps
            for name in change.own_names(step, model)
        }
        if self.update is not None:
            names |= {f"next.{n}" for n in calculation.given if fnmatchcase(n, self.moves)}
        return names


def value(
    at: str,
    rule: Rule | Callable[[Step, Any], Rule],
    *,
    in_training: bool = True,
    in_serving: bool = True,
) -> Change:
    """Another operation on the same inputs, differentiated rightly.

    Parameters
    ----------
    at : str
        Pattern of the outputs.
    rule : Rule or callable
        The wrong rule, or ``rule(step, model)`` that makes it.
    in_training, in_serving : bool
        See ``Change``.
    """

    def make(step: Step, model: Any) -> Step:
        wrong = rule if isinstance(rule, Rule) else rule(step, model)
        return replace(step, rule=wrong)

    return Change(at, make, in_training=in_training, in_serving=in_serving)


def reading(
    at: str,
    inputs: Callable[[Step, Any], tuple[str, ...]],
    rule: Rule | None = None,
    *,
    in_training: bool = True,
    in_serving: bool = True,
) -> Change:
    """Read other inputs, ``inputs(step, model) -> names``, with the same rule or another."""

    def make(step: Step, model: Any) -> Step:
        return replace(step, inputs=inputs(step, model), rule=rule or step.rule)

    return Change(at, make, in_training=in_training, in_serving=in_serving)


def adjoint(at: str, wrong: Callable[..., Any], of: int = 0) -> Change:
    """Another adjoint of one input; the value is right.

    Parameters
    ----------
    at : str
        Pattern of the outputs.
    wrong : callable
        ``wrong(right, dy, y, *inputs)``, in place of ``right``, the right adjoint.
    of : int
        Position of the input.
    """

    def make(step: Step, _: Any) -> Step:
        def backward(dy: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
            parts = list(step.rule.backward(dy, y, *inputs))
            right = np.zeros_like(inputs[of]) if parts[of] is None else parts[of]
            parts[of] = wrong(right, dy, y, *inputs)
            return tuple(parts)

        return replace(step, rule=replace(step.rule, backward=backward))

    return Change(at, make, (of,))


def dropped(at: str, of: int = 0) -> Change:
    """Send nothing back to one input, as behind a ``detach`` that nobody asked for."""
    return adjoint(at, lambda right, *_: None, of)


def _every_input(step: Step) -> tuple[int, ...]:
    return tuple(range(len(step.inputs)))


def dropped_all(at: str) -> Change:
    """Send nothing back to any input."""

    def make(step: Step, _: Any) -> Step:
        silent = replace(step.rule, backward=lambda *_: (None,) * len(step.inputs))
        return replace(step, rule=silent)

    return Change(at, make, _every_input)


def reversed_all(at: str) -> Change:
    """Send everything back with the other sign."""

    def make(step: Step, _: Any) -> Step:
        def backward(*arguments: Any) -> tuple[Any, ...]:
            return tuple(None if d is None else -d for d in step.rule.backward(*arguments))

        return replace(step, rule=replace(step.rule, backward=backward))

    return Change(at, make, _every_input)


def only_where(is_meant: Callable[[Step, Any], bool], change: Change) -> Change:
    """Make the change where ``is_meant(step, model)`` alone."""
    return replace(change, is_meant=is_meant)
