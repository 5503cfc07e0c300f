"""Name the mistake: which entry of the catalogue, or which pair, reproduces a dump's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.verify.blame import Blame, blame, is_close
from midpg_np.verify.case import StepCase
from midpg_np.verify.compare import Comparison, compare
from midpg_np.verify.files import Dumped
from midpg_np.verify.longhand import Calculation
from midpg_np.verify.mistakes import Mistake, mistakes_in
from midpg_np.verify.mistakes.mistake import GRADIENT
from midpg_np.verify.outcome import SERVING, outcomes

Suspects = tuple[Mistake, ...]
# Passes on what it is given, one by one; a command line draws a bar.
Track = Callable[[Iterable[Suspects], int], Iterable[Suspects]]


@dataclass(frozen=True)
class Diagnosis:
    """What is the matter with a dump.

    Parameters
    ----------
    comparison : Comparison
    matches : tuple
        Mistakes that reproduce every number of the dump: tuples of one or of two.  Several tuples
        are a tie: on this case, with these names, they are the same.
    blamed : tuple of str
        The quantities that are wrong though all that they are computed from is right.
    n_tried : int
        How many mistakes and pairs were tried.
    """

    comparison: Comparison
    matches: tuple[Suspects, ...]
    blamed: tuple[str, ...]
    n_tried: int

    @property
    def names(self) -> list[tuple[str, ...]]:
        """The matches by name."""
        return [tuple(mistake.name for mistake in match) for match in self.matches]


def diagnose(
    case: StepCase,
    dump: Mapping[str, Any] | str | Path,
    names: Mapping[str, Any] | str | Path | None = None,
    ignore: Sequence[str] = (),
    track: Track = lambda suspects, n: suspects,
) -> Diagnosis:
    """Run the reference under every mistake of the catalogue, and say which one the dump carries.

    Single mistakes come first, made everywhere in the model; then each in one place alone; then
    pairs.  A mistake whose own quantities the dump has right is not tried.

    Parameters
    ----------
    case, dump, names, ignore
        As in ``compare``.
    track : callable
        ``track(suspects, n)`` passes the suspects on, for a progress bar.
    """
    comparison = compare(case, dump, names, ignore)
    if comparison.ok:
        return Diagnosis(comparison, (), (), 0)
    found = blame(case, comparison.dump)
    suspects = [m for m in mistakes_in(case.model) if _is_suspect(m, comparison, found)]
    rounds = (
        [(m,) for m in suspects],
        [(part,) for m in suspects for part in m.in_single_places(case.calculation)],
        list(pairs(suspects, case.calculation)),
    )
    n_tried, matches = 0, []
    for candidates in rounds:
        for candidate in track(candidates, len(candidates)):
            if reproduces(case, comparison.dump, candidate):
                matches.append(candidate)
        n_tried += len(candidates)
        if matches:
            break
    return Diagnosis(comparison, tuple(matches), tuple(found.certain), n_tried)


def _is_suspect(mistake: Mistake, comparison: Comparison, found: Blame) -> bool:
    """Whether one of the mistake's own quantities is wrong by itself, or not in the dump."""
    own = mistake.own_names(comparison.case.calculation, comparison.case.model)
    own |= {SERVING + "logit"} if mistake.shows == "serving" else set()
    seen = own.intersection(comparison.dump)
    return bool(own) and (
        not seen or bool(seen.intersection(found.certain) or seen & found.doubtful)
    )


def pairs(suspects: Sequence[Mistake], calculation: Calculation) -> Iterator[Suspects]:
    """Yield the pairs that can be made together, in the order in which they are put in.

    Of two that exchange one step, one may be wrong in the gradient alone: it goes in second, on top
    of the other.  Two wrong values of one step exclude each other.
    """
    changed = [{s.output for s in calculation.steps if m.changes_step(s)} for m in suspects]
    for (first, steps), (second, others) in combinations(zip(suspects, changed, strict=True), 2):
        if steps.isdisjoint(others):
            yield first, second
        elif second.shows == GRADIENT:
            yield first, second
        elif first.shows == GRADIENT:
            yield second, first


def reproduces(case: StepCase, found: Mapping[str, Dumped], mistakes: Suspects) -> bool:
    """Whether the reference with these mistakes gives every number of a dump."""
    try:
        with np.errstate(all="ignore"):
            for part in outcomes(case.model, case.given, mistakes):
                for name, array in part.items():
                    noise = _noise(case, name, array) if name in found else 0.0
                    if name in found and not is_close(found[name], array, noise):
                        return False
    except (TypeError, ValueError, IndexError):
        # A wrong adjoint may not fit the other inputs of a wrong operation in the same step.
        if len(mistakes) == 1:
            raise
        return False
    return True


def _noise(case: StepCase, name: str, array: Any) -> float:
    """Return the noise of a quantity that a mistake may have made larger."""
    right = float(np.abs(case.arrays[name]).max(initial=0.0))
    largest = float(np.abs(array).max(initial=0.0))
    return case.noise[name] * max(1.0, largest / right) if right else 0.0
