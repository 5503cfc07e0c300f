"""Moments of an embedding table whose rows wait: where they lie, and how rows of them move.

A batch reads rows of a large table at random, and every place it looks at costs a miss of the cache
and of the address translation: together as long as the arithmetic.  So on a CPU what belongs to a
row lies side by side, as one record, and the rows of a batch are read once and written once per
step.  On a GPU, where many reads are on their way together, these are separate arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from midpg_np.backend import Array, as_items, gather_rows, get_xp, is_on_host, put_rows

NEVER = 0  # the first step is step 1; memory of zeros costs nothing until it is written


@dataclass
class RowMoments:
    """Moments of some rows of a table, as arrays of their own.

    Shapes
    ------
    ids, last : (n,) on the host, ids distinct
    m, v : (n, k)
    """

    ids: np.ndarray
    last: np.ndarray
    m: Array
    v: Array

    def some(self, positions: np.ndarray) -> RowMoments:
        """Return those at ``positions`` (on the host)."""
        where = get_xp(m=self.m).asarray(positions)
        return RowMoments(self.ids[positions], self.last[positions], self.m[where], self.v[where])


@dataclass
class TableMoments:
    """Moments of one table.

    Between catching up and the update of the same rows their moments, up to date, are ``gathered``
    and not in the table yet.  ``write_back`` ends this state; whatever else reads m, v and last
    calls it first.

    Shapes
    ------
    m, v : (V, k)
    last : (V,) int64 on the host, or None in the table form
        Step up to which the row has been computed; 0 for a row that never had a gradient, whose
        moments are zero and which therefore never moved.
    records : (V,) on the host, or None
        The memory of which m, v and last are views.
    """

    m: Array
    v: Array
    last: np.ndarray | None = None
    records: np.ndarray | None = None
    gathered: RowMoments | None = None


def table_moments(table: Array, waits: bool) -> TableMoments:
    """Return zero moments for ``table`` (V, k), whose rows wait for their update or do not."""
    xp, (n_rows, width) = get_xp(table=table), table.shape
    if waits and is_on_host(table):
        number, item = (table.dtype, (width,)), (np.void, width * table.dtype.itemsize)
        typed = np.dtype([("m", *number), ("v", *number), ("last", np.int64)])
        # A moment as one opaque item is copied three times as fast as number by number.
        records = np.zeros(n_rows, dtype=[("m", item), ("v", item), ("last", np.int64)])
        fields = records.view(typed)
        return TableMoments(fields["m"], fields["v"], fields["last"], records)
    last = np.full(n_rows, NEVER) if waits else None
    return TableMoments(xp.zeros_like(table), xp.zeros_like(table), last)


def write_back(moments: TableMoments) -> None:
    """Write gathered moments to the table."""
    gathered, moments.gathered = moments.gathered, None
    if gathered is not None:
        put_moments(moments, gathered)


def gather_moments(moments: TableMoments, ids: np.ndarray) -> RowMoments:
    """Return the moments of rows as arrays of their own.

    Shapes
    ------
    ids : (n,)
        On the host.
    """
    assert moments.last is not None
    if moments.records is None:
        where = get_xp(m=moments.m).asarray(ids)
        m, v = gather_rows(moments.m, where), gather_rows(moments.v, where)
        return RowMoments(ids, moments.last[ids], m, v)
    rows = moments.records.take(ids)
    shape, dtype = (ids.size, moments.m.shape[1]), moments.m.dtype
    m, v = (np.ascontiguousarray(rows[name]).view(dtype).reshape(shape) for name in ("m", "v"))
    return RowMoments(ids, np.ascontiguousarray(rows["last"]), m, v)


def put_moments(moments: TableMoments, rows: RowMoments) -> None:
    """Write the moments of distinct rows to the table."""
    assert moments.last is not None
    if moments.records is None:
        where = get_xp(m=moments.m).asarray(rows.ids)
        put_rows(moments.m, where, rows.m)
        put_rows(moments.v, where, rows.v)
        moments.last[rows.ids] = rows.last
    else:
        records = np.empty(rows.ids.size, dtype=moments.records.dtype)
        records["m"], records["v"], records["last"] = as_items(rows.m), as_items(rows.v), rows.last
        moments.records.put(rows.ids, records)
