"""Which quantities of a dump are wrong though everything that they are computed from is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from midpg_np.verify.case import StepCase
from midpg_np.verify.files import Dumped
from midpg_np.verify.longhand import Step
from midpg_np.verify.longhand.adam import adam_step
from midpg_np.verify.outcome import ADJOINT, NEXT, SERVING
from midpg_np.verify.tolerance import allowed_error


def is_close(found: Dumped, want: Any, noise: float) -> bool:
    """Whether a dumped array is ``want`` but for the rounding of its number format."""
    want = np.asarray(want)
    if found.array.shape != want.shape:
        return False
    dtype = (
        found.dtype if want.dtype.kind != "f" or found.dtype.startswith(("f", "b")) else "float64"
    )
    error = np.abs(found.array - want).max(initial=0.0)
    return bool(error <= allowed_error(want, dtype, noise))


class Blame(NamedTuple):
    """Quantities that a dump gets wrong.

    Parameters
    ----------
    certain : list of str
        Wrong though all that they are computed from is right, in order of computation.
    doubtful : set of str
        Wrong, but behind a step that is another operation in the dump, which may be the reason.
    """

    certain: list[str]
    doubtful: set[str]


def blame(case: StepCase, found: Mapping[str, Dumped]) -> Blame:
    """Find the quantities that a dump gets wrong from right inputs.

    Every rule is applied to the dump's own numbers, and its result compared with the dump's; what
    the dump lacks is taken from the rule.  So an error is seen where it is made and not where it
    arrives.

    Parameters
    ----------
    case : StepCase
    found : mapping
        The dump under the case's names.
    """
    search = _Search(case, found)
    certain = search.values() + search.adjoints() + search.moved() + search.prediction()
    return Blame(certain, search.doubtful)


class _Search:
    """State of a pass through a dump: its numbers where it has them, ours elsewhere."""

    def __init__(self, case: StepCase, found: Mapping[str, Dumped]) -> None:
        self.case, self.found = case, found
        self.computed: dict[str, Any] = {}
        self.wrong_steps: set[str] = set()
        self.gradients: dict[str, Any] = {}
        self.doubtful: set[str] = set()

    def _accept(self, name: str, ours: Any) -> tuple[Any, bool]:
        """Return the dump's array if it has a usable one, else ours, and whether it is right."""
        if name not in self.found:
            return ours, True
        dumped = self.found[name]
        if dumped.array.shape != np.shape(ours) or not np.isfinite(dumped.array).all():
            return ours, False
        return dumped.array, is_close(dumped, ours, self.case.noise[name])

    def values(self) -> list[str]:
        """Pass forward."""
        wrong = []
        for name, array in self.case.given.items():
            self.computed[name], is_right = self._accept(name, array)
            if not is_right:
                wrong.append(name)
        for step in self.case.calculation.steps:
            ours = step.rule.forward(*(self.computed[name] for name in step.inputs))
            self.computed[step.output], is_right = self._accept(step.output, ours)
            if not is_right:
                wrong.append(step.output)
                self.wrong_steps.add(step.output)
        return wrong

    def adjoints(self) -> list[str]:
        """Pass backward."""
        calculation, wrong = self.case.calculation, []
        target = calculation.target
        collected = {target: np.ones_like(self.computed[target])}
        for step in reversed(calculation.relevant):
            for name, part in calculation.contributions(step, self.computed, collected).items():
                collected[name] = collected[name] + part if name in collected else part
            for name in calculation.completed_by(step):
                if name in collected:
                    ours = collected[name]
                    collected[name], is_right = self._accept(ADJOINT + name, ours)
                    if not is_right and self._reads_wrongly(name):
                        self.doubtful.add(ADJOINT + name)
                    elif not is_right:
                        wrong.append(ADJOINT + name)
        self.gradients = collected
        return wrong

    def _reads_wrongly(self, name: str) -> bool:
        """Whether a reader of a quantity is another operation in the dump, and so its adjoint."""
        readers: tuple[Step, ...] = self.case.calculation.readers[name]
        return any(step.output in self.wrong_steps for step in readers)

    def moved(self) -> list[str]:
        """Check the optimiser's step."""
        wrong = []
        for name in self.case.params:
            ours = adam_step(self.computed[name], self.gradients[name])
            if not self._accept(NEXT + name, ours)[1]:
                wrong.append(NEXT + name)
        return wrong

    def prediction(self) -> list[str]:
        """Check the serving path, as far as what it shares with training is right."""
        name = SERVING + "logit"
        if self._accept(name, self.case.arrays[name])[1]:
            return []
        if self.wrong_steps:
            self.doubtful.add(name)
            return []
        return [name]
