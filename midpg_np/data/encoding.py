"""From raw columns to integer codes, with everything learned from the training rows only."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.data.batches import Dataset
from midpg_np.data.categories import Column, factorise
from midpg_np.data.errors import RowError
from midpg_np.data.frames import Columns, check_columns, coded_columns, column_names
from midpg_np.data.schema import Schema
from midpg_np.data.vocabulary import QuantileBins, Vocabulary

FORMAT = 1  # of the saved state


class UnknownCategoryWarning(UserWarning):
    """Rows to encode hold categories that no training row held; they get code 0."""


class Encoder:
    """Learn vocabularies and bins from training rows, and encode any rows with them.

    Code 0 of every field means "unknown, rare or missing".  A categorical field has one further
    code per category that enough training rows have, in sorted order; a numeric field one per
    quantile bin.

    Parameters
    ----------
    schema : Schema
        Names and roles of the columns.
    min_count : int, or mapping of field to int, optional
        In place of ``schema.min_count``.
    """

    def __init__(self, schema: Schema, min_count: int | Mapping[str, int] | None = None) -> None:
        self.schema = schema if min_count is None else replace(schema, min_count=min_count)
        self._fields: dict[str, Vocabulary | QuantileBins] | None = None
        self._scenarios = Vocabulary(np.empty(0, dtype=np.int64))

    def fit(self, columns: Columns) -> Encoder:
        """Learn from training rows; returns the encoder itself.

        Parameters
        ----------
        columns : mapping of names to arrays (N,), polars DataFrame or pandas DataFrame
            Must hold ``schema.columns``; others are ignored.

        Raises
        ------
        ValueError
            If a column is missing, there are fewer than two rows, a label is not 0 or 1, the
            labels are all equal, a scenario is missing, or a numeric column holds other things.
        """
        schema = self.schema
        arrays = coded_columns(columns, schema.columns)
        n_rows = len(arrays[schema.label])
        if n_rows < 2:
            rows = "no rows" if n_rows == 0 else "1 row"
            raise ValueError(f"the training data has {rows}; at least two are needed.")
        label = parse_label(arrays[schema.label], schema.label)
        if label.min() == label.max():
            raise ValueError(
                f"label column {schema.label!r} is {int(label[0])} in all {n_rows} training rows; "
                "rows of both classes, 0 and 1, are needed."
            )
        self._scenarios = self._fit_scenarios(arrays[schema.scenario])
        self._fields = {name: self._fit_field(name, arrays[name]) for name in schema.fields}
        return self

    @classmethod
    def of_vocabularies(
        cls, schema: Schema, scenario: Vocabulary, fields: Mapping[str, Vocabulary]
    ) -> Encoder:
        """Make an encoder of vocabularies that were learned elsewhere, as ``data.pieces`` does.

        That of ``scenario`` and, by name, those of the ``fields`` of ``schema``.
        """
        encoder = cls(schema)
        encoder._scenarios = scenario
        encoder._fields = {name: fields[name] for name in schema.fields}
        return encoder

    def _fit_scenarios(self, column: Column) -> Vocabulary:
        distinct, index = factorise(column, self.schema.scenario)
        if (index < 0).any():
            raise ValueError(
                f"scenario column {self.schema.scenario!r} has no value at row "
                f"{int(np.argmax(index < 0))} of the training data; every row needs a scenario."
            )
        return Vocabulary(distinct)

    def _fit_field(self, name: str, column: Column) -> Vocabulary | QuantileBins:
        if name in self.schema.numeric:
            return QuantileBins.fit(column, name, self.schema.n_bins)
        return Vocabulary.fit(column, name, self.schema.least_count(name))

    def transform(
        self,
        columns: Columns,
        *,
        unknown_scenario: str = "error",
        require_label: bool = True,
        warn: bool = True,
    ) -> Dataset:
        """Encode rows.

        Parameters
        ----------
        columns : mapping of names to arrays (N,), polars DataFrame or pandas DataFrame
            Rows to encode.
        unknown_scenario : {"error", "shared"}
            What to do with a scenario that no training row had: refuse it, or give it scenario
            id -1.  Models that route by scenario refuse id -1; the others predict, with code 0
            in the scenario's field.
        require_label : bool
            If False, the label column may be absent or empty; ``Dataset.label`` is None then.
        warn : bool
            Whether to warn once, with counts, when categories are unknown.  The counts are in
            ``Dataset.unknown_counts`` in any case.

        Returns
        -------
        Dataset

        Raises
        ------
        ValueError
            If the encoder is not fitted, a column is missing, there are no rows, or a value is
            wrong; the message names column, row and value.

        Warns
        -----
        UnknownCategoryWarning
            Once for all fields.
        """
        self._fitted()
        if unknown_scenario not in ("error", "shared"):
            raise ValueError(
                f"unknown_scenario must be 'error' or 'shared'; got {unknown_scenario!r}."
            )
        schema = self.schema
        present = column_names(columns)
        needed = [name for name in schema.columns if name != schema.label]
        has_label = require_label or schema.label in present
        names = [*needed, schema.label] if has_label else needed
        check_columns(names, present)
        arrays = coded_columns(columns, names)
        if len(arrays[schema.scenario]) == 0:
            raise ValueError("the data has no rows; there is nothing to encode.")
        label = self._label(arrays.get(schema.label), require_label)
        scenario = self._scenario(arrays[schema.scenario], unknown_scenario)
        codes, unknown_counts = self._codes(arrays)
        if warn and unknown_counts:
            message = unknown_message(unknown_counts, len(codes))
            warnings.warn(message, UnknownCategoryWarning, stacklevel=2)
        return Dataset(
            codes=codes,
            scenario=scenario,
            label=label,
            vocab_sizes=self.vocab_sizes,
            n_aware=len(schema.aware),
            n_scenarios=self.n_scenarios,
            field_names=schema.fields,
            scenario_names=self.scenario_names,
            unknown_counts=unknown_counts,
        )

    def knows_scenario(self, columns: Columns) -> np.ndarray:
        """Return flags (N,): whether a row of ``columns`` has a scenario of the training rows."""
        name = self.schema.scenario
        self._fitted()
        return self._scenarios.encode(coded_columns(columns, [name])[name], name)[0] > 0

    def _label(self, column: Column | None, required: bool) -> np.ndarray | None:
        if column is None:
            return None
        if not required and (factorise(column, self.schema.label).inverse < 0).all():
            return None
        return parse_label(column, self.schema.label)

    def _codes(self, arrays: Mapping[str, Column]) -> tuple[np.ndarray, dict[str, int]]:
        fields = self._fitted()
        n_rows = len(arrays[self.schema.scenario])
        codes = np.empty((n_rows, len(fields)), dtype=np.int64)
        unknown_counts = {}
        for f, (name, field) in enumerate(fields.items()):
            codes[:, f], missing = field.encode(arrays[name], name)
            surprising = codes[:, f] == 0
            if isinstance(field, Vocabulary) and field.n_rare:
                continue  # code 0 was trained for rare categories, and stands for new ones as well
            if field.saw_missing:  # then code 0 was trained for missing values
                surprising &= ~missing
            if surprising.any():
                unknown_counts[name] = int(surprising.sum())
        return codes, unknown_counts

    def _scenario(self, column: Column, unknown: str) -> np.ndarray:
        name = self.schema.scenario
        codes, missing = self._scenarios.encode(column, name)
        if unknown == "error" and (codes == 0).any():
            row = int(np.argmax(codes == 0))
            value = column[row : row + 1].tolist()[0]
            got = "has no value" if missing[row] else f"holds {value!r}"
            raise RowError(
                f"scenario column {name!r} {got} at row ",
                row,
                f", which no training row had; the scenarios are {_some(self.scenario_names)}. "
                "unknown_scenario='shared' predicts such rows with models that do not route by "
                "scenario.",
            )
        return codes - 1

    def _fitted(self) -> dict[str, Vocabulary | QuantileBins]:
        if self._fields is None:
            raise ValueError("the encoder is not fitted; call fit with the training rows first.")
        return self._fields

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Number of codes of each field, code 0 included, in the order of ``schema.fields``."""
        return tuple(field.size for field in self._fitted().values())

    @property
    def rare_counts(self) -> dict[str, tuple[int, int]]:
        """By field that has them: categories too rare for a code, and all of the training rows."""
        return {
            name: (field.n_rare, field.n_rare + len(field.values))
            for name, field in self._fitted().items()
            if isinstance(field, Vocabulary) and field.n_rare
        }

    @property
    def n_scenarios(self) -> int:
        """Number of scenarios D in the training rows."""
        self._fitted()
        return len(self._scenarios.values)

    @property
    def scenario_names(self) -> tuple[str, ...]:
        """Values of the scenario column, as text, in the order of the scenario ids."""
        self._fitted()
        return tuple(str(value) for value in self._scenarios.values.tolist())

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return all that was learned: a description for JSON, and arrays by name.

        Integer categories are int64 arrays; text is stored as UTF-8 bytes with lengths, bin edges
        as float64.  ``from_state`` gives back an encoder that encodes alike.
        """
        fields = self._fitted()
        meta, arrays = self._scenarios.state("scenario")
        described = {}
        for name, field in fields.items():
            described[name], parts = field.state(f"vocabulary/{name}")
            arrays |= parts
        content = {"format": FORMAT, "schema": self.schema.to_dict(), "scenario": meta}
        return content | {"fields": described}, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Encoder:
        """Rebuild an encoder from ``meta`` and ``arrays``, what ``state`` returned.

        Raises
        ------
        ValueError
            If they are something else, or incomplete.
        """
        if meta.get("format") != FORMAT:
            raise ValueError(
                f"the encoder's state has format {meta.get('format')!r}; expected {FORMAT}."
            )
        try:
            encoder = cls(Schema.from_dict(meta["schema"]))
            encoder._scenarios = Vocabulary.from_state(meta["scenario"], dict(arrays), "scenario")
            encoder._fields = {
                name: _field_from_state(name, meta["fields"][name], dict(arrays))
                for name in encoder.schema.fields
            }
        except KeyError as error:
            raise ValueError(f"the encoder's state lacks {error}; it is incomplete.") from error
        return encoder


def parse_label(column: Column, name: str) -> np.ndarray:
    """Return a label column (N,) as float64 zeros and ones.

    0 and 1 may be written as integers, floats, truth values or text.

    Raises
    ------
    ValueError
        For anything else, and for a missing label: the first offending row and its value.
    """
    distinct, index = factorise(column, name)
    meaning = {0: 0.0, 1: 1.0, "0": 0.0, "1": 1.0, "False": 0.0, "True": 1.0}
    # One entry more, for index -1: missing.
    values = np.array([*(meaning.get(value, np.nan) for value in distinct.tolist()), np.nan])
    label = values[index]
    wrong = np.isnan(label)
    if wrong.any():
        row = int(np.argmax(wrong))
        value = column[row : row + 1].tolist()[0]
        got = "no value" if index[row] < 0 else repr(value)
        raise RowError(f"label column {name!r} must hold 0 or 1; got {got} at row ", row, ".")
    return label


def _field_from_state(
    name: str, meta: Mapping[str, Any], arrays: dict[str, np.ndarray]
) -> Vocabulary | QuantileBins:
    kind = QuantileBins if meta["kind"] == "bins" else Vocabulary
    return kind.from_state(dict(meta), arrays, f"vocabulary/{name}")


def unknown_message(counts: Mapping[str, int], n_rows: int) -> str:
    """Return the text of the warning about rows of unknown categories, by field."""
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"categories that no training row had get code 0 ({n_rows} rows; unknown: {listed})."


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
