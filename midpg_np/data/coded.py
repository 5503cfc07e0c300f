"""A column kept as its distinct values and, for each row, which of them it holds.

A million texts as objects of Python cost seconds and hundreds of megabytes.  A column of a polars
frame is therefore reduced to its distinct values by polars, once; dividing and encoding rows is
then arithmetic on integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from midpg_np.data.categories import (
    INTEGER_TEXT,
    TRUTH_TEXT,
    Factors,
    canonical_factors,
    factorise_integers,
    narrowed,
)


@dataclass(frozen=True, eq=False)
class CodedColumn:
    """Texts, or integers with gaps.  Slices share the distinct values with the whole column.

    Shapes
    ------
    raw : (M,)
        Distinct values as they were read: int64, or text (dtype object).
    canonical : Factors
        Their canonical forms, sorted, and for each of ``raw`` the position of its own.
    index : (N,)
        int64 position in ``raw``; -1 where the value is missing.
    """

    raw: np.ndarray
    canonical: Factors = field(repr=False)
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: np.ndarray | slice) -> CodedColumn:
        return CodedColumn(self.raw, self.canonical, self.index[rows])

    def tolist(self) -> list[Any]:
        """Return the values as they were read, None where one is missing."""
        raw = self.raw
        return [None if i < 0 else raw[i : i + 1].tolist()[0] for i in self.index.tolist()]

    def factors(self) -> Factors:
        """Return what ``factorise`` returns for the values of these rows."""
        distinct, position = self.canonical
        inverse = np.append(position, -1)[self.index]  # index -1, missing, takes the last entry
        return narrowed(distinct, inverse)


def coded(series: Any) -> CodedColumn:
    """Reduce a polars Series of text, or of integers with gaps, to its distinct values."""
    if series.dtype.is_integer():
        known = factorise_integers(series.drop_nulls().to_numpy().astype(np.int64))
        index = np.full(len(series), -1, dtype=np.int64)
        index[series.is_not_null().to_numpy()] = known.inverse
        return CodedColumn(known.distinct, _unchanged(known.distinct), index)
    import polars as pl

    # Sorted by their bytes in UTF-8, which is the order of Python's texts.
    distinct = series.drop_nulls().unique().sort()
    index = series.cast(pl.Enum(distinct)).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    raw = distinct.to_numpy()
    return CodedColumn(raw, _canonical_texts(distinct, raw), index)


def _unchanged(raw: np.ndarray) -> Factors:
    return Factors(raw, np.arange(len(raw)))


def _canonical_texts(distinct: Any, raw: np.ndarray) -> Factors:
    """Canonical forms of sorted texts; looked at one by one only if any has another form."""
    like_integers = distinct.str.contains(f"^(?:{INTEGER_TEXT})$")
    if not like_integers.any() and not distinct.is_in(list(TRUTH_TEXT)).any():
        return _unchanged(raw)
    if like_integers.all():
        import polars as pl

        integers = distinct.str.strip_suffix(".0").cast(pl.Int64, strict=False)
        if not integers.null_count():  # else some are too long, and all remain texts
            return factorise_integers(integers.to_numpy())
    return canonical_factors(raw.tolist(), np.arange(len(raw)))
