"""Any table of the user's own, by path and schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from midpg_np.data.batches import split_by_fraction
from midpg_np.data.frames import columns_of
from midpg_np.data.reading import read_table
from midpg_np.data.schema import Schema
from midpg_np.data.splits import Splits, encode_parts


def load_table(
    path: str | PathLike[str],
    schema: Schema,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    split: str | None = None,
    min_count: int | Mapping[str, int] | None = None,
) -> Splits:
    """Read a CSV or Parquet file and divide it into training, validation and test rows.

    Parameters
    ----------
    path : path
        File to read.
    schema : Schema
        Names and roles of its columns; only these columns are read.
    seed : int
        Seed of the random division.
    fractions : three floats
        Shares of training, validation and test rows.
    split : str, optional
        Column that says "train", "valid" or "test" (or 0, 1, 2) per row, instead of chance.
    min_count : int, or mapping of field to int, optional
        In place of ``schema.min_count``.

    Raises
    ------
    ValueError
        If a column or value is wrong, or a part has no rows.
    """
    if min_count is not None:
        schema = replace(schema, min_count=min_count)
    columns = schema.columns if split is None else (*schema.columns, split)
    frame = read_table(path, columns)
    if split is None:
        rng = np.random.default_rng(seed)
        rows = split_by_fraction(frame.height, fractions, rng)
        note = f"Random division {fractions} with seed {seed}."
    else:
        rows = parts_by_column(columns_of(frame, [split])[split], split)
        note = f"Divided by column {split!r}."
    return encode_parts(schema, frame, rows, name=Path(path).name, notes=(note,))


def parts_by_column(column: np.ndarray, name: str) -> tuple[np.ndarray, ...]:
    """Return positions of training, validation and test rows, as a column (N,) names them.

    Raises
    ------
    ValueError
        If the column holds something else than train, valid, test or 0, 1, 2.
    """
    meaning = {"train": 0, "valid": 1, "test": 2, "0": 0, "1": 1, "2": 2}
    part = np.array([meaning.get(str(value), -1) for value in column.tolist()], dtype=np.int64)
    if (part < 0).any():
        row = int(np.argmax(part < 0))
        raise ValueError(
            f"split column {name!r} must hold train, valid, test (or 0, 1, 2); got "
            f"{column[row : row + 1].tolist()[0]!r} at row {row}."
        )
    return np.flatnonzero(part == 0), np.flatnonzero(part == 1), np.flatnonzero(part == 2)
