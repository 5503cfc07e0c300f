"""A tile's pass taken again and again: as it is at first, then from a recording of its calls.

The same bits either way: a recording is repeated only after it has been held against the pass
itself, on other rows and with other values of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.recording import NotRecordableError, Recorded, Recording
from midpg_np.tree import Tree, tree_map
from midpg_np.workspace import Workspace

# pass_(params, arrays, workspace): its result is made of named tuples, tuples, trees and arrays.
Pass = Callable[[Tree, Sequence[Array], Workspace], Any]
N_PLAIN = 1  # passes taken as they are first: loops are compiled
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
        self._n_taken = 0
        self._recordings: list[_RecordedPass] = []

    def __call__(self, arrays: Sequence[Array], workspace: Workspace) -> Any:
        """Return the result of the pass; arrays in it may be written over when nobody holds them.

        Shapes
        ------
        arrays : those of the first call
        """
        self._n_taken += 1
        if self.is_recordable and self._n_taken > N_PLAIN:
            try:
                return self._from_recording(arrays, workspace)
            except NotRecordableError:
                self.is_recordable = False
                self._recordings.clear()
        return self.pass_(self.params, arrays, workspace)

    def _from_recording(self, arrays: Sequence[Array], workspace: Workspace) -> Any:
        free = next((r for r in self._recordings if not r.is_busy), None)
        if free is not None and free.is_proven:
            return free.repeat(arrays)
        result = self.pass_(self.params, arrays, workspace)
        if free is not None:
            free.prove(arrays, result)
        elif len(self._recordings) < MOST_RECORDINGS:
            self._recordings.append(_RecordedPass(self.pass_, self.params, arrays))
        return result


class _RecordedPass:
    """One recording, with the structure of its result."""

    def __init__(self, pass_: Pass, params: Tree, arrays: Sequence[Array]) -> None:
        self.is_proven = False
        self._recording = recording = Recording()
        self._result = self._record(pass_, params, arrays)
        recording.seal()

    def _record(self, pass_: Pass, params: Tree, arrays: Sequence[Array]) -> Any:
        recording = self._recording
        inputs = [recording.input(x) for x in arrays]
        with recording.recording():
            known = tree_map(lambda leaf: leaf.view(Recorded), params)
            result = pass_(known, inputs, recording.workspace)
        leaves = _leaves(result)
        recording.finish(leaves)
        places = iter(range(len(leaves)))
        return _rebuilt(result, lambda _: next(places))

    @property
    def is_busy(self) -> bool:
        return self._recording.is_busy

    def repeat(self, arrays: Sequence[Array]) -> Any:
        """Return the result for these arrays."""
        return _rebuilt(self._result, self._recording.repeat(arrays).__getitem__)

    def prove(self, arrays: Sequence[Array], result: Any) -> None:
        """Compare with the result of the pass itself; NotRecordableError if they differ."""
        if not all(map(_are_same, _leaves(self.repeat(arrays)), _leaves(result))):
            raise NotRecordableError("a repeated pass has another result than the pass itself.")
        self.is_proven = True


def _are_same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def _rebuilt(structure: Any, leaf: Callable[[Any], Any]) -> Any:
    """Put ``leaf(x)`` in the place of every x that is neither tuple, tree nor None."""
    if structure is None:
        return None
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
