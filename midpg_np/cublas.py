"""Matrix products that a CUDA graph can record: cuBLAS, called past CuPy.

CuPy refuses cuBLAS while a stream is captured (its issue 6290), because cuBLAS may then ask for
memory.  It does not if the caller lends it a workspace beforehand, so here it has a handle and a
workspace of its own.  CuPy has loaded the library already; this calls its C functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LIBRARIES = ("libcublas.so.13", "libcublas.so.12", "cublas64_13.dll", "cublas64_12.dll")
WORKSPACE_BYTES = 2**25  # what NVIDIA recommends for Hopper
_LETTERS = {"float32": "S", "float64": "D"}
_REALS = {"float32": ctypes.c_float, "float64": ctypes.c_double}


class CublasError(RuntimeError):
    """A function of cuBLAS did not succeed, or the library was not found."""


def find_library() -> Any:
    """Load cuBLAS as the system finds it, CuPy's own if that is loaded."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise CublasError(f"none of {', '.join(LIBRARIES)} was found; products cannot be captured.")


@dataclass
class Cublas:
    """Products on one device, ordered by the stream that is current when they are called.

    Parameters
    ----------
    empty : callable
        ``empty(shape, dtype)`` gives memory on the device.
    current_stream : callable
        Returns the address of the stream to work on.
    library : ctypes.CDLL
    """

    empty: Callable[[tuple[int, ...], Any], Any]
    current_stream: Callable[[], int]
    library: Any = field(default_factory=find_library)

    def __post_init__(self) -> None:
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._workspace = self.empty((WORKSPACE_BYTES,), np.uint8)
        self._stream: int | None = None

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """Return a b as ``numpy.matmul`` does, for float32 and float64.

        Shapes
        ------
        a : (..., M, K) or (K,)
        b : (..., K, N) or (K,)
        out : (..., M, N)
            At most one axis in front; one that a factor lacks is the same matrix each time.  A
            factor whose rows and columns both lie apart is copied; ``out`` must not be like that.
        """
        rows = a[None] if a.ndim == 1 else a
        columns = b[:, None] if b.ndim == 1 else b
        front = max(rows.shape[:-2], columns.shape[:-2])
        shape = (*front, rows.shape[-2], columns.shape[-1])
        result = self.empty(shape, a.dtype) if out is None else out.reshape(shape)
        if _is_transposed(result):
            self._product(columns.swapaxes(-1, -2), rows.swapaxes(-1, -2), result.swapaxes(-1, -2))
        else:
            self._product(rows, columns, result)
        if a.ndim == 1:
            result = result[..., 0, :]
        return result[..., 0] if b.ndim == 1 else result

    def _product(self, a: Any, b: Any, out: Any) -> None:
        """Write a b to ``out``, whose rows are contiguous.

        cuBLAS stores columns side by side, so it is asked for out^T = b^T a^T.
        """
        self._follow_stream()
        (M, K), N, dtype = a.shape[-2:], b.shape[-1], np.dtype(out.dtype)
        if not out.size:
            return
        a, transposes_a, lead_a = _operand(a)
        b, transposes_b, lead_b = _operand(b)
        lead_out = max(out.strides[-2] // out.itemsize, N)
        one, zero = (ctypes.byref(_REALS[dtype.name](x)) for x in (1.0, 0.0))
        head = self._handle, int(transposes_b), int(transposes_a), N, M, K, one
        name = f"cublas{_LETTERS[dtype.name]}gemm"
        if out.ndim == 2:
            operands = _address(b), lead_b, _address(a), lead_a, zero, _address(out), lead_out
            self._call(f"{name}_v2", *head, *operands)
            return
        factors = _address(b), lead_b, _step(b), _address(a), lead_a, _step(a)
        result = _address(out), lead_out, _step(out), out.shape[0]
        self._call(f"{name}StridedBatched", *head, *factors, zero, *result)

    def _follow_stream(self) -> None:
        stream = self.current_stream()
        if stream == self._stream:
            return
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        # Setting a stream takes the workspace away.
        memory = _address(self._workspace), ctypes.c_size_t(WORKSPACE_BYTES)
        self._call("cublasSetWorkspace_v2", self._handle, *memory)
        self._stream = stream

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self.library, name)(*args)
        if status:
            raise CublasError(f"{name} failed with status {status}.")


def _is_transposed(x: Any) -> bool:
    """Whether the columns, not the rows, of the matrices are contiguous."""
    return bool(x.strides[-1] != x.itemsize and x.strides[-2] == x.itemsize)


def _operand(x: Any) -> tuple[Any, bool, int]:
    """Return matrices, whether their columns are contiguous, and the step from one to the next."""
    for is_transposed, along, across in ((False, -1, -2), (True, -2, -1)):
        step = x.strides[across] // x.itemsize
        lies_apart = x.strides[along] != x.itemsize and x.shape[along] > 1
        overlaps = step < x.shape[along] and x.shape[across] > 1  # a broadcast matrix
        if not lies_apart and not overlaps:
            return x, is_transposed, max(step, x.shape[along])
    return _operand(x.copy())


def _step(x: Any) -> ctypes.c_longlong:
    """Return the step from one matrix of a batch to the next; 0 if there is only one."""
    return ctypes.c_longlong(x.strides[0] // x.itemsize if x.ndim == 3 and x.shape[0] > 1 else 0)


def _address(x: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data.ptr)
