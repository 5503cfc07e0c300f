"""A training step in tiles: the rows of a batch go through the network a few hundred at a time.

A tile's intermediates stay in the processor's cache and their memory is used again for the next
tile, so a step is faster and its memory does not grow with the batch.  The gradients of the tiles
add up to the gradient of the batch (it is gradient accumulation), because behind the embeddings no
row meets another; the embeddings themselves, and the shuffle of contexts, see the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.batch import Batch
from midpg_np.losses import Loss
from midpg_np.models.protocol import ModelCache, ModelOutput
from midpg_np.tree import Tree, tree_add
from midpg_np.workspace import Workspace

_MOST_ROWS, _FEWEST_ROWS = 512, 128
_MEMORY = 2**24  # bytes that a core and its two adjoints may take: they stay in the last cache


def rows_per_tile(model: Any) -> int:
    """Return how many rows should go through the network at a time, a power of two.

    512, or fewer (at least 128) where the largest core of a row, ``model.largest_core`` numbers, is
    so large that core and adjoints of 512 rows in float32 would not stay in the processor's cache.
    """
    fitting = _MEMORY // (3 * 4 * getattr(model, "largest_core", 1))
    return int(2 ** (min(max(fitting, _FEWEST_ROWS), _MOST_ROWS).bit_length() - 1))


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
        self._workspaces: SimpleQueue[Workspace] = SimpleQueue()
        for _ in range(threads):
            self._workspaces.put(Workspace())

    def map(self, work: Callable[[slice, Workspace], Any], n_rows: int) -> Iterator[Any]:
        """Yield ``work(rows, workspace)`` for every tile, in order."""

        def with_workspace(rows: slice) -> Any:
            workspace = self._workspaces.get()
            try:
                return work(rows, workspace)
            finally:
                self._workspaces.put(workspace)

        slices = [slice(i, min(i + self.rows, n_rows)) for i in range(0, n_rows, self.rows)]
        if self._pool is None:
            return map(with_workspace, slices)
        # Each thread works in a copy of this one's context, and so with its ``compiled_loops``.
        runs = [copy_context().run for _ in slices]
        return self._pool.map(lambda run, rows: run(with_workspace, rows), runs, slices)


class TileResult(NamedTuple):
    """One tile: logits, its terms of the losses, adjoints of its inputs, gradients, cache."""

    output: ModelOutput
    ce: Array
    d_inputs: tuple[Array, ...]
    grads: Tree
    cache: Any


class TiledPass(NamedTuple):
    """A batch: its losses, gradients, logits, and the cache if it was a single tile, else None."""

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
    weights, label = model.auxiliary_weights, batch.label
    inputs, c_embed = model.embed(params, batch, draws)
    n_rows = batch.n_rows

    def one_tile(rows: slice, workspace: Workspace) -> TileResult:
        share = (rows.stop - rows.start) / n_rows
        output, cache = model.network(params, [x[rows] for x in inputs], None, workspace)
        weight = None if row_weights is None else row_weights[rows]
        ce, c_ce = loss.forward(output.logit, label[rows], weight)
        scale = share if row_weights is None else 1.0  # a tile's mean counts by its rows
        auxiliary = {name: weight * share for name, weight in weights.items()}
        d_output = ModelOutput(loss.backward(scale, c_ce), auxiliary)
        d_inputs, grads = model.network_backward(d_output, cache, workspace)
        terms = {name: share * value for name, value in output.auxiliary.items()}
        only = cache if share == 1.0 else None  # else its memory serves the next tile
        return TileResult(ModelOutput(output.logit, terms), scale * ce, d_inputs, grads, only)

    ce: Array = 0.0
    grads: Tree = {}
    auxiliary: dict[str, Array] = {}
    logits, adjoints = [], []
    for tile in tiles.map(one_tile, n_rows):
        logits.append(tile.output.logit)
        adjoints.append(tile.d_inputs)
        ce = ce + tile.ce
        terms = tile.output.auxiliary
        auxiliary = {name: auxiliary.get(name, 0.0) + value for name, value in terms.items()}
        grads = tree_add(grads, tile.grads) if grads else tile.grads
    d_inputs = [_joined(parts) for parts in zip(*adjoints, strict=True)]
    grads = model.embed_backward(d_inputs, c_embed) | grads
    cache = None if tile.cache is None else ModelCache(c_embed, tile.cache)
    return TiledPass(ce, ModelOutput(_joined(logits), auxiliary), grads, cache)


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else get_xp(*parts).concatenate(parts)
