"""Gradient of an array of which one batch reads only a few rows."""

from __future__ import annotations

from typing import NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_on_host, scatter_add_rows, segment_sum_padded


class RowGradient(NamedTuple):
    """Gradient of an array that is zero outside the rows ``ids`` of its first axis.

    An embedding table has one row per code, weights by scenario one "row" per scenario.

    Shapes
    ------
    ids : (M,)
        Distinct rows, ascending; padded perhaps, as ``backend.segment_sum_padded`` does.  If not
        ``is_summed``, rows in any order, which may repeat.
    rows : (M, ...)
    n_rows : int
        Number of rows of the whole array.
    is_summed : bool
        On a GPU the gradient of a lookup is left as it is read: an optimiser that steps on the
        whole table adds it up without sorting the ids.
    is_whole : bool
        ``ids`` are all rows, in their order.
    """

    ids: Array
    rows: Array
    n_rows: int
    is_summed: bool = True
    is_whole: bool = False

    def dense(self) -> Array:
        """Return the gradient as a whole array, the rows themselves where they are all there."""
        if self.is_whole:
            return self.rows
        if self.is_summed and 0 < self.n_rows == len(self.rows) and is_on_host(self.ids):
            if self.ids[-1] == self.n_rows - 1:  # without padding
                return self.rows
        xp = get_xp(ids=self.ids, rows=self.rows)
        # One row more than there are takes the padding.
        whole = xp.zeros((self.n_rows + 1, *self.rows.shape[1:]), dtype=self.rows.dtype)
        if self.is_summed:
            whole[self.ids] = self.rows
        else:
            scatter_add_rows(whole, self.ids, self.rows)
        return whole[:-1]

    def summed(self) -> RowGradient:
        """Return the same gradient with distinct rows; padded where kernels take the padding."""
        if self.is_summed:
            return self
        if kernels.fuses(self.rows):
            ids, rows = segment_sum_padded(self.ids, self.rows, self.n_rows)
        else:
            ids, rows = kernels.sum_by_id(self.ids, self.rows)
        return RowGradient(ids, rows, self.n_rows)
