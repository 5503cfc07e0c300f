"""L2 penalties: on the rows of a table that a batch reads, and on kernels (derivations 2.8)."""

from __future__ import annotations

from typing import NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, gather_rows, get_xp, is_on_host, scatter_add_rows
from midpg_np.layers.row_gradient import RowGradient


class ReadRowsCache(NamedTuple):
    """Rows that were read, what they hold, the number of rows of the table, and the weight.

    Shapes
    ------
    ids : (N,)
    E : (N, k)
    """

    ids: Array
    E: Array
    n_rows: int
    weight: float


def penalise_rows(table: Array, ids: Array, weight: float) -> tuple[Array, ReadRowsCache]:
    """Return weight / 2 times the sum of T[id]^2 over all places that read the table.

    See derivations 2.8a.

    A row that is read n times counts n times, and one that nobody reads does not count.

    Shapes
    ------
    table : (V, k)
    ids : (N,)
    """
    get_xp(table=table, ids=ids)
    E = gather_rows(table, ids)
    # No absolute values: the complex step differentiates this, too.
    return 0.5 * weight * (E * E).sum(), ReadRowsCache(ids, E, table.shape[0], weight)


def penalise_rows_backward(d_loss: Array | float, cache: ReadRowsCache) -> RowGradient:
    """Return ``d_table``: the row T[v] gets weight T[v] from each place that reads it.

    See derivations 2.8b.
    """
    rows = cache.E * (d_loss * cache.weight)
    if is_on_host(rows):
        ids, sums = kernels.sum_by_id(cache.ids, rows)
        return RowGradient(ids, sums, cache.n_rows)
    return RowGradient(cache.ids, rows, cache.n_rows, is_summed=False)


def penalise_kernel(
    W: Array, weight: float, centre: float = 0.0
) -> tuple[Array, tuple[Array, float]]:
    """Return weight / 2 times the sum of (W - centre)^2, W of any shape.

    Cached are W - centre and the weight.

    See derivations 2.8c.
    """
    off = W - centre if centre else W
    return 0.5 * weight * (off * off).sum(), (off, weight)


def penalise_kernel_backward(d_loss: Array | float, cache: tuple[Array, float]) -> Array:
    """Return ``dW`` (derivations 2.8d)."""
    off, weight = cache
    return off * (d_loss * weight)


def add_rows(gradient: Array | RowGradient, more: RowGradient) -> Array | RowGradient:
    """Add ``more`` rows to the gradient of a table (V, k), in rows or whole; neither is changed."""
    if not isinstance(gradient, RowGradient):
        whole = gradient.copy()
        scatter_add_rows(whole, more.ids, more.rows)
        return whole
    xp = get_xp(ids=gradient.ids, more=more.ids)
    if is_on_host(more.ids) and gradient.is_summed and xp.array_equal(gradient.ids, more.ids):
        return gradient._replace(rows=gradient.rows + more.rows)
    ids = xp.concatenate([gradient.ids, more.ids])
    rows = xp.concatenate([gradient.rows, more.rows])
    added = RowGradient(ids, rows, gradient.n_rows, is_summed=False)
    return added.summed() if is_on_host(ids) else added
