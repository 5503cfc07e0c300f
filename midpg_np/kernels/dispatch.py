"""Who gets a fused kernel: every array of a GPU, and those of a CPU inside ``compiled_loops``.

A kernel is a function with three forms: NumPy, the equation as a few array operations; CUDA, a
source string beside it; and, where it pays, loops that Numba compiles (``kernels/compiled``).  The
NumPy form serves every array the others do not (complex ones, mixed dtypes), and is what they are
compared with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from midpg_np.backend import Array, Namespace
from midpg_np.kernels.launch import launcher_for
from midpg_np.recording import Recorded
from midpg_np.workspace import Workspace, workspace_in_use

CPU_KERNELS = ("auto", "compiled", "numpy")
_REAL = (np.dtype(np.float32), np.dtype(np.float64))
ROWS_FOR_LOOPS = 8192  # fewer do not earn the compilation
_HOST_ARRAYS = (np.ndarray, Recorded)
_NO_ARRAYS = (int, float, str, tuple, np.generic, type(None))


class MissingNumbaError(ImportError):
    """Compiled loops were asked for where Numba is not installed."""


@lru_cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


def check_cpu_kernels(wanted: str) -> None:
    """Make sure that the kernels ``wanted`` can be used.

    Raises
    ------
    ValueError
        If it is none of ``CPU_KERNELS``.
    MissingNumbaError
        If it needs Numba, which is not installed.
    """
    if wanted not in CPU_KERNELS:
        raise ValueError(f"kernels must be one of {CPU_KERNELS}; got {wanted!r}.")
    if wanted == "compiled" and not _has_numba():
        raise MissingNumbaError(
            "kernels='compiled' needs Numba, which is not installed. Install the extra 'fast' "
            "(pip install 'midpg_np[fast]'), or use kernels='numpy'."
        )


class compiled_loops(threading.local):  # noqa: N801  a context manager, named like np.errstate
    """Let float32 and float64 arrays of the CPU be served by compiled loops inside the block.

    Results differ by rounding from those of NumPy's operations.  ``fit`` and the predictions do
    this by themselves; do it around a loop of your own.  The first call of each loop compiles it,
    which takes about a second; the machine code is kept on disk for the next process.

    What loops return lies in memory that is aligned and used again, like the memory pool of CuPy:
    it is lent again only when nobody refers to it (``workspace.Workspace``).  The same object can
    be entered many times, and by several threads, and keeps its memory.

    Parameters
    ----------
    wanted : str
        "compiled", "numpy" (no loops), or "auto": compiled where Numba is installed.
    n_rows : int, optional
        Rows of the work at hand; with "auto", fewer than 8,192 do without loops.

    Raises
    ------
    ValueError, MissingNumbaError
        If ``wanted`` is not known, or not installed.
    """

    def __init__(self, wanted: str = "auto", n_rows: int | None = None) -> None:
        check_cpu_kernels(wanted)
        is_small = wanted == "auto" and n_rows is not None and n_rows < ROWS_FOR_LOOPS
        self.are_on = wanted != "numpy" and not is_small and _has_numba()
        self.workspace = Workspace()
        self._tokens: list[Token[compiled_loops | None]] = []

    def __enter__(self) -> compiled_loops:
        self._tokens.append(_loops.set(self))
        return self

    def __exit__(self, *exception: object) -> None:
        _loops.reset(self._tokens.pop())


_loops: ContextVar[compiled_loops | None] = ContextVar("loops", default=None)


def loops_around(n_rows: int) -> compiled_loops:
    """Return the ``compiled_loops`` of the block around, or else new ones for so many rows."""
    return _loops.get() or compiled_loops("auto", n_rows)


def loops_are_on() -> bool:
    """Whether arrays of the CPU are served by compiled loops here."""
    loops = _loops.get()
    return loops is not None and loops.are_on


def fuses(*args: Any) -> bool:
    """Whether a kernel would serve these arguments, numbers and arrays of one device."""
    if _loops_serve(args):
        return True
    return not _are_of_cpu(args) and launcher_for(*args) is not None


def empty(xp: Namespace, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an uninitialised array, inside ``compiled_loops`` of its memory."""
    loops = _loops.get()
    if loops is None or not loops.are_on or xp is not np:
        return xp.empty(shape, dtype=dtype)
    workspace = workspace_in_use()
    return (loops.workspace if workspace is None else workspace).empty(np, shape, dtype)


def room(xp: Namespace, shape: tuple[int, ...], *factors: Array) -> Array | None:
    """Return memory, as ``empty`` does, for the ``out`` of a product; None where loops are off."""
    return empty(np, shape, factors[0].dtype) if xp is np and _loops_serve(factors) else None


def _are_of_cpu(args: tuple[Any, ...]) -> bool:
    for x in args:
        if type(x) not in _HOST_ARRAYS and not isinstance(x, _NO_ARRAYS):
            return False
    return True


def _loops_serve(args: tuple[Any, ...]) -> bool:
    """Whether loops are on, and all arrays are of the CPU and share a real dtype.

    A step asks a hundred times, so this looks no further than it must.
    """
    loops = _loops.get()
    if loops is None or not loops.are_on:
        return False
    found = None
    for x in args:
        if type(x) in _HOST_ARRAYS:
            dtype = x.dtype
            if dtype is found or dtype.kind not in "fc":
                continue
            if found is None and dtype in _REAL:
                found = dtype
            elif dtype != found:
                return False
        elif not isinstance(x, _NO_ARRAYS):
            return False
    return found is not None


@lru_cache(maxsize=256)
def _compiled_form(module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(f"midpg_np.kernels.compiled.{module}"), name)


def fused(
    device_form: Callable[..., Any] | None, compiled: str | None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a NumPy form its other two.

    Parameters
    ----------
    device_form : callable or None
        ``device_form(launcher, *args)`` serves arrays of a GPU; None: the NumPy form does.
    compiled : str or None
        Module of ``kernels.compiled`` whose function of the same name serves arrays of the CPU.
    """

    def decorate(numpy_form: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(numpy_form)
        def call(*args: Any) -> Any:
            if compiled is not None and _loops_serve(args):
                return _compiled_form(compiled, numpy_form.__name__)(*args)
            if device_form is None or _are_of_cpu(args):
                return numpy_form(*args)
            launcher = launcher_for(*args)
            return numpy_form(*args) if launcher is None else device_form(launcher, *args)

        return call

    return decorate
