"""Tables that come piece by piece: what an encoder learns from them, and their first rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from midpg_np.data.categories import Column, factorise, text_form
from midpg_np.data.encoding import Encoder, parse_label
from midpg_np.data.frames import Columns, coded_columns
from midpg_np.data.schema import Schema
from midpg_np.data.vocabulary import Vocabulary


def fit_in_pieces(schema: Schema, pieces: Iterable[Columns]) -> Encoder:
    """Fit an encoder on rows that come piece by piece; it is the one that all at once would give.

    Only the distinct values and their counts are kept.

    Parameters
    ----------
    schema : Schema
        Without numeric fields: their bins need all rows at once.
    pieces : iterable of tables
        The training rows.

    Raises
    ------
    ValueError
        If the schema has numeric fields, the labels are not both 0 and 1, or a scenario is missing.
    """
    if schema.numeric:
        raise ValueError(
            f"numeric fields ({', '.join(schema.numeric)}) cannot be cut into bins piece by piece; "
            "cut them beforehand and name them as categories."
        )
    values = {name: _Counts(name) for name in schema.columns}
    for piece in pieces:
        for name, column in coded_columns(piece, schema.columns).items():
            values[name].add(column)
    labels = parse_label(values[schema.label].vocabulary().values, schema.label)
    if len(set(labels)) < 2:
        raise ValueError(
            f"label column {schema.label!r} does not hold both 0 and 1 in the training rows; rows "
            "of both classes are needed."
        )
    scenario = values[schema.scenario].vocabulary()
    if scenario.saw_missing:
        raise ValueError(
            f"scenario column {schema.scenario!r} lacks values in the training data; every row "
            "needs a scenario."
        )
    fields = {name: values[name].vocabulary(schema.least_count(name)) for name in schema.fields}
    return Encoder.of_vocabularies(schema, scenario, fields)


class _Counts:
    """Distinct values of a column that comes in pieces, and how many rows have each."""

    def __init__(self, name: str) -> None:
        self.name, self.saw_missing = name, False
        self._values, self._counts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]

    def add(self, column: Column) -> None:
        distinct, index = factorise(column, self.name)
        self.saw_missing |= bool((index < 0).any())
        self._values.append(distinct)
        self._counts.append(np.bincount(index + 1, minlength=len(distinct) + 1)[1:])
        # Merged when they have doubled, so that a long list is not sorted for every piece.
        if sum(map(len, self._values[1:])) > len(self._values[0]):
            self._merge()

    def _merge(self) -> None:
        values = self._values
        if any(part.dtype == object for part in values):
            values = [np.array(text_form(part), dtype=object) for part in values]
        distinct, index = np.unique(np.concatenate(values), return_inverse=True)
        counts = np.bincount(index, np.concatenate(self._counts), minlength=len(distinct))
        self._values, self._counts = [distinct], [counts.astype(np.int64)]

    def vocabulary(self, min_count: int = 1) -> Vocabulary:
        self._merge()
        values, counts = self._values[0], self._counts[0]
        kept = values[counts >= min_count]
        return Vocabulary(kept, self.saw_missing, len(values) - len(kept))


def first_rows(
    pieces: Iterable[Columns], n_rows: int, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the columns ``names`` of the first rows of a table that comes in pieces."""
    left = n_rows
    for piece in pieces:
        columns = coded_columns(piece, names)
        yield {name: column[:left] for name, column in columns.items()}
        left -= len(columns[names[0]])
        if left <= 0:
            return
