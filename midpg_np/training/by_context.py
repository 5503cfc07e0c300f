"""Logits of a data set: batch by batch, or context by context where a model offers that.

A context is what the scenario-aware fields of a row hold.  Rows are grouped within blocks that lie
at the same rows of a file however it is cut into pieces, so that the result has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import get_xp, to_device, to_numpy
from midpg_np.batch import Batch
from midpg_np.layers.groups import group_rows
from midpg_np.tree import Tree

BLOCK_ROWS = 65_536
# Fewest rows per context, on the average of a block, for which forming its weights pays; on a GPU
# the many small products of a context take longer to start than to run.
ROWS_PER_CONTEXT = {"cpu": 32, "cuda": 1024}


class ContextIds(NamedTuple):
    """Number (B,) of each row's context, and how many contexts there are."""

    ids: np.ndarray
    n_contexts: int


def is_by_context(model: Any) -> bool:
    """Whether the model offers a plain network per context."""
    return getattr(model, "plain_by_context", False)


def logits_in_batches(
    model: Any, params: Tree, rows: Batch, batch_size: int, device: str
) -> np.ndarray:
    """Return the logits (B,), so many rows at a time."""
    parts = []
    for part in _slices(rows.n_rows, batch_size):
        batch = _part(rows, part).to(device)
        parts.append(to_numpy(model.forward(params, batch)[0].logit))
    return np.concatenate(parts) if parts else np.zeros(0)


def logits_in_blocks(
    model: Any, params: Tree, rows: Batch, batch_size: int, device: str
) -> np.ndarray:
    """Return the logits (B,) of a model with ``plain_by_context``, block by block.

    A block with fewer than ``ROWS_PER_CONTEXT`` rows per context goes through the model itself.
    """
    parts = [
        _logits_of_block(model, params, _part(rows, block), batch_size, device)
        for block in _slices(rows.n_rows, BLOCK_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _logits_of_block(
    model: Any, params: Tree, rows: Batch, batch_size: int, device: str
) -> np.ndarray:
    numbered = context_ids(rows.codes[:, : model.n_aware])
    if rows.n_rows < ROWS_PER_CONTEXT[device] * numbered.n_contexts:
        return logits_in_batches(model, params, rows, batch_size, device)
    return logits_by_context(model, params, rows, numbered, batch_size, device)


def logits_by_context(
    model: Any, params: Tree, rows: Batch, numbered: ContextIds, batch_size: int, device: str
) -> np.ndarray:
    """Return the logits (B,), for each context from its plain network."""
    groups = group_rows(*numbered)
    rows = Batch(rows.codes[groups.order], rows.scenario[groups.order])
    contexts = rows.codes[groups.bounds[:-1], : model.n_aware]
    networks = model.context_networks(params, to_device(contexts, device))
    rows = rows.to(device)
    parts = []
    for (network, weights), group in zip(networks, groups.slices, strict=True):
        for part in _slices(group.stop - group.start, batch_size, group.start):
            parts.append(network.forward(weights, _part(rows, part))[0].logit)
    return to_numpy(get_xp(parts[0]).concatenate(parts))[groups.place]


def context_ids(contexts: np.ndarray) -> ContextIds:
    """Return a number for every distinct row of codes.

    Column by column: numbers of what came before stay below the number of rows, and so no product
    of many vocabularies can overflow.

    Shapes
    ------
    contexts : (B, n_aware)
    ids : (B,)
    """
    ids = np.zeros(len(contexts), dtype=np.int64)
    n_distinct = 1
    for codes in contexts.T:
        distinct, ids = np.unique(ids * (codes.max() + 1) + codes, return_inverse=True)
        n_distinct = len(distinct)
    return ContextIds(ids, n_distinct)


def _part(rows: Batch, part: slice) -> Batch:
    """Return some rows, without their labels."""
    return Batch(rows.codes[part], rows.scenario[part])


def _slices(n_rows: int, size: int, first: int = 0) -> Iterator[slice]:
    """Cut rows, of which the first is number ``first``, into slices of at most ``size``."""
    for start in range(first, first + n_rows, size):
        yield slice(start, min(start + size, first + n_rows))
