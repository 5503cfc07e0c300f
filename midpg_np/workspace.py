"""Memory for the large intermediates of a step: aligned to cache lines, and used again and again.

NumPy's own arrays start 16 bytes into a cache line or a page; then every second 64-byte load of a
vectorised loop touches two lines, and products and element-wise chains take up to twice as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from sys import getrefcount
from typing import Any

import numpy as np

from midpg_np.backend import Array, Namespace, get_xp, is_batch_last

CACHE_BYTES = 2**19  # a quarter of a core's second-level cache: a piece has several arrays
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Workspace:
    """Lends uninitialised arrays; takes memory back when nobody holds an array in it any more.

    Pass one to passes that accept it, and to one thread only.  It changes no result: an array that
    is still referenced, also by a view (a cache, a gradient that you kept), is never lent again.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[Any, ...], list[tuple[Any, np.ndarray]]] = {}

    def empty(self, xp: Namespace, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array for which nobody else has a reference."""
        if xp is not np:  # CuPy's memory pool is a workspace already
            return xp.empty(shape, dtype=dtype)
        blocks = self._blocks.get((shape, dtype))
        if blocks is None:
            blocks = self._blocks[shape, dtype] = []
        for memory, block in blocks:
            if getrefcount(memory) == _LENT_TO_NOBODY:
                return block.view()
        block = aligned(shape, dtype)
        blocks.append((block.base, block))
        return block.view()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let ``kernels`` take their memory from here inside the block, in this thread."""
        token = _in_use.set(self)
        try:
            yield
        finally:
            _in_use.reset(token)

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return sum(block.nbytes for blocks in self._blocks.values() for _, block in blocks)


_in_use: ContextVar[Workspace | None] = ContextVar("in_use", default=None)


def workspace_in_use() -> Workspace | None:
    """Return the workspace of the innermost ``in_use`` around."""
    return _in_use.get()


def empty(xp: Namespace, shape: tuple[int, ...], dtype: Any, workspace: Workspace | None) -> Array:
    """Return an uninitialised array: from the workspace, if there is one, else fresh; aligned."""
    if workspace is not None:
        return workspace.empty(xp, shape, dtype)
    if xp is not np:
        return xp.empty(shape, dtype=dtype)
    return aligned(shape, dtype)


def empty_batch(
    xp: Namespace, shape: tuple[int, ...], dtype: Any, last: bool, workspace: Workspace | None
) -> Array:
    """Return an uninitialised batch (B, ...), stored batch last or batch first."""
    if not last:
        return empty(xp, shape, dtype, workspace)
    n_rows, *widths = shape
    stored = empty(xp, (*widths, n_rows), dtype, workspace)
    return stored.transpose(stored.ndim - 1, *range(stored.ndim - 1))


def empty_like_batch(x: Array, workspace: Workspace | None) -> Array:
    """Return an uninitialised batch with the same shape, dtype and storage as x."""
    return empty_batch(get_xp(x), x.shape, x.dtype, is_batch_last(x), workspace)


def common_dtype(*arrays: Array) -> np.dtype:
    """Return the dtype of a product of the arrays: in a complex step one of them is complex."""
    return np.result_type(*(x.dtype for x in arrays))


def einsum_into(xp: Namespace, subscripts: str, *operands: Array, out: Array) -> None:
    """Write ``xp.einsum(subscripts, *operands)`` to ``out``; CuPy's einsum cannot by itself."""
    if xp is np:
        np.einsum(subscripts, *operands, out=out)
    else:
        out[...] = xp.einsum(subscripts, *operands)


def sum_products(x: Array, y: Array, axis: int) -> Array:
    """Sum of x y along an axis, both (D, I, O); on the host in one pass, without their product."""
    xp = get_xp(x=x, y=y)
    if xp is not np:  # CuPy's einsum may call what a CUDA graph cannot hold
        return (x * y).sum(axis=axis)
    letters = "dio"
    return xp.einsum(f"{letters},{letters}->{letters.replace(letters[axis], '')}", x, y)


def groups_at_once(xp: Namespace, n_groups: int, bytes_per_group: int) -> int:
    """Return how many groups to do at a time so that their intermediates stay in the cache.

    On a GPU all of them: there a few large kernels win.
    """
    return min(n_groups, max(1, CACHE_BYTES // max(bytes_per_group, 1))) if xp is np else n_groups


def slices(n_groups: int, size: int) -> list[slice]:
    """Cut ``n_groups`` into pieces of ``size``; the last may be smaller."""
    return [slice(start, min(start + size, n_groups)) for start in range(0, n_groups, size)]


def aligned(shape: tuple[int, ...], dtype: Any, memory: np.ndarray | None = None) -> np.ndarray:
    """Return an uninitialised array that begins on a cache line, in fresh memory or as given.

    Shapes
    ------
    memory : (n,) uint8
        At least ``ALIGNMENT`` bytes more than the array has.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if memory is None:
        memory = np.empty(n_bytes + ALIGNMENT, dtype=np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def _references_when_idle() -> int:
    block = aligned((1,), np.uint8)
    blocks = [(block.base, block)]
    return next(getrefcount(memory) for memory, block in blocks)  # as ``empty`` counts


# References to the memory under a block of which nobody holds a view; a view of a view refers to
# that memory too, so the count sees every one.
_LENT_TO_NOBODY = _references_when_idle()
