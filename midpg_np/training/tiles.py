"""A training step in tiles: the rows of a batch go through the network a few hundred at a time.

A tile's intermediates stay in the processor's cache and their memory is used again for the next
tile, so a step is faster and its memory does not grow with the batch.  The gradients of the tiles
add up to the gradient of the batch (it is gradient accumulation), because behind the embeddings no
row meets another; the embeddings themselves, and the shuffle of contexts, see the whole batch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_batch_last
from midpg_np.batch import Batch
from midpg_np.losses import Loss
from midpg_np.models.halves import InHalves
from midpg_np.models.protocol import ModelCache, ModelOutput
from midpg_np.ops import add_to
from midpg_np.training.repeated import Pass, RepeatedPass, are_identical
from midpg_np.tree import Tree, tree_copy, tree_flatten, tree_map, tree_set
from midpg_np.workspace import Workspace

_MOST_ROWS, _FEWEST_ROWS = 512, 128
MOST_SHAPES = 2  # of tiles that are recorded: whole ones, and what is left of a batch
MOST_RECORDED = 2048  # rows; of more, Python takes no noticeable share
_MEMORY = 2**24  # bytes that a core and its two adjoints may take: they stay in the last cache


def rows_per_tile(model: Any) -> int:
    """Return how many rows should go through the network at a time, a power of two.

    512, or fewer (at least 128) where the largest core of a row, ``model.largest_core`` numbers, is
    so large that core and adjoints of 512 rows in float32 would not stay in the processor's cache.
    """
    fitting = _MEMORY // (3 * 4 * getattr(model, "largest_core", 1))
    return int(2 ** (min(max(fitting, _FEWEST_ROWS), _MOST_ROWS).bit_length() - 1))


def takes_tiles(model: Any) -> bool:
    """Whether batches may go through ``model.network`` in place of ``model.forward``.

    Not where a subclass has another ``forward`` or ``backward`` than the one made of the halves, or
    an ``advance`` that may read the cache: of that is left what ``read_by_advance`` says, if the
    batch goes as a whole.
    """
    kind = type(model)
    if isinstance(model, InHalves) and not (
        kind.forward is InHalves.forward and kind.backward is InHalves.backward
    ):
        return False
    reads_cache = hasattr(model, "advance") and getattr(model, "advance_reads_cache", True)
    is_kept = _takes_whole_batches(model) and hasattr(model, "read_by_advance")
    return hasattr(model, "network") and (is_kept or not reads_cache)


def threads_of_blas(model: Any, n_threads: int) -> int:
    """Return how many threads products may use: one where tiles share the threads out."""
    return 1 if takes_tiles(model) and not _takes_whole_batches(model) else n_threads


def _takes_whole_batches(model: Any) -> bool:
    return bool(getattr(model, "takes_whole_batches", False))


class Tiles:
    """How to cut batches, and the memory and threads to work on the pieces with.

    The result depends on ``rows``, to rounding, but not on ``threads``: tiles are added in order.

    Parameters
    ----------
    rows : int
        Rows per tile.
    threads : int
        Tiles worked on at the same time; hold BLAS to one thread each (``blas_threads``).
    """

    def __init__(self, rows: int = 512, threads: int = 1) -> None:
        self.rows = rows
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._memories = [TileMemory() for _ in range(threads)]

    def map(
        self, work: Callable[[slice, TileMemory], Any], n_rows: int, whole: bool = False
    ) -> Iterator[Any]:
        """Yield ``work(rows, memory)`` for every tile, in order; ``whole``: for one of all rows.

        Let go of each before you ask for the next, so that its memory is free.
        """
        size = n_rows if whole else self.rows
        slices = [slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size)]
        if self._pool is None:
            return (work(rows, self._memories[0]) for rows in slices)
        return self._on_threads(self._pool, work, slices)

    def _on_threads(
        self, pool: Executor, work: Callable[..., Any], slices: Sequence[slice]
    ) -> Iterator[Any]:
        """Begin a tile as soon as there is a memory of which the result has been let go.

        Each works in a copy of this thread's context, and so with its ``compiled_loops``.
        """
        n_memories = len(self._memories)

        def begin(i: int) -> tuple[Future[None], list[Any]]:
            place: list[Any] = []
            task = partial(_keep, place, work, slices[i], self._memories[i % n_memories])
            return pool.submit(copy_context().run, task), place

        under_way = deque(map(begin, range(1, min(n_memories, len(slices)))))
        try:
            yield work(slices[0], self._memories[0])  # this thread would only wait
            for i in range(n_memories, len(slices)):
                under_way.append(begin(i))
                yield _result(*under_way.popleft())
            while under_way:
                yield _result(*under_way.popleft())
        finally:  # nobody may work in these memories when the next batch comes
            wait([future for future, _ in under_way])


def _keep(place: list[Any], work: Callable[..., Any], *args: Any) -> None:
    """Leave the result in ``place``: what a future holds, its thread holds for a moment more."""
    place.append(work(*args))


def _result(future: Future[None], place: list[Any]) -> Any:
    future.result()
    return place.pop()


class TileMemory:
    """What one tile at a time works with: memory, and the passes that are recorded in it."""

    def __init__(self) -> None:
        self.workspace = Workspace()
        self._passes: dict[tuple[Any, ...], RepeatedPass] = {}
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._fixed: Sequence[Any] = ()

    def repeated(
        self, pass_: Pass, params: Tree, shape: tuple[Any, ...], fixed: Sequence[Any]
    ) -> RepeatedPass | None:
        """Return the repeated pass for tiles of a shape; None where there is to be none.

        A shape that has come twice as often as the rarest of those recorded takes its place:
        batches in which a scenario is missing differ in shape from the others, and may come first.

        Parameters
        ----------
        shape : tuple
            All that the shapes of the arrays of a pass follow from.
        fixed : sequence
            What a pass reads besides, and a recording with it: with other objects it is another
            pass.  Empty: no recordings.
        """
        if not fixed:
            return None
        if not are_identical(self._fixed, fixed):
            self._passes, self._seen, self._fixed = {}, Counter(), fixed
        self._seen[shape] += 1
        if shape not in self._passes:
            if len(self._passes) == MOST_SHAPES:
                rarest = min(self._passes, key=self._seen.__getitem__)
                if self._seen[shape] <= 2 * self._seen[rarest]:
                    return None
                del self._passes[rarest]
            self._passes[shape] = RepeatedPass(pass_, params)
        return self._passes[shape]


class TileResult(NamedTuple):
    """A tile, or a batch: its term of the loss, logits, adjoints of the inputs, gradients.

    ``kept``: of a whole batch, what ``model.advance`` will read of the cache of the network.
    """

    ce: Array
    output: ModelOutput
    d_inputs: tuple[Array, ...]
    grads: Tree
    kept: Any = None


class TiledPass(NamedTuple):
    """A batch: its losses, gradients and logits, and what ``model.advance`` will read, if any."""

    ce: Array
    output: ModelOutput
    grads: Tree
    cache: ModelCache | None


def tiled_pass(
    model: Any,
    loss: Loss,
    params: Tree,
    batch: Batch,
    draws: Mapping[str, Array],
    row_weights: Array | None,
    tiles: Tiles,
) -> TiledPass:
    """Forward, loss and backward of a model that offers ``embed`` and ``network``.

    Parameters
    ----------
    row_weights : (B,) or None
        Weights of the rows in the loss, summing to 1; None means 1 / B for each.
    """
    assert batch.label is not None
    inputs, c_embed = model.embed(params, batch, draws)
    arrays = [*inputs, batch.label] if row_weights is None else [*inputs, batch.label, row_weights]
    n_rows, n_inputs, is_whole = batch.n_rows, len(inputs), _takes_whole_batches(model)
    leaves = tree_flatten(params)
    # A step may put other arrays in their place, so a recorded pass is given them each time.
    buffers = [leaves.pop(path) for path in getattr(model, "buffers", ())]
    fixed = _fixed(model, loss, leaves)

    def one_tile(rows: slice, memory: TileMemory) -> TileResult:
        pass_ = partial(_tile_pass, model, loss, n_inputs, n_rows)
        part = arrays if is_whole else [x[rows] for x in arrays]
        part = [*part, *buffers]
        is_large = rows.stop - rows.start > MOST_RECORDED
        shape = n_rows, *(x.shape for x in part)
        repeated = memory.repeated(pass_, params, shape, [] if is_large else fixed)
        if repeated is None:
            return pass_(params, part, memory.workspace)
        return repeated(part, memory.workspace)

    whole = _summed(tiles.map(one_tile, n_rows, is_whole), n_rows)
    grads = model.embed_backward(whole.d_inputs, c_embed) | whole.grads
    cache = None if whole.kept is None else ModelCache(None, whole.kept)
    return TiledPass(whole.ce, whole.output, grads, cache)


def _fixed(model: Any, loss: Loss, leaves: Mapping[str, Array]) -> list[Any]:
    """Return what recorded passes are tied to; nothing where they would be none."""
    is_fixed = any(getattr(model, f"has_fixed_work{on}", False) for on in ("", "_on_host"))
    return [model, loss, *leaves.values()] if is_fixed and kernels.loops_are_on() else []


def _tile_pass(
    model: Any,
    loss: Loss,
    n_inputs: int,
    n_rows: int,
    params: Tree,
    arrays: Sequence[Array],
    workspace: Workspace,
) -> TileResult:
    """Pass of some of ``n_rows`` rows.

    ``arrays`` are inputs, labels and, if given, weights of the rows; then the buffers.
    """
    paths = getattr(model, "buffers", ())
    end = len(arrays) - len(paths)
    inputs, (label, *weight) = arrays[:n_inputs], arrays[n_inputs:end]
    for path, buffer in zip(paths, arrays[end:], strict=True):
        params = tree_set(params, path, buffer)
    share = len(label) / n_rows
    output, cache = model.network(params, inputs, None, workspace)
    ce, c_ce = loss.forward(output.logit, label, *weight)
    scale = 1.0 if weight else share  # a tile's mean counts by its rows
    auxiliary = {name: value * share for name, value in model.auxiliary_weights.items()}
    d_output = ModelOutput(loss.backward(scale, c_ce), auxiliary)
    d_inputs, grads = model.network_backward(d_output, cache, workspace)
    terms = {name: share * value for name, value in output.auxiliary.items()}
    kept = model.read_by_advance(cache) if hasattr(model, "read_by_advance") else None
    return TileResult(scale * ce, ModelOutput(output.logit, terms), d_inputs, grads, kept)


def _summed(results: Iterator[TileResult], n_rows: int) -> TileResult:
    """Add the tiles up in their order, and let go of each, so that its memory serves the next."""
    first = next(results)
    ce, auxiliary = 0.0 + first.ce, {n: 0.0 + x for n, x in first.output.auxiliary.items()}
    n_done = len(first.output.logit)
    if n_done == n_rows:
        output = ModelOutput(first.output.logit, auxiliary)
        return TileResult(ce, output, first.d_inputs, first.grads, first.kept)
    grads = tree_copy(first.grads)
    joined = [_longer(x, n_rows) for x in (first.output.logit, *first.d_inputs)]
    del first
    while n_done < n_rows:
        tile = next(results)
        rows = slice(n_done, n_done + len(tile.output.logit))
        for whole, part in zip(joined, (tile.output.logit, *tile.d_inputs), strict=True):
            whole[rows] = part
        ce = ce + tile.ce
        auxiliary = {n: value + tile.output.auxiliary[n] for n, value in auxiliary.items()}
        grads = tree_map(add_to, grads, tile.grads)
        n_done = rows.stop
        del tile, part
    logit, *d_inputs = joined
    return TileResult(ce, ModelOutput(logit, auxiliary), tuple(d_inputs), grads)


def _longer(x: Array, n_rows: int) -> Array:
    """Return a batch of ``n_rows`` that begins with x, stored as x is."""
    xp, shape = get_xp(x), (n_rows, *x.shape[1:])
    is_last = x.ndim > 1 and is_batch_last(x)
    longer = xp.empty(shape[::-1], x.dtype).T if is_last else xp.empty(shape, x.dtype)
    longer[: len(x)] = x
    return longer
