"""Arrays on a CPU (NumPy) or on a GPU (CuPy), and the few operations that differ between them.

This is the only file that imports CuPy.  Everything else asks ``get_xp(array)`` for the namespace
to compute with, and so runs on either device without a branch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from midpg_np.cublas import Cublas

Array = Any  # a NumPy or CuPy array; shapes are given in docstrings and proven by tests
Namespace = ModuleType | Any

DEVICES = ("cpu", "cuda")


class DeviceError(RuntimeError):
    """A device was asked for that this machine or installation does not have."""


@dataclass(frozen=True)
class Backend:
    """What one kind of array needs: its namespace and the operations without a common name."""

    name: str
    xp: Namespace
    scatter_add: Callable[[Array, Array, Array], None]
    to_numpy: Callable[[Array], np.ndarray]
    matmul: Callable[..., Array]
    # Compiler of CUDA sources, called as cupy.RawModule is; None where there is none.
    raw_module: Callable[..., Any] | None = None


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next array, in place of returning it at once.

    glibc gives large blocks back to the system, and every fresh page then costs a fault: up to a
    half of a training step.  Once a block of this size has been freed, it keeps up to twice as
    much (mallopt(3), "dynamic mmap threshold").  Nothing is written, other systems do not mind.
    """
    np.empty(31 * 2**20, np.uint8)


def _numpy_scatter_add(target: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    unique_ids, sums = segment_sum_rows(ids, rows)
    target[unique_ids] += sums


_BACKENDS: dict[type, Backend] = {
    np.ndarray: Backend("numpy", np, _numpy_scatter_add, lambda array: array, np.matmul)
}


def register_backend(array_type: type, backend: Backend) -> None:
    """Teach the library a further array type (the tests register a fake device this way)."""
    _BACKENDS[array_type] = backend


def _load_cupy() -> ModuleType:
    """Import CuPy, register its array type and return the module; DeviceError if that fails."""
    remedy = "Install the extra 'cuda12' or 'cuda13' (pip install 'midpg_np[cuda12]')"
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device 'cuda' needs CuPy, which is not installed. {remedy}.") from error
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"device 'cuda' was asked for, but {error}. {remedy} on a GPU."
        ) from error
    if n_devices == 0:
        raise DeviceError("device 'cuda' was asked for, but CuPy finds no GPU. Use device 'cpu'.")
    if cupy.ndarray not in _BACKENDS:
        parts = cupy, cupy.add.at, cupy.asnumpy, _cupy_matmul(cupy), cupy.RawModule
        register_backend(cupy.ndarray, Backend("cupy", *parts))
    return cupy


def _cupy_matmul(cupy: ModuleType) -> Callable[..., Array]:
    """Return a product that may also be called while a CUDA graph is recorded."""

    @lru_cache
    def cublas() -> Cublas:
        return Cublas(cupy.empty, lambda: int(cupy.cuda.get_current_stream().ptr))

    def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
        if a.dtype == b.dtype and a.dtype.kind == "f":
            return cublas().matmul(a, b, out)
        return cupy.matmul(a, b, out=out)

    return matmul


def _backend_of(array: Array, name: str) -> Backend:
    if type(array) in _BACKENDS:
        return _BACKENDS[type(array)]
    for array_type, backend in _BACKENDS.items():
        if isinstance(array, array_type):
            return backend
    if "cupy" in sys.modules and type(array).__module__.startswith("cupy"):
        _load_cupy()
        return _backend_of(array, name)
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    raise TypeError(f"{name} must be a NumPy or CuPy array; got {kind}.")


def _common_backend(arrays: dict[str, Array]) -> Backend:
    first_name, first = "", None
    for name, array in arrays.items():
        backend = _backend_of(array, name)
        if first is None:
            first_name, first = name, backend
        elif backend is not first:
            raise TypeError(
                f"{name} is a {backend.name} array but {first_name} is a {first.name} array; "
                "move one of them with to_device or to_numpy."
            )
    if first is None:
        raise TypeError("get_xp needs at least one array.")
    return first


def get_xp(*arrays: Array, **named: Array) -> Namespace:
    """Return the namespace (NumPy or CuPy) that the arrays share.

    Arrays may be given by name (``get_xp(x=x, W=W)``), so that the message can name the culprit.

    Raises
    ------
    TypeError
        If the arrays live on different devices, or one of them is not an array at all.
    """
    for array in (*arrays, *named.values()):  # on the way to every operation, so without names
        if type(array) is not np.ndarray:
            break
    else:
        if arrays or named:
            return np
    positional = {f"argument {i}": array for i, array in enumerate(arrays, start=1)}
    return _common_backend(positional | named).xp


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return the product of matrices as ``numpy.matmul`` does, at most one axis in front of them.

    On a GPU it may be recorded in a CUDA graph, which CuPy's own may not.
    """
    if type(a) is np.ndarray and type(b) is np.ndarray:  # at once: a step makes some fifty
        return np.matmul(a, b, out=out)
    return _common_backend({"a": a, "b": b}).matmul(a, b, out)


def address(array: Array) -> int:
    """Return where the memory of an array begins, on its device."""
    data = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
    return int(data)


def get_raw_module(*arrays: Array) -> Callable[..., Any] | None:
    """Return what compiles CUDA sources for these arrays, or None; TypeError for a mixture."""
    named = {f"argument {i}": array for i, array in enumerate(arrays, start=1)}
    return _common_backend(named).raw_module


def device_namespace(device: str) -> Namespace:
    """Return the namespace of the arrays on a device: NumPy for "cpu", CuPy for "cuda"."""
    check_device(device)
    return np if device == "cpu" else _load_cupy()


def check_device(device: str) -> None:
    """Raise unless ``device`` is known (ValueError) and present on this machine (DeviceError)."""
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}; got {device!r}.")
    if device == "cuda":
        _load_cupy()


def stream_of_own(device: str) -> AbstractContextManager[Any]:
    """Give a GPU its work in a stream of its own inside the block; on a CPU there are none."""
    xp = device_namespace(device)
    return xp.cuda.Stream(non_blocking=True) if hasattr(xp, "cuda") else nullcontext()


_constants: dict[tuple[int, tuple[int, ...]], Array] = {}


def constant(xp: Namespace, values: tuple[int, ...]) -> Array:
    """Return integers as an array that is made once for each device; do not write to it.

    Sending them anew would be a copy from the host in every step, which a CUDA graph cannot hold.
    """
    key = id(xp), values
    if key not in _constants:
        _constants[key] = xp.asarray(values)
    return _constants[key]


def to_device(array: Array, device: str) -> Array:
    """Return ``array``, any shape, on ``device`` ("cpu" or "cuda"); no copy if it is there."""
    check_device(device)
    if device == "cpu":
        return to_numpy(array)
    return _load_cupy().asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """Return ``array``, any shape, or a NumPy scalar as an array on the host; one is not copied."""
    if isinstance(array, np.generic):
        return np.asarray(array)
    return _backend_of(array, "array").to_numpy(array)


def gather_rows(table: Array, ids: Array) -> Array:
    """Return ``table[ids]``; an id beyond the table is an IndexError on the host.

    Shapes
    ------
    table : (V, K)
    ids : (N,)
        Or any other shape.
    """
    if not isinstance(table, np.ndarray):
        return table[ids]
    # On the host ``take`` is three times as fast as indexing, but of a view it copies the whole.
    if table.flags.c_contiguous or not _has_whole_rows(table):
        return table.take(ids, axis=0)
    return as_items(table)[ids][..., None].view(table.dtype)


def put_rows(table: Array, ids: Array, rows: Array) -> None:
    """Write ``table[ids] = rows`` in place; the ids are distinct.

    Shapes
    ------
    table : (V, K)
    ids : (N,)
    rows : (N, K)
    """
    on_host = isinstance(table, np.ndarray) and _has_whole_rows(table)
    if not (on_host and table.dtype == rows.dtype):
        table[ids] = rows
    # On the host writing each row as one opaque item is three times as fast as indexing.
    elif table.flags.c_contiguous:
        as_items(table).put(ids, as_items(rows))
    else:
        as_items(table)[ids] = as_items(rows)


def as_items(table: np.ndarray) -> np.ndarray:
    """Return each row of a table (V, k) as one opaque item (V,), no copy if rows are contiguous."""
    if not _has_whole_rows(table):
        table = np.ascontiguousarray(table)
    return table.view(np.dtype((np.void, table.shape[1] * table.itemsize)))[:, 0]


def _has_whole_rows(table: np.ndarray) -> bool:
    """Whether the numbers of each row lie side by side, wherever the rows lie."""
    return table.shape[1] > 0 and table.strides[1] == table.itemsize


def sorted_positions(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort ids on the host, equal ones in the order in which they stand; return where they stood.

    The position is packed below the id in one integer: the keys are then distinct, so that the
    fastest sort there is, which is not stable, gives the order of a stable one.

    Shapes
    ------
    ids : (N,)

    Returns
    -------
    sorted_ids, order
        (N,) int64, and (N,) with ``sorted_ids == ids[order]``.
    """
    bits = ids.size.bit_length()
    ids = ids.astype(np.int64, copy=False)
    limit = 1 << (63 - bits)
    if ids.size and not -limit <= int(ids.min()) <= int(ids.max()) < limit:
        order = np.argsort(ids, kind="stable")
        return ids[order], order
    keys = ids << bits
    keys |= np.arange(ids.size)
    keys.sort()
    order = keys & ((1 << bits) - 1)
    keys >>= bits
    return keys, order


def is_on_host(array: Array) -> bool:
    """Whether an array is NumPy's, and its values can be looked at without waiting for a device."""
    return isinstance(array, np.ndarray)


def is_batch_last(x: Array) -> bool:
    """Whether the rows of a batch (B, ..., d), not the features, lie side by side in memory.

    Shapes are (B, d) everywhere; how a batch is *stored* is up to who makes it, and element-wise
    operations and products keep it so (docs/decisions/0006-batch-last.md).
    """
    return bool(x.strides[0] < x.strides[-1])


def segment_sum_rows(ids: Array, rows: Array) -> tuple[Array, Array]:
    """Sum the rows that share an id.

    On the host the rows of an id are added one after the other in the order of the batch, starting
    from zero, so that no bit depends on the machine: those of ``numpy.add.at`` on zeros.  The sum
    is the product of a sparse 0/1 matrix, one row per distinct id, with ``rows``.

    Shapes
    ------
    ids : (N,)
    rows : (N, K)

    Returns
    -------
    unique_ids, sums
        (M,) sorted distinct ids and (M, K) the sum of their rows.
    """
    xp = get_xp(ids=ids, rows=rows)
    if xp is not np:
        unique_ids, segment = xp.unique(ids, return_inverse=True)
        sums = xp.zeros((unique_ids.shape[0], rows.shape[1]), dtype=rows.dtype)
        _common_backend({"rows": rows}).scatter_add(sums, segment, rows)
        return unique_ids, sums
    if ids.size == 0:
        return ids, rows[:0]
    from scipy.sparse import csr_array  # here, so that importing the package loads NumPy only

    sorted_ids, order = sorted_positions(ids)
    inner = np.flatnonzero(sorted_ids[1:] != sorted_ids[:-1])
    index = np.int32 if ids.size < 2**31 else np.int64
    bounds = np.empty(inner.size + 2, dtype=index)
    bounds[0], bounds[-1] = 0, ids.size
    np.add(inner, 1, out=bounds[1:-1], casting="same_kind")
    # A complex row is a real one of twice the width, so that the two parts never meet.
    rows = np.ascontiguousarray(rows)
    real = rows.view(rows.real.dtype)
    ones = np.ones(ids.size, dtype=real.dtype)
    picks = csr_array((ones, order.astype(index), bounds), shape=(inner.size + 1, ids.size))
    return sorted_ids[bounds[:-1]].astype(ids.dtype, copy=False), (picks @ real).view(rows.dtype)


def segment_sum_padded(ids: Array, rows: Array, n_rows: int) -> tuple[Array, Array]:
    """Sum the rows that share an id, without asking a GPU how many distinct ids there are.

    On a GPU that number would have to be read on the host, which waits for all work given so far.
    There the results keep the length N of the inputs: the places left over come last, with the id
    ``n_rows``, which no row of the table has, and rows of zeros.  On a CPU nothing is left over.

    Shapes
    ------
    ids : (N,)
        In [0, n_rows).
    rows : (N, K)

    Returns
    -------
    ids, sums
        Ascending; distinct but for the padding.
    """
    xp = get_xp(ids=ids, rows=rows)
    if xp is np:
        return segment_sum_rows(ids, rows)
    order = xp.argsort(ids)
    sorted_ids = ids[order]
    segment = xp.zeros(ids.shape, dtype=np.int64)
    segment[1:] = xp.cumsum(sorted_ids[1:] != sorted_ids[:-1])
    padded = xp.full(ids.shape, n_rows, dtype=ids.dtype)
    padded[segment] = sorted_ids  # equal ids meet in one place, and write the same
    sums = xp.zeros(rows.shape, dtype=rows.dtype)
    _common_backend({"rows": rows}).scatter_add(sums, segment, rows[order])
    return padded, sums


def scatter_add_rows(target: Array, ids: Array, rows: Array) -> None:
    """Add ``rows[n]`` to ``target[ids[n]]`` in place; repeated ids add up (derivations 2.1b).

    ``target[ids] += rows`` would keep only the last row of a repeated id.  On a GPU the order of
    the additions is not fixed, so results there are equal to rounding, not to the bit.

    Shapes
    ------
    target : (V, K)
    ids : (N,)
    rows : (N, K)
    """
    _common_backend({"target": target, "ids": ids, "rows": rows}).scatter_add(target, ids, rows)
