"""A tile's pass taken again and again: recorded the first time, from then on repeated.

The same bits either way: the second time, on other rows and with other values of the parameters,
the recording is held against the pass itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.recording import NotRecordableError, Recorded, Recording
from midpg_np.tree import Tree, tree_map
from midpg_np.workspace import Workspace

# pass_(params, arrays, workspace): its result is made of named tuples, tuples, trees and arrays.
Pass = Callable[[Tree, Sequence[Array], Workspace], Any]
MOST_RECORDINGS = 2  # one can be repeated while the results of the other are still in use


class RepeatedPass:
    """``pass_`` for one shape of its arrays, and one tree of parameters that changes in place.

    Parameters
    ----------
    pass_ : callable
        Does the same work for all arrays of these shapes, whatever their values.
    params : Tree
    """

    def __init__(self, pass_: Pass, params: Tree) -> None:
        self.pass_, self.params = pass_, params
        self.is_recordable = True
        self._recordings: list[_RecordedPass] = []

    def __call__(self, arrays: Sequence[Array], workspace: Workspace) -> Any:
        """Return the result of the pass; arrays in it may be written over when nobody holds them.

        Shapes
        ------
        arrays : those of the first call
        """
        if self.is_recordable:
            try:
                return self._from_recording(arrays, workspace)
            except NotRecordableError:
                self.is_recordable = False
                self._recordings.clear()
        return self.pass_(self.params, arrays, workspace)

    def _from_recording(self, arrays: Sequence[Array], workspace: Workspace) -> Any:
        free = next((r for r in self._recordings if not r.is_busy), None)
        if free is not None:
            return free.repeat(arrays) if free.is_proven else free.prove(arrays)
        if len(self._recordings) == MOST_RECORDINGS:
            return self.pass_(self.params, arrays, workspace)
        recorded = _RecordedPass(self.pass_, self.params)
        result = recorded.record(arrays)
        self._recordings.append(recorded)
        return result


@dataclass(frozen=True)
class _Place:
    """Where in the list of results an array of the result is found."""

    number: int


class _RecordedPass:
    """One recording, with the structure of its result."""

    def __init__(self, pass_: Pass, params: Tree) -> None:
        self.pass_, self.params = pass_, params
        self.is_proven = False
        self._recording = Recording()
        self._result: Any = None  # with a ``_Place`` for every array

    def record(self, arrays: Sequence[Array]) -> Any:
        """Take the pass, note it down and return its result."""
        self._result, result = self._record(arrays)
        self._recording.seal()
        return result

    def _record(self, arrays: Sequence[Array]) -> tuple[Any, Any]:
        recording = self._recording
        with recording.recording():
            inputs = [recording.input(x) for x in arrays]
            known = tree_map(lambda leaf: leaf.view(Recorded), self.params)
            result = self.pass_(known, inputs, recording.workspace)
        leaves = _leaves(result)
        recording.finish(leaves)
        places = map(_Place, range(len(leaves)))
        return _rebuilt(result, lambda _: next(places)), _rebuilt(result, _copy)

    @property
    def is_busy(self) -> bool:
        return self._recording.is_busy

    def repeat(self, arrays: Sequence[Array]) -> Any:
        """Return the result for these arrays."""
        results = self._recording.repeat(arrays)
        return _rebuilt(self._result, lambda place: results[place.number])

    def prove(self, arrays: Sequence[Array]) -> Any:
        """Return the result for these arrays if it is that of the pass itself.

        The pass borrows the memory of the recording, so that none is needed twice.

        Raises
        ------
        NotRecordableError
            If the results differ in a bit.
        """
        repeated = _rebuilt(self.repeat(arrays), _copy)
        with self._recording.workspace.in_use():
            result = self.pass_(self.params, arrays, self._recording.workspace)
        if not all(map(_are_same, _leaves(repeated), _leaves(result))):
            raise NotRecordableError("a repeated pass has another result than the pass itself.")
        self.is_proven = True
        return repeated


def _copy(x: Any) -> Any:
    return np.array(x, order="K", subok=False)


def _are_same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def _rebuilt(structure: Any, leaf: Callable[[Any], Any]) -> Any:
    """Put ``leaf(x)`` in the place of every array x in named tuples, tuples and trees."""
    if structure is None or isinstance(structure, int):  # a size, the same for every batch
        return structure
    if isinstance(structure, dict):
        return {key: _rebuilt(value, leaf) for key, value in structure.items()}
    if isinstance(structure, tuple):
        parts = [_rebuilt(value, leaf) for value in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return leaf(structure)


def _leaves(structure: Any) -> list[Any]:
    leaves: list[Any] = []
    _rebuilt(structure, leaves.append)
    return leaves


def are_identical(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects."""
    return len(a) == len(b) and all(map(is_, a, b))
