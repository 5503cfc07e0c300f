"""Moments of an embedding table whose rows wait: where they lie, and how rows of them move.

A batch reads rows of a large table at random, and every place it looks at costs a miss of the cache
and of the address translation: together as long as the arithmetic.  So on a CPU what belongs to a
row lies side by side, as one record, and the rows of a batch are read once and written once per
step.  The weights can lie there too (``beside_moments``); the table is then a view.  On a GPU,
where many reads are on their way together, these are separate arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from midpg_np.backend import (
    Array,
    address,
    as_items,
    gather_rows,
    get_xp,
    is_on_host,
    put_rows,
)

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


def beside_moments(table: np.ndarray) -> np.ndarray:
    """Return a table (V, k) of the same values, whose rows lie where their moments will lie."""
    records = np.zeros(len(table), _record(table, _WITH_WEIGHTS))
    moved = _typed(records, table)["weights"]
    moved[...] = table
    return moved


def table_moments(table: Array, waits: bool) -> TableMoments:
    """Return zero moments for ``table`` (V, k), whose rows wait for their update or do not."""
    xp, n_rows = get_xp(table=table), table.shape[0]
    if waits and is_on_host(table):
        records = _records_under(table)
        if records is None or (records["last"] != NEVER).any():  # or of another state
            records = np.zeros(n_rows, _record(table, _MOMENTS))
        fields = _typed(records, table)
        return TableMoments(fields["m"], fields["v"], fields["last"], records)
    last = np.full(n_rows, NEVER) if waits else None
    return TableMoments(xp.zeros_like(table), xp.zeros_like(table), last)


_MOMENTS = ("m", "v")
_WITH_WEIGHTS = ("weights", *_MOMENTS)


def _record(table: np.ndarray, names: tuple[str, ...]) -> np.dtype:
    # A row as one opaque item is copied three times as fast as number by number.
    item = np.void, table.shape[1] * table.itemsize
    return np.dtype([*((name, *item) for name in names), ("last", np.int64)])


def _typed(records: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the records with numbers in the place of items."""
    assert records.dtype.names is not None
    *names, last = records.dtype.names
    number = table.dtype, (table.shape[1],)
    return records.view(np.dtype([*((name, *number) for name in names), (last, np.int64)]))


def _records_under(table: np.ndarray) -> np.ndarray | None:
    """Return the records whose weights are this table, as ``beside_moments`` has made it."""
    records: Any = table.base
    if not isinstance(records, np.ndarray) or records.dtype.names != (*_WITH_WEIGHTS, "last"):
        return None
    is_whole = len(records) == len(table) and address(records) == address(table)
    return records if is_whole else None  # not a view of some rows, or of the moments


def _records_with(p: Array, moments: TableMoments) -> np.ndarray | None:
    """Return the records of the moments if they hold the weights p, too."""
    if moments.records is None or not is_on_host(p):
        return None
    records = _records_under(p)
    return records if records is moments.records else None


def write_back(moments: TableMoments) -> None:
    """Write gathered moments to the table."""
    gathered, moments.gathered = moments.gathered, None
    if gathered is not None:
        put_moments(moments, gathered)


def gather(p: Array, moments: TableMoments, ids: np.ndarray) -> tuple[Array, RowMoments]:
    """Return rows of the table p (V, k) and their moments, as arrays of their own.

    Shapes
    ------
    ids : (n,)
        On the host.
    """
    records = _records_with(p, moments)
    if records is not None:
        rows = records.take(ids)
        return _numbers(rows, "weights", p), _moments(ids, rows, p)
    return gather_rows(p, get_xp(p=p).asarray(ids)), gather_moments(moments, ids)


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
    return _moments(ids, moments.records.take(ids), moments.m)


def _moments(ids: np.ndarray, rows: np.ndarray, like: np.ndarray) -> RowMoments:
    m, v = (_numbers(rows, name, like) for name in _MOMENTS)
    return RowMoments(ids, np.ascontiguousarray(rows["last"]), m, v)


def _numbers(rows: np.ndarray, name: str, like: np.ndarray) -> np.ndarray:
    items = np.ascontiguousarray(rows[name])
    return items.view(like.dtype).reshape(len(rows), like.shape[1])


def put(p: Array, moments: TableMoments, weights: Array, rows: RowMoments) -> None:
    """Write distinct rows to the table p (V, k), and their moments."""
    records = _records_with(p, moments)
    if records is None:
        put_rows(p, get_xp(p=p).asarray(rows.ids), weights)
        put_moments(moments, rows)
    else:
        new = np.empty(rows.ids.size, records.dtype)
        new["weights"] = as_items(weights)
        _put_records(records, new, rows)


def put_moments(moments: TableMoments, rows: RowMoments) -> None:
    """Write the moments of distinct rows."""
    assert moments.last is not None
    if moments.records is None or "weights" in (moments.records.dtype.names or ()):
        where = get_xp(m=moments.m).asarray(rows.ids)
        put_rows(moments.m, where, rows.m)
        put_rows(moments.v, where, rows.v)
        moments.last[rows.ids] = rows.last
    else:
        _put_records(moments.records, np.empty(rows.ids.size, moments.records.dtype), rows)


def _put_records(records: np.ndarray, new: np.ndarray, rows: RowMoments) -> None:
    new["m"], new["v"], new["last"] = as_items(rows.m), as_items(rows.v), rows.last
    records.put(rows.ids, new)
