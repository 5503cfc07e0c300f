"""Parameters of a case among the arrays of another implementation: where each is, what is left."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from midpg_np.verify.case import StepCase
from midpg_np.verify.names import NameMap, Place, closest
from midpg_np.verify.outcome import ADJOINT

NO_GRADIENT = "{path} receives no gradient, though it should as {name}: {why}."
NOT_MOVED = "{} does not move in a step of {}, though it should."


class Arrays(NamedTuple):
    """Arrays of another implementation, and the words for them in sentences.

    Parameters
    ----------
    shapes : mapping
        Shape by path.
    keys : mapping
        What is equal for two paths if and only if they lead to one array.
    owner : str
        What holds them: "the module".
    kind, one : str
        What they are there: "parameter or buffer"; what one is: "tensor".
    """

    shapes: Mapping[str, tuple[int, ...]]
    keys: Mapping[str, Hashable]
    owner: str
    kind: str
    one: str


class Claim(NamedTuple):
    """Which quantity of the case each entry of an array is: an index, -1 where none is."""

    path: str
    owners: np.ndarray


def positions(place: Place, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return where a quantity's entries are in its sources, flattened and one behind the other.

    Reading numbered entries instead of values turns ``Place.read`` round, whatever it does.
    """
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    starts = np.cumsum([0, *sizes[:-1]])
    numbered = [
        np.arange(start, start + size).reshape(shape)
        for start, size, shape in zip(starts, sizes, shapes, strict=True)
    ]
    return place.read(numbered)


def shares(place: Place, shapes: Sequence[tuple[int, ...]], array: np.ndarray) -> list[np.ndarray]:
    """Return what of a quantity is in each of its sources, flattened; zero where nothing is."""
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    flat = np.zeros(sum(sizes), array.dtype)
    flat[positions(place, shapes)] = array
    return np.split(flat, np.cumsum(sizes)[:-1])


def written(parts: Sequence[np.ndarray], where: np.ndarray, array: np.ndarray) -> list[np.ndarray]:
    """Return copies of some arrays with a quantity of the case written to its positions."""
    flat = np.concatenate([part.ravel() for part in parts]).astype(array.dtype)
    flat[where] = array
    pieces = np.split(flat, np.cumsum([part.size for part in parts])[:-1])
    return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]


def sources_with_gradient(
    case: StepCase,
    places: NameMap,
    names: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, str]]:
    """Yield a quantity and a source of it, if the gradient is not zero in that source.

    One source may be right to get nothing: that of a scenario without rows.
    """
    for name in names:
        place = places.place(name)
        try:
            due = shares(
                place, [shapes[path] for path in place.sources], case.arrays[ADJOINT + name]
            )
        except (ValueError, IndexError):  # it does not fit: the comparison says so
            continue
        for path, part in zip(place.sources, due, strict=True):
            if part.any():
                yield name, path


class Placement:
    """Where the parameters and the state of a case are among some arrays.

    Parameters
    ----------
    case : StepCase
    places : NameMap
    arrays : Arrays

    Attributes
    ----------
    entries : dict
        Paths and positions in them by the name of the quantity.
    problems : list of str
        What is two quantities at once.

    Raises
    ------
    ValueError
        If a parameter has no place among the arrays, or does not fit there.
    """

    def __init__(self, case: StepCase, places: NameMap, arrays: Arrays) -> None:
        self.arrays, self.names = arrays, [*case.params, *case.state]
        self.entries: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        self.claims: dict[Hashable, Claim] = {}
        self.problems: list[str] = []
        for name in self.names:
            place = places.place(name)
            for path in place.sources:
                self._check_known(name, path, is_mapped=name in places.places)
            where = self._checked_positions(name, place, case.arrays[name].shape)
            self._claim(name, place.sources, where)
            self.entries[name] = (place.sources, where)
        self.problems = list(dict.fromkeys(self.problems))

    def _check_known(self, name: str, path: str, *, is_mapped: bool) -> None:
        owner, kind, shapes = self.arrays.owner, self.arrays.kind, self.arrays.shapes
        if path in shapes:
            return
        if is_mapped:
            raise ValueError(
                f"{name} is mapped to {path!r}, but {owner} has no such {kind}."
                f"{closest(path, shapes)}"
            )
        raise ValueError(
            f"{name}, a parameter of the case, is not mapped, and {owner} has none of that name."
            f"{closest(name, shapes)}"
        )

    def _checked_positions(self, name: str, place: Place, want: tuple[int, ...]) -> np.ndarray:
        shapes = [self.arrays.shapes[path] for path in place.sources]
        given = f"{', '.join(place.sources)} of shape {', '.join(map(str, shapes))}"
        try:
            where = positions(place, shapes)
        except (ValueError, IndexError) as error:
            raise ValueError(f"{name}: {place} does not fit {given} ({error}).") from error
        if where.shape != want:
            is_turned = where.ndim > 1 and np.swapaxes(where, -1, -2).shape == want
            hint = ": map it with transpose = true" if is_turned else ""
            raise ValueError(
                f"{name}: {given} gives {where.shape}; the case's has shape {want}{hint}."
            )
        return where

    def _claim(self, name: str, paths: Sequence[str], where: np.ndarray) -> None:
        """Note whose the entries of each array are; say so where they were another's."""
        start, index = 0, self.names.index(name)
        for path in paths:
            size = int(np.prod(self.arrays.shapes[path], dtype=int))
            fresh = Claim(path, np.full(size, -1))
            first, owners = self.claims.setdefault(self.arrays.keys[path], fresh)
            mine = where[(where >= start) & (where < start + size)] - start
            start += size
            both = (
                f"{first} and {path} are one {self.arrays.one}"
                if first != path
                else f"{path} is mapped twice"
            )
            self.problems += [
                f"{both}: it cannot be {self.names[other]} and {name} of the case at once."
                for other in np.unique(owners[mine])
                if other >= 0
            ]
            owners[mine] = index

    def left_over(self, paths: Sequence[str], ignore: Sequence[str]) -> list[str]:
        """Return a sentence for each of some arrays that the case does not fill."""
        problems = []
        for path in paths:
            if any(fnmatchcase(path, pattern) for pattern in ignore):
                continue
            key, shape = self.arrays.keys[path], self.arrays.shapes[path]
            if key not in self.claims:
                problems.append(f"{path} is not a parameter of the case.")
                continue
            owners = self.claims[key].owners
            free = np.flatnonzero(owners < 0)
            if free.size:
                place = tuple(int(i) for i in np.unravel_index(free[0], shape))
                problems.append(
                    f"{free.size} of {owners.size} entries of {path} are in no parameter of the "
                    f"case; the first is at {place}."
                )
        return problems
