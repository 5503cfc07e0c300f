"""Draws that hit given totals, and tables with given margins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Return whole numbers that add up to ``total``, in proportion to ``shares``.

    Their running sums are the rounded running sums of the exact values, so neighbours together
    are as exact as each alone.

    Shapes
    ------
    shares : (K,)
    counts : (K,)
        int64.
    """
    ends = np.cumsum(shares, dtype=np.float64)
    return np.diff(np.rint(ends * (total / ends[-1])).astype(np.int64), prepend=0)


def with_margins(
    start: np.ndarray, margins: Sequence[tuple[tuple[int, ...], np.ndarray]]
) -> np.ndarray:
    """Return the table nearest to ``start`` whose sums over some of its axes are the given ones.

    Iterative proportional fitting: scaling to one margin after another.  Zeros stay.

    Parameters
    ----------
    start : array
        Not negative; says what goes together.
    margins : sequence of (axes, sums)
        The axes that are kept, and the sums over the others.
    """
    table = np.asarray(start, dtype=np.float64).copy()
    for _ in range(100):
        for axes, sums in margins:
            others = tuple(set(range(table.ndim)) - set(axes))
            found = table.sum(axis=others, keepdims=True)
            shape = [n if axis in axes else 1 for axis, n in enumerate(table.shape)]
            wanted = np.asarray(sums, dtype=np.float64).reshape(shape)
            table *= np.divide(wanted, found, out=np.zeros_like(found), where=found > 0)
    return table


def draw_given(table: np.ndarray, given: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the column of a table for each row, by the row's shares.

    Shapes
    ------
    table : (K, M)
        Not negative.
    given : (N,)
        Row of the table, in [0, K).
    drawn : (N,)
        int64 in [0, M).
    """
    ends = np.cumsum(table, axis=1)
    ends /= np.maximum(ends[:, -1:], 1e-300)
    # One sorted list serves all rows: row k lies in [k, k + 1].
    places = (ends[:, :-1] + np.arange(len(table))[:, None]).ravel()
    n_inner = table.shape[1] - 1
    return np.searchsorted(places, given + rng.random(len(given)), side="right") - given * n_inner
