"""Errors that name a row."""

from __future__ import annotations


class RowError(ValueError):
    """A value is wrong; the message names its row, counted from 0.

    Parameters
    ----------
    before, after : str
        The message around the number of the row.
    row : int
        Row among those that were looked at.
    """

    def __init__(self, before: str, row: int, after: str) -> None:
        super().__init__(before, row, after)
        self.before, self.row, self.after = before, row, after

    def __str__(self) -> str:
        return f"{self.before}{self.row}{self.after}"

    def shifted(self, n_rows: int) -> RowError:
        """Return the error of the same row in a file where ``n_rows`` rows come before."""
        return RowError(self.before, self.row + n_rows, self.after)
