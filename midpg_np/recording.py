"""A pass over arrays of a CPU, recorded once as a list of calls and repeated without its Python.

Between the products and loops of a pass stands Python that does the same each time: it looks up
parameters, chooses forms, cuts views, finds memory.  A recording is what is left without it: the
calls that write to memory, in order, with the arrays they read and write.  It is for passes of
fixed work (docs/decisions/0012-recorded-passes.md), what a CUDA graph is on a GPU.

How it sees every call: the arrays of the recorded pass are ``Recorded``, a kind of NumPy array that
NumPy asks before it computes anything.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from sys import getrefcount
from typing import Any

import numpy as np

from midpg_np.backend import address
from midpg_np.workspace import ALIGNMENT, Workspace, aligned

_WITH_OUT = (np.concatenate, np.einsum)
_OUT_BY_NAME = (np.minimum, np.maximum)  # NumPy warns where it is their third argument


class NotRecordableError(RuntimeError):
    """A pass reads a number of an array, or does something else that cannot be repeated blindly."""


class Recorded(np.ndarray):
    """An array whose operations are noted down in the recording under way."""

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any
    ) -> Any:
        """Compute into memory of the recording, or into ``out``."""
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if out is None:
            return _result(function, inputs, options, has_out=True)
        if function is ufunc and not options:
            _call(ufunc, *inputs, *out)
        else:
            _call(partial(_into, function, _plain_values(options)), *out, inputs)
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """Compute into memory of the recording; views are not worth a call."""
        if function is np.copyto:
            return _call(function, *args)
        if function is np.result_type:  # of dtypes, which are the same next time
            return function(*_plain(args))
        if options.get("out") is not None:
            others = {name: x for name, x in options.items() if name != "out"}
            _call(partial(_into, function, _plain_values(others)), options["out"], args)
            return options["out"]
        return _result(function, args, options, has_out=function in _WITH_OUT)

    def __getitem__(self, index: Any) -> Any:
        """Return a view, of no axes where NumPy returns a number; or a recorded copy."""
        index = index if isinstance(index, tuple) else (index,)
        if not any(i is ... for i in index):
            index = (*index, ...)
        return _result(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        _call(operator.setitem, self, index, value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def _read(self, *args: Any) -> Any:
        raise NotRecordableError("a number of an array is read; the next pass may have another.")

    __float__ = __int__ = __index__ = __bool__ = __complex__ = item = tolist = _read


def _of_ndarray(name: str) -> Callable[..., Any]:
    """Return a method that NumPy does not ask about, as a recorded call."""
    method = getattr(np.ndarray, name)

    def recorded(self: Recorded, *args: Any, **options: Any) -> Any:
        return _result(method, (self, *args), options)

    return recorded


# Those that may return fresh memory, and are no ufunc inside.
for _name in (
    *("argsort", "astype", "choose", "compress", "conj", "copy", "cumsum", "diagonal", "dot"),
    *("flatten", "ravel", "repeat", "reshape", "round", "take"),
):
    setattr(Recorded, _name, _of_ndarray(_name))


_ONE = [np.empty(1)]
_IN_A_LIST_ONLY = getrefcount(_ONE[0])


class _RecordedWorkspace(Workspace):
    """Memory of a recording; while it is recorded, of a kind that notes down what is done to it.

    There is time to look for the smallest piece that is idle and large enough, of whatever shape
    it was: so a pass needs less memory, and more of it is in the cache.  A piece of more than twice
    the size is kept for something larger.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memories: list[np.ndarray] = []

    def empty(self, xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize + ALIGNMENT
        sizes = {i: m.size for i, m in enumerate(self._memories)}
        fitting = [i for i, size in sizes.items() if n_bytes <= size <= 2 * n_bytes]
        idle = [i for i in fitting if getrefcount(self._memories[i]) == _IN_A_LIST_ONLY]
        if idle:
            memory = self._memories[min(idle, key=sizes.__getitem__)]
        else:
            memory = np.empty(n_bytes, np.uint8)
            self._memories.append(memory)
        x = aligned(shape, dtype, memory)
        return x if _active.get() is None else x.view(Recorded)

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return sum(memory.nbytes for memory in self._memories)

    def like(self, x: np.ndarray) -> Recorded:
        """Return an uninitialised array with the axes of x in the order of its memory."""
        order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
        stored = self.empty(np, tuple(x.shape[axis] for axis in order), x.dtype)
        view: Recorded = np.ndarray.transpose(stored, [order.index(i) for i in range(x.ndim)])
        return view

    def owns(self, x: np.ndarray) -> bool:
        """Whether x lies in this memory."""
        return any(memory_of(x) is memory for memory in self._memories)


class Recording:
    """The calls of one pass, the memory it works on, and where its inputs and results lie.

    Results of ``repeat`` are views: as long as somebody holds one, the recording ``is_busy`` and
    must not be repeated, since that would write over it.
    """

    def __init__(self) -> None:
        self.workspace = _RecordedWorkspace()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._inputs: list[np.ndarray] = []
        self._results: list[np.ndarray] = []
        self._memories: list[np.ndarray] = []
        self._idle: list[int] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note down what is done to ``Recorded`` arrays inside the block, by this thread."""
        token = _active.set(self)
        try:
            with self.workspace.in_use():
                yield
        finally:
            _active.reset(token)

    def input(self, x: np.ndarray) -> Recorded:
        """Return a copy of x in memory that ``repeat`` fills anew; for use in ``recording``."""
        copy = self.workspace.like(x)
        place = copy.view(np.ndarray)
        place[...] = x
        self._inputs.append(place)
        return copy

    def finish(self, results: Sequence[Any]) -> None:
        """Say which arrays of the pass are its results.

        Raises
        ------
        NotRecordableError
            If one of them is no array that the pass made.
        """
        if not all(isinstance(x, Recorded) and self.workspace.owns(x) for x in results):
            raise NotRecordableError("a result of the pass is no array that the pass made.")
        self._results = [_of_memory(x) for x in results]

    def seal(self) -> None:
        """Count the references to the results; to be called when nobody holds one."""
        self._memories = list({id(m): m for m in map(memory_of, self._results)}.values())
        self._idle = list(map(getrefcount, self._memories))

    @property
    def is_busy(self) -> bool:
        """Whether somebody holds a result of the last pass, or a view of one."""
        return any(map(operator.gt, map(getrefcount, self._memories), self._idle))

    def repeat(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Do all calls again with new inputs; return the results."""
        for place, x in zip(self._inputs, inputs, strict=True):
            np.copyto(place, x)
        for function, args in self._calls:
            function(*args)
        return [x.view() for x in self._results]

    def add(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """Note a call down.  It does not count as a reference, so that memory is used again."""
        self._calls.append((function, tuple(map(self._unowned, args))))

    def _unowned(self, x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(map(self._unowned, x))
        if not isinstance(x, np.ndarray) or not self.workspace.owns(x):
            return x
        return np.asarray(_Place(x.__array_interface__))


class _Place:
    """Memory that somebody else keeps alive, here ``Recording.workspace``."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


_active: ContextVar[Recording | None] = ContextVar("recording", default=None)


def memory_of(x: np.ndarray) -> np.ndarray:
    """Return the array that owns the memory of x."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def _of_memory(x: np.ndarray) -> np.ndarray:
    """Return x as a view whose views, too, refer to the array that owns the memory."""
    memory = memory_of(x)
    return np.ndarray(x.shape, x.dtype, memory, address(x) - address(memory), x.strides)


def contiguous(x: Any) -> Any:
    """As ``numpy.ascontiguousarray``, recorded."""
    return x if x.flags.c_contiguous else x.copy()


def run(loops: Callable[..., Any], *args: Any) -> Any:
    """Call compiled loops, which NumPy does not know of; recorded, they must return nothing."""
    return loops(*args) if _active.get() is None else _call(loops, *args)


def _plain(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(map(_plain, x))
    return x.view(np.ndarray) if isinstance(x, Recorded) else x


def _call(function: Callable[..., Any], *args: Any) -> None:
    """Call and note down what writes to its arguments."""
    recording, args = _active.get(), _plain(args)
    result = function(*args)
    if recording is None:
        return
    if result is not None and not any(result is x for x in args):
        raise NotRecordableError(f"{function} returns a number; the next pass may have another.")
    recording.add(function, args)


def _result(
    function: Any, args: Sequence[Any], options: dict[str, Any], has_out: bool = False
) -> Any:
    """Call and note down what returns an array; a view is returned as it is."""
    recording, args, options = _active.get(), _plain(tuple(args)), _plain_values(options)
    result = function(*args, **options)
    if recording is None:
        return result
    if not isinstance(result, (np.ndarray, np.generic)):
        raise NotRecordableError(f"{function} returns a {type(result).__name__}, no array.")
    result = np.asarray(result)
    if any(np.may_share_memory(result, x) for x in _arrays(args)):
        return result.view(Recorded)
    target = recording.workspace.like(result)
    place = _plain(target)
    place[...] = result
    if not has_out:
        recording.add(_assign, (place, function, args, options))
    elif isinstance(function, np.ufunc) and not options and function not in _OUT_BY_NAME:
        recording.add(function, (*args, place))
    else:
        recording.add(partial(_into, function, options), (place, args))
    return target


def _assign(place: np.ndarray, function: Any, args: Any, options: Any) -> None:
    result = function(*args, **options)
    if result.shape != place.shape:
        raise NotRecordableError(f"{function} returns another shape for other numbers.")
    place[...] = result


def _into(function: Any, options: Any, place: np.ndarray, args: Any) -> None:
    function(*args, out=place, **options)


def _plain_values(options: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in options.items()}


def _arrays(args: Any) -> Iterator[np.ndarray]:
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _arrays(x)
        elif isinstance(x, np.ndarray):
            yield x
