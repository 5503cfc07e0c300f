"""Training, validation and test rows of a data set, encoded by what the training rows hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from midpg_np.data.batches import Dataset
from midpg_np.data.encoding import Encoder
from midpg_np.data.frames import Columns, coded_columns
from midpg_np.data.schema import Schema

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set ready for training.

    Parameters
    ----------
    train, valid, test : Dataset
        The three parts, encoded alike.
    encoder : Encoder
        Fitted on the training rows only.
    name : str
        Name of the data set.
    notes : tuple of str
        What a reader of results should know: rows dropped, the rule of the split.
    truth : SyntheticTruth or None
        How the labels came about, where that is known.
    """

    train: Dataset
    valid: Dataset
    test: Dataset
    encoder: Encoder
    name: str
    notes: tuple[str, ...] = ()
    truth: Any = None

    @property
    def parts(self) -> dict[str, Dataset]:
        """The three parts by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def encode_splits(
    schema: Schema,
    tables: Mapping[str, Columns],
    *,
    name: str,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Fit an encoder on the training rows and encode all three parts.

    Validation and test rows of a scenario without training rows are dropped, with a note: no
    model can route them.

    Parameters
    ----------
    schema : Schema
        Names and roles of the columns.
    tables : mapping
        Tables "train", "valid" and "test".
    name : str
        Name of the data set.
    notes : tuple of str
        Notes to keep; those about dropped rows are added.

    Raises
    ------
    ValueError
        If a part has no rows (left), or a column or value is wrong.
    """
    arrays = {part: coded_columns(tables[part], schema.columns) for part in PARTS}
    encoder = Encoder(schema).fit(arrays["train"])
    notes += rare_notes(encoder)
    datasets = {}
    for part, columns in arrays.items():
        known = encoder.knows_scenario(columns)
        n_dropped = int((~known).sum())
        if n_dropped:
            notes += (f"{part}: {n_dropped} rows of scenarios without training rows dropped.",)
        if not known.any():
            raise ValueError(f"data set {name!r} has no rows for the part {part!r}.")
        kept = columns
        if n_dropped:
            kept = {column: values[known] for column, values in columns.items()}
        # Users and items unseen in training are the rule in later parts, so no warning.
        datasets[part] = encoder.transform(kept, warn=False)
    return Splits(**datasets, encoder=encoder, name=name, notes=notes)


def rare_notes(encoder: Encoder) -> tuple[str, ...]:
    """Return a note on the categories without a code of their own, if there are any."""
    if not encoder.rare_counts:
        return ()
    rare = (f"{name} {rare} of {n}" for name, (rare, n) in encoder.rare_counts.items())
    return (f"Categories too rare for a code of their own: {', '.join(rare)}.",)


def encode_parts(
    schema: Schema,
    table: Columns,
    rows: Sequence[np.ndarray],
    *,
    name: str,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Divide one table into three parts and encode them, as ``encode_splits`` does.

    Parameters
    ----------
    schema, name, notes
        As in ``encode_splits``.
    table : mapping, polars DataFrame or pandas DataFrame
        All rows.
    rows : three arrays
        Positions of the training, validation and test rows.
    """
    columns = coded_columns(table, schema.columns)
    tables = {
        part: {column: values[positions] for column, values in columns.items()}
        for part, positions in zip(PARTS, rows, strict=True)
    }
    return encode_splits(schema, tables, name=name, notes=notes)
