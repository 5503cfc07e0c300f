"""Probabilities for a file of raw rows, of any length: read, encode and predict, piece by piece.

A batch, or a block (``training.by_context``), holds the same rows of the file whatever the size of
the pieces and the number of threads,
and so the result has the same bits.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from joblib import cpu_count

from midpg_np.data.encoding import UnknownCategoryWarning, unknown_message
from midpg_np.data.errors import RowError
from midpg_np.data.reading import read_chunks
from midpg_np.kernels import ROWS_FOR_LOOPS, compiled_loops
from midpg_np.ops import sigmoid
from midpg_np.training import by_context
from midpg_np.training.blas import blas_threads
from midpg_np.training.checkpoint import LoadedModel
from midpg_np.training.evaluate import logits_of, rows_per_batch, serving

CHUNK_ROWS = 65_536


class Predicted(NamedTuple):
    """Probabilities (N,) of a piece of the file, and its rows of unknown categories by field."""

    probability: np.ndarray
    unknown_counts: dict[str, int]


def stream_probabilities(
    loaded: LoadedModel,
    path: str | PathLike[str],
    *,
    unknown_scenario: str = "error",
    device: str = "cpu",
    chunk_rows: int = CHUNK_ROWS,
    n_threads: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield the probabilities of the rows of a file, piece by piece, in their order.

    Parameters
    ----------
    loaded : LoadedModel
        Model, parameters and encoder.
    path : path
        Table with raw rows; a label is not needed.
    unknown_scenario : {"error", "shared"}
        As in ``Encoder.transform``.
    device : str
        "cpu" or "cuda".
    chunk_rows : int
        Rows read at a time, rounded up to whole batches, or to blocks of 65,536 rows for a model
        with ``plain_by_context``.  At most ``n_threads + 2`` pieces of so
        many rows are in memory.
    n_threads : int, optional
        Pieces worked on at a time; one per core, or one on a GPU, if not given.

    Yields
    ------
    (N,) float64 array
        For each piece.

    Raises
    ------
    ValueError
        As ``read_chunks``, ``Encoder.transform`` and ``predict_logits`` do; rows in messages are
        those of the file.

    Warns
    -----
    UnknownCategoryWarning
        Once, after the last piece.
    """
    encoder = loaded.encoder
    model, params = serving(loaded.model, loaded.params, device)
    batch_size = rows_per_batch(model, params, device)
    together = by_context.BLOCK_ROWS if by_context.is_by_context(model) else batch_size
    chunk_rows = -(-chunk_rows // together) * together
    needed = [name for name in encoder.schema.columns if name != encoder.schema.label]
    n_first, pieces = counted(read_chunks(path, needed, chunk_rows), ROWS_FOR_LOOPS)
    loops = compiled_loops("auto", n_first)

    def predicted(start_and_rows: tuple[int, Any]) -> Predicted:
        start, rows = start_and_rows
        try:
            dataset = encoder.transform(
                rows, unknown_scenario=unknown_scenario, require_label=False, warn=False
            )
            with loops:  # in this thread
                logits = logits_of(model, params, dataset, batch_size, device)
        except RowError as error:
            raise error.shifted(start) from None
        return Predicted(sigmoid(logits.astype(np.float64))[0], dict(dataset.unknown_counts))

    if n_threads is None:
        n_threads = 1 if device == "cuda" else cpu_count()
    unknown: Counter[str] = Counter()
    n_rows = 0
    with blas_threads(1):
        for piece in in_order(predicted, _numbered(pieces), n_threads):
            unknown.update(piece.unknown_counts)
            n_rows += len(piece.probability)
            yield piece.probability
    if unknown:
        counts = {name: unknown[name] for name in encoder.schema.fields if name in unknown}
        warnings.warn(unknown_message(counts, n_rows), UnknownCategoryWarning, stacklevel=2)


def counted(pieces: Iterable[Any], enough: int) -> tuple[int, Iterator[Any]]:
    """Return the number of rows, or one that is at least ``enough``, and all pieces.

    So it does not depend on the size of the pieces whether a file has ``enough`` rows.
    """
    rest, first, n_rows = iter(pieces), [], 0
    for piece in rest:
        first.append(piece)
        n_rows += piece.height
        if n_rows >= enough:
            break
    return n_rows, chain(first, rest)


def _numbered(pieces: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    start = 0
    for rows in pieces:
        yield start, rows
        start += rows.height


def in_order(function: Callable[[Any], Any], items: Iterable[Any], n_threads: int) -> Iterator[Any]:
    """Map a function over items in threads; results come in the order of the items.

    At most ``n_threads + 1`` items are taken ahead of the results: each thread has one at work and
    one waits.  With one thread all happens in the thread that asks for the results.
    """
    if n_threads < 2:
        yield from map(function, items)
        return
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
