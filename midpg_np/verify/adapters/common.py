"""What the adapters for PyTorch and JAX have in common: report, results of a call, loss, names.

What they share about parameters is in ``params``, about predictions in ``probes``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from midpg_np.tree import tree_flatten
from midpg_np.verify.adapters.params import positions
from midpg_np.verify.case import StepCase
from midpg_np.verify.compare import Comparison, DumpMismatchError
from midpg_np.verify.diagnose import Diagnosis, diagnose
from midpg_np.verify.names import TEMPLATES, NameMap, Place, closest
from midpg_np.verify.outcome import ADJOINT, NEXT, SERVING

# Error allowed between two predictions of the same row, relative to the largest logit.
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
KINDS = ("value", "gradient", "next", "serving")
TRAINING_ONLY = ("label", "partner")


class PredictionInputError(ValueError):
    """A prediction was asked for what only training has."""


@dataclass(frozen=True)
class Report:
    """What was found.

    Parameters
    ----------
    comparison : Comparison
        Number by number.
    problems : tuple of str
        What numbers do not show, a sentence each.
    """

    comparison: Comparison
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all that was compared is right, and there are no problems."""
        return self.comparison.ok and not self.problems

    def raise_if_wrong(self) -> None:
        """Raise an error that says all that is wrong.

        Raises
        ------
        DumpMismatchError
            Unless ``ok``.
        """
        if not self.ok:
            raise DumpMismatchError(str(self))

    def diagnose(self) -> Diagnosis:
        """Say which mistake of the catalogue reproduces the numbers."""
        return diagnose(self.comparison.case, self.comparison.dump)

    def __str__(self) -> str:
        wrong, n_compared = self.comparison.wrong, self.comparison.n_compared
        lines = [f"{n_compared - len(wrong)} of {n_compared} compared quantities are right"]
        if len(self.comparison.entries) > n_compared:
            lines[0] += f", {len(self.comparison.missing)} of the case were not given"
        firsts = {kind: self.comparison.first(kind) for kind in KINDS}
        lines += [f"first wrong {kind}: {entry}" for kind, entry in firsts.items() if entry]
        return "\n".join([*lines, *(f"problem: {problem}" for problem in self.problems)])


def check_dtype(dtype: str) -> None:
    """Raise ValueError for a number format in which nothing can be checked."""
    if dtype not in TOLERANCES:
        raise ValueError(f"dtype must be one of {list(TOLERANCES)}; got {dtype!r}.")


# --- calls ----------------------------------------------------------------------------------------


def serving_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a prediction has."""
    return {name: array for name, array in inputs.items() if name not in TRAINING_ONLY}


def prediction_needs(who: str, name: str) -> PredictionInputError:
    """Return the error of a prediction that asks for what only training has."""
    return PredictionInputError(
        f"{who} needs {name!r}, which a prediction does not have; predictions are not checked."
    )


@contextmanager
def called_with(inputs: Mapping[str, Any]) -> Iterator[None]:
    """Turn a KeyError for what only training has into a PredictionInputError."""
    try:
        yield
    except KeyError as error:
        name = error.args[0] if error.args else None
        if name in TRAINING_ONLY and name not in inputs:
            raise prediction_needs("the call", name) from error
        raise


def named_results(
    returned: Any, places: NameMap, array_type: Any, many: str, as_array: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return what a call returned by name: an array alone, or the first of a pair, is the logit.

    Parameters
    ----------
    returned
        An array, arrays by name (nested dictionaries are named with dots), or a pair of the two.
    places : NameMap
    array_type, many
        Type of the framework's arrays, and the word for several.
    as_array : callable
        Makes one of what is returned.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    place = places.place("logit")
    name = place.sources[0]
    if isinstance(returned, array_type):
        returned = {name: returned}
    elif isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        returned = {name: returned[0], **returned[1]}
    elif not isinstance(returned, Mapping):
        raise ValueError(
            f"the call returned a {type(returned).__name__}; expected the logit, "
            f"{many} by name, or a pair of the two."
        )
    found = {key: as_array(x) for key, x in tree_flatten(returned).items() if x is not None}
    if name in found and place == Place((name,)) and found[name].shape[1:] == (1,):
        found[name] = found[name][:, 0]  # (B, 1), as a last layer of width 1 gives it
    return found


# --- names ----------------------------------------------------------------------------------------


def mapped_sources(places: NameMap) -> set[str]:
    """Return all names of the other implementation that a map speaks of."""
    return {source for place in places.places.values() for source in place.sources}


def derived(places: NameMap, prefix: str, source: str) -> str:
    """Return the name of a gradient, a next value or a prediction in the dump."""
    kind = next(kind for kind, known in TEMPLATES.items() if known == prefix)
    return places.templates[kind].replace("{name}", source)


def differentiable_sources(case: StepCase, places: NameMap) -> set[str]:
    """Return where the quantities are that have a gradient in the case."""
    return {
        source
        for name in case.arrays
        if ADJOINT + name in case.arrays
        for source in places.place(name).sources
    }


def serving_sources(places: NameMap) -> list[tuple[str, str]]:
    """Return where the logit is, and under which name the dump has that of a prediction."""
    sources, targets = (places.place(name).sources for name in ("logit", SERVING + "logit"))
    return list(zip(sources, targets, strict=False))


def check_mapped(places: NameMap, known: Iterable[str], otherwise: str) -> None:
    """Raise ValueError for a name in the map that is neither a parameter nor came out.

    Parameters
    ----------
    places : NameMap
    known : iterable of str
        Parameters, state, and all that came out.
    otherwise : str
        What such a name could have been besides, as the sentence ends: "was not tapped".
    """
    known = list(known)
    for name, place in places.places.items():
        is_derived = name.startswith((ADJOINT, NEXT, SERVING))
        for source in place.sources:
            if not is_derived and source not in known:
                raise ValueError(
                    f"{name} is mapped to {source!r}, which is no parameter, was not returned, "
                    f"and {otherwise}.{closest(source, known)}"
                )


# --- the loss -------------------------------------------------------------------------------------


def quantity(
    arrays: Mapping[str, Any], places: NameMap, name: str, concatenate: Callable[[Any], Any]
) -> Any:
    """Return a quantity of the case as an array that its framework differentiates; None without it.

    Parameters
    ----------
    arrays : mapping
        What came out, by name.
    places : NameMap
    name : str
        Name in the case.
    concatenate : callable
        The framework's own, of a list of vectors.
    """
    place = places.place(name)
    if any(source not in arrays for source in place.sources):
        return None
    parts = [arrays[source] for source in place.sources]
    where = positions(place, [tuple(part.shape) for part in parts])
    return concatenate([part.reshape(-1) for part in parts])[where]


def joint_loss(
    look_up: Callable[[str], Any],
    case: StepCase,
    returned: Iterable[str],
    cross_entropy: Callable[[Any], Any],
) -> tuple[Any, list[str]]:
    """Return the loss, formed from its terms unless it is there, and what was missing for it.

    Parameters
    ----------
    look_up : callable
        ``look_up(name)`` returns a quantity of the case, or None.
    case : StepCase
    returned : iterable of str
        Names of all that came out.
    cross_entropy : callable
        Mean cross-entropy of a logit with the labels of the case.

    Raises
    ------
    ValueError
        If there is neither a loss nor a logit, or if the loss is not one number.
    """
    problems: list[str] = []
    loss = look_up("loss")
    if loss is None:
        loss, logit = look_up("ce"), look_up("logit")
        if loss is None and logit is None:
            raise ValueError(f"the call returned {sorted(returned)}; expected a logit or a loss.")
        loss = cross_entropy(logit) if loss is None else loss
        for term, weight in case.model.auxiliary_weights.items():
            value = look_up(term)
            if value is not None:
                loss = loss + weight * value
            elif term in case.arrays and weight:
                problems.append(f"the term {term!r} is missing: the loss was formed without it.")
    if math.prod(loss.shape) != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; expected one number.")
    return loss.reshape(()), problems
