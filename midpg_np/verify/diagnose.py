"""Name the mistake: which entry of the catalogue, or which pair, reproduces a dump's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.verify.blame import blamed, is_close
from midpg_np.verify.case import StepCase
from midpg_np.verify.compare import Comparison, compare
from midpg_np.verify.files import Dumped
from midpg_np.verify.mistakes import Mistake, mistakes_of
from midpg_np.verify.outcome import SERVING, outcomes
from midpg_np.verify.tolerance import rounding_noise

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
    noise = rounding_noise(case.model, case.given)
    if comparison.ok:
        return Diagnosis(comparison, (), (), 0)
    places = blamed(case, comparison.dump, noise)
    suspects = [m for m in mistakes_of(case.model_name) if _is_suspect(m, comparison, places)]
    rounds = (
        [(m,) for m in suspects],
        [(part,) for m in suspects for part in m.in_single_places(case.calculation)],
        list(combinations(suspects, 2)),
    )
    n_tried, matches = 0, []
    for candidates in rounds:
        for candidate in track(candidates, len(candidates)):
            if reproduces(case, comparison.dump, candidate, noise):
                matches.append(candidate)
        n_tried += len(candidates)
        if matches:
            break
    return Diagnosis(comparison, tuple(matches), tuple(places), n_tried)


def _is_suspect(mistake: Mistake, comparison: Comparison, places: Sequence[str]) -> bool:
    """Whether one of the mistake's own quantities is wrong by itself, or not in the dump."""
    own = mistake.own_names(comparison.case.calculation)
    own |= {SERVING + "logit"} if mistake.shows == "serving" else set()
    seen = [name for name in own if name in comparison.dump]
    return bool(own) and (not seen or any(name in places for name in seen))


def reproduces(
    case: StepCase,
    found: Mapping[str, Dumped],
    mistakes: Suspects,
    noise: Mapping[str, float],
) -> bool:
    """Whether the reference with these mistakes gives every number of a dump."""
    with np.errstate(all="ignore"):
        for part in outcomes(case.model, case.given, mistakes):
            for name, array in part.items():
                if name in found and not is_close(
                    found[name], array, _amplified(name, array, case, noise)
                ):
                    return False
    return True


def _amplified(name: str, array: Any, case: StepCase, noise: Mapping[str, float]) -> float:
    """Return the noise of a quantity that a mistake made larger or smaller."""
    if name not in noise:
        return 0.0
    right = np.abs(case.arrays[name]).max(initial=0.0)
    return noise[name] * max(1.0, float(np.abs(array).max(initial=0.0) / right)) if right else 0.0
