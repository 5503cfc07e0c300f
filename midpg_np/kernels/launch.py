"""CUDA kernels: what their sources share, how they are compiled and how they are started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from midpg_np.backend import Array, Namespace, get_raw_module, get_xp

REALS = {"float32": "float", "float64": "double"}  # dtype: what the sources call REAL
THREADS = 256  # per block; a power of two, see ``block_sum``
CHUNK = 4096  # samples that one block adds up
COLUMNS = 32  # features that one block works on, where a batch is stored first
ROWS_OF_BLOCK = 64  # of such a batch, where nothing is added up
ROWS_OF_SUM = 512
MAX_GRID = (2**31 - 1, 65535)

# Every source starts with this.  The batch is the fastest axis of all arrays, so that neighbouring
# threads, which hold neighbouring samples, read neighbouring numbers.
COMMON = rf"""
#define THREADS {THREADS}
#define COLUMNS {COLUMNS}
#define ROWS_AT_ONCE (THREADS / COLUMNS)
typedef long long wide;

__device__ __forceinline__ REAL sigmoid(REAL x) {{
    return (REAL)0.5 + (REAL)0.5 * tanh((REAL)0.5 * x);
}}

__device__ __forceinline__ REAL softplus(REAL x) {{
    bool is_positive = x > (REAL)0;
    return x * (REAL)is_positive + log1p(exp(is_positive ? -x : x));
}}

// The sample of this thread; the rows of a (rows, B) array are on the other axis of the grid.
__device__ __forceinline__ wide sample() {{
    return (wide)blockIdx.y * blockDim.x + threadIdx.x;
}}

// Place of (row, sample b) in an array (rows, B), or (rows,) where all samples share it.
__device__ __forceinline__ wide at(int row, wide b, wide B, int is_shared) {{
    return is_shared ? (wide)row : (wide)row * B + b;
}}

// Repeat by block or by tile: the group of a member, and the l-th member of a group.
__device__ __forceinline__ int group_of(int i, int n_groups, int n_members, int is_tile) {{
    return is_tile ? i % n_groups : i / n_members;
}}
__device__ __forceinline__ int member(int group, int l, int n_groups, int n_members, int is_tile) {{
    return is_tile ? l * n_groups + group : group * n_members + l;
}}

// Sum of x over the 32 threads of a warp, in a fixed order.  All of them must call it.
__device__ __forceinline__ REAL warp_sum(REAL x) {{
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}}

// Sum of x over the THREADS threads of a block, in a fixed order.  All threads must call it.
__device__ __forceinline__ REAL block_sum(REAL x) {{
    __shared__ REAL part[THREADS];
    int t = threadIdx.x;
    part[t] = x;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {{
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }}
    return part[0];
}}

// A batch stored first, (B, features): a block walks down COLUMNS features of a chunk of samples,
// a warp to each.  The feature of this thread, and the first sample of it and the end of its chunk.
__device__ __forceinline__ int feature() {{ return blockIdx.x * COLUMNS + threadIdx.x % COLUMNS; }}
__device__ __forceinline__ wide first_sample(wide chunk) {{
    return (wide)blockIdx.y * chunk + threadIdx.x / COLUMNS;
}}
__device__ __forceinline__ wide last_sample(wide B, wide chunk) {{
    wide stop = ((wide)blockIdx.y + 1) * chunk;
    return stop < B ? stop : B;
}}

// partial[chunk, feature] = sum of x over the threads of a feature.  All threads must call it.
__device__ __forceinline__ void column_sum(REAL x, REAL* partial, int n_features) {{
    __shared__ REAL part[ROWS_AT_ONCE][COLUMNS];
    int row = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS, o = feature();
    part[row][column] = x;
    __syncthreads();
    if (row > 0 || o >= n_features) return;
    for (int y = 1; y < ROWS_AT_ONCE; ++y) x += part[y][column];
    partial[(wide)blockIdx.y * n_features + o] = x;
}}
"""


@dataclass(frozen=True)
class Source:
    """CUDA C++ of some kernels.

    Parameters
    ----------
    text : str
    is_exact : bool
        No contraction to fused multiply-adds: kernels that wait for memory, not for arithmetic, do
        the very operations that the NumPy forms do.
    constants : tuple of (name, value)
        Numbers that the compiler should know.
    """

    text: str
    is_exact: bool = True
    constants: tuple[tuple[str, int], ...] = ()

    def having(self, **constants: int) -> Source:
        """Return the same source with constants."""
        return replace(self, constants=tuple(constants.items()))


# Second stage of a sum over the batch: out[n] = sum over chunks of partial[chunk, n] / divisor.
SUM_CHUNKS = Source(r"""
extern "C" __global__ void sum_chunks(
    const REAL* partial, REAL* out, wide n, wide n_chunks, REAL divisor
) {
    wide i = (wide)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    REAL sum = 0;
    for (wide chunk = 0; chunk < n_chunks; ++chunk) sum += partial[chunk * n + i];
    out[i] = sum / divisor;
}
""")


@lru_cache(maxsize=64)
def _module(raw_module: Callable[..., Any], source: Source, real: str) -> Any:
    options = [f"-DREAL={real}"]
    options += [f"-D{name}={value}" for name, value in source.constants]
    options += ["--fmad=false"] if source.is_exact else []
    return raw_module(code=COMMON + source.text, options=tuple(options))


@lru_cache(maxsize=256)
def _kernel(raw_module: Callable[..., Any], source: Source, real: str, name: str) -> Any:
    return _module(raw_module, source, real).get_function(name)


@dataclass(frozen=True)
class Launcher:
    """Starts kernels on arrays of one device and one real dtype."""

    xp: Namespace
    raw_module: Callable[..., Any]
    dtype: np.dtype

    def inputs(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the arrays with contiguous memory, copied only where they have not."""
        return tuple(self.xp.ascontiguousarray(array) for array in arrays)

    def empty(self, *shape: int) -> Array:
        """Return memory for a result."""
        return self.xp.empty(shape, dtype=self.dtype)

    def real(self, value: Any) -> np.generic:
        """Return a scalar argument as the kernel declares it."""
        return self.dtype.type(value)

    def each(self, source: Source, name: str, n: int, *args: Any) -> None:
        """Run one thread for each of ``n`` elements."""
        self._run(source, name, (-(-n // THREADS), 1), THREADS, args)

    def rows(
        self,
        source: Source,
        name: str,
        n_rows: int,
        n_samples: int,
        *args: Any,
        most: int = THREADS,
    ) -> None:
        """Run one thread for each entry of a (n_rows, n_samples) array, ``most`` in a block."""
        threads = min(most, -(-n_samples // 32) * 32)
        if threads:
            self._run(source, name, (n_rows, -(-n_samples // threads)), threads, args)

    def blocks(self, source: Source, name: str, n_outputs: int, n_chunks: int, *args: Any) -> None:
        """Run one block for each partial sum of a (n_outputs, n_chunks) array."""
        self._run(source, name, (n_outputs, n_chunks), THREADS, args)

    def columns(
        self, source: Source, name: str, shape: tuple[int, ...], chunk: int, *args: Any
    ) -> None:
        """Run one block for each ``COLUMNS`` features of a chunk of samples; shape (B, features).

        The kernel's arguments end with B, the number of features and the chunk.
        """
        n_samples, n_features = shape
        grid = -(-n_features // COLUMNS), -(-n_samples // chunk)
        sizes = np.int64(n_samples), np.int32(n_features), np.int64(chunk)
        self._run(source, name, grid, THREADS, (*args, *sizes))

    def column_sums(self, source: Source, name: str, shape: tuple[int, ...], *args: Any) -> Array:
        """Run ``columns`` of a kernel whose last array takes its ``column_sum``; return that."""
        chunks = max(1, -(-shape[0] // ROWS_OF_SUM))
        partial = self.empty(chunks, shape[1])
        self.columns(source, name, shape, ROWS_OF_SUM, *args, partial)
        return partial.reshape(-1) if chunks == 1 else total(self, partial, 1.0)

    def _run(
        self, source: Source, name: str, grid: tuple[int, int], threads: int, args: tuple[Any, ...]
    ) -> None:
        if grid[0] > MAX_GRID[0] or grid[1] > MAX_GRID[1]:
            raise ValueError(
                f"{name}: a grid of {grid} is beyond CUDA's {MAX_GRID}; cut the batch."
            )
        if grid[0] and grid[1]:
            real = REALS[self.dtype.name]
            _kernel(self.raw_module, source, real, name)(grid, (threads,), args)


def launcher_for(*args: Any) -> Launcher | None:
    """Return what starts kernels on these arguments, or None where the NumPy form serves them.

    Raises
    ------
    TypeError
        If arrays of the CPU and of a GPU are mixed.
    """
    arrays = [x for x in args if hasattr(x, "dtype") and not isinstance(x, np.generic)]
    raw_module = get_raw_module(*arrays) if arrays else None
    if raw_module is None:
        return None
    dtypes = {np.dtype(x.dtype) for x in arrays if x.dtype.kind in "fc"}
    if len(dtypes) != 1 or next(iter(dtypes)).name not in REALS:
        return None
    return Launcher(get_xp(*arrays), raw_module, dtypes.pop())


def must_be_contiguous(**arrays: Array) -> None:
    """Raise ValueError for an array that a kernel is to change in place but cannot."""
    for name, array in arrays.items():
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is changed in place and must be contiguous; got a view.")


def n_chunks(n_samples: int) -> int:
    """Blocks that share a sum over the batch."""
    return max(1, -(-n_samples // CHUNK))


def total(launcher: Launcher, partial: Array, divisor: float) -> Array:
    """Return the sum over the first axis (chunks) of ``partial``, divided."""
    chunks, n = partial.shape
    out = launcher.empty(n)
    size = np.int64(n), np.int64(chunks)
    launcher.each(SUM_CHUNKS, "sum_chunks", n, partial, out, *size, launcher.real(divisor))
    return out


def groups(n: int, n_groups: int, mode: str, xp: Namespace) -> Array:
    """Return the group of each of ``n`` members, (n,): what ``group_of`` computes."""
    i = xp.arange(n)
    return i % n_groups if mode == "tile" else i // (n // n_groups)


def split(x: Array, axis: int, n_groups: int, mode: str) -> Array:
    """Cut an axis into (n_groups, members): what ``member`` walks along."""
    before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    n_members = length // n_groups
    if mode == "block":
        return x.reshape(*before, n_groups, n_members, *after)
    return x.reshape(*before, n_members, n_groups, *after).swapaxes(axis, axis + 1)


def largest_divisor(n: int, most: int) -> int:
    """Return the largest divisor of ``n`` that is at most ``most``."""
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)
