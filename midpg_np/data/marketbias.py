"""MarketBias electronics: the Amazon data of the MI-DPG paper.

One row is a rating of a product.  The scenario is the product category; the label is whether the
rating is good.  Published as ``df_electronics.csv`` (1,292,954 rows) with a division into training,
validation and test rows, which is used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Literal

import numpy as np

from midpg_np.data.batches import split_by_fraction
from midpg_np.data.frames import columns_of
from midpg_np.data.reading import import_polars, read_table
from midpg_np.data.schema import Schema
from midpg_np.data.sources import Source
from midpg_np.data.splits import Splits, encode_parts
from midpg_np.data.table import parts_by_column

if TYPE_CHECKING:
    import polars

SOURCE = Source(
    name="marketbias",
    files=("df_electronics.csv", "real_subset.csv", "electronics.csv"),
    published="M. Wan et al. in the GitHub repository MengtingWan/marketBias",
)

# model_attr (whom the product picture addresses) is known for every row and behaves like a
# scenario of its own; user_attr is missing for most rows of the full file.
SCHEMA = Schema(
    label="label",
    scenario="category",
    aware=("category", "model_attr"),
    agnostic=("item_id", "user_id", "brand", "year", "user_attr", "review_year", "review_month"),
)

_COLUMNS = (
    *("item_id", "user_id", "rating", "timestamp", "model_attr"),
    *("category", "brand", "year", "user_attr", "split"),
)


def load(
    path: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    label: Literal["rating >= 4", "rating == 5"] = "rating >= 4",
    split: Literal["publisher", "random"] = "publisher",
    without: tuple[str, ...] = (),
    min_count: int | Mapping[str, int] = 1,
) -> Splits:
    """Load MarketBias electronics.

    Parameters
    ----------
    path : path
        ``df_electronics.csv``, an extract with its columns, or the folder of either.
    seed : int
        Seed of the random division; unused with the publisher's.
    label : {"rating >= 4", "rating == 5"}
        Which ratings count as positive.
    split : {"publisher", "random"}
        The publisher's column ``split``, or 80, 10 and 10 % at random.
    without : tuple of str
        Fields to leave out, such as ``("user_id",)``.
    min_count : int, or mapping of field to int
        Training rows that a category needs, as in ``Schema``.

    Returns
    -------
    Splits

    Raises
    ------
    FileNotFoundError
        If the file is not there; the message says where it is published.
    ValueError
        If an option or the content of the file is wrong.
    """
    schema = replace(checked_schema(label, split, without), min_count=min_count)
    frame = read_table(SOURCE.locate(path), _COLUMNS)
    rows = split_rows(frame, split, seed)
    notes = option_notes(label, split)
    return encode_parts(schema, with_label(frame, label), rows, name=SOURCE.name, notes=notes)


def checked_schema(label: str, split: str, without: tuple[str, ...]) -> Schema:
    """Return the schema without some fields; ValueError if an option of ``load`` is wrong."""
    if label not in ("rating >= 4", "rating == 5"):
        raise ValueError(f"label must be 'rating >= 4' or 'rating == 5'; got {label!r}.")
    if split not in ("publisher", "random"):
        raise ValueError(f"split must be 'publisher' or 'random'; got {split!r}.")
    return SCHEMA.without(*without)


def split_rows(frame: polars.DataFrame, split: str, seed: int) -> tuple[np.ndarray, ...]:
    """Return the positions of training, validation and test rows."""
    if split == "publisher":
        return parts_by_column(columns_of(frame, ["split"])["split"], "split")
    return split_by_fraction(frame.height, (0.8, 0.1, 0.1), np.random.default_rng(seed))


def option_notes(label: str, split: str) -> tuple[str, ...]:
    """Return what a reader of results should know of the options."""
    return f"Label: {label}.", f"Split: {split}."


def with_label(frame: polars.DataFrame, label: str) -> polars.DataFrame:
    """Add the label and the year and month of the rating; ValueError for a rating not in 1..5."""
    pl = import_polars()
    rating = columns_of(frame, ["rating"])["rating"]
    try:
        numbers = rating.astype(np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"column 'rating' must hold numbers from 1 to 5 ({error}).") from error
    wrong = ~((numbers >= 1) & (numbers <= 5))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"ratings must lie in [1, 5]; got {rating[row]!r} at row {row}.")
    positive = numbers >= 4 if label == "rating >= 4" else numbers == 5
    date = pl.col("timestamp").cast(pl.String)
    return frame.with_columns(
        pl.Series("label", positive.astype(np.int64)),
        date.str.slice(0, 4).alias("review_year"),
        date.str.slice(5, 2).alias("review_month"),
    )
