"""Gradient of an array of which one batch reads only a few rows."""

from __future__ import annotations

from typing import NamedTuple

from midpg_np.backend import Array, get_xp


class RowGradient(NamedTuple):
    """Gradient of an array that is zero outside the rows ``ids`` of its first axis.

    An embedding table has one row per code, weights by scenario one "row" per scenario.

    Shapes
    ------
    ids : (M,)
        Distinct rows, ascending; on a GPU perhaps padded (``segment_sum_padded``).
    rows : (M, ...)
    n_rows : int
        Number of rows of the whole array.
    """

    ids: Array
    rows: Array
    n_rows: int

    def dense(self) -> Array:
        """Return the gradient as a whole array."""
        xp = get_xp(ids=self.ids, rows=self.rows)
        # One row more than there are takes the padding.
        whole = xp.zeros((self.n_rows + 1, *self.rows.shape[1:]), dtype=self.rows.dtype)
        whole[self.ids] = self.rows
        return whole[:-1]
