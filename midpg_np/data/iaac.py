"""IAAC: conversions after a click on an advertisement (IJCAI-18, Alimama).

One row is a click; the label is whether a purchase followed.  Two formats are read:

- the publisher's ``round1_ijcai_18_train_20180301.txt``, 27 columns separated by spaces, among them
  three lists; it is divided by day, the last day for test, the one before for validation;
- a comma-separated extract without time stamps and lists, divided at random.

Rows that are equal in every column are kept once, lest the same click be in two parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Literal

import numpy as np

from midpg_np.data.batches import split_by_fraction
from midpg_np.data.frames import check_columns
from midpg_np.data.reading import import_polars, read_table
from midpg_np.data.schema import Schema
from midpg_np.data.sources import Source
from midpg_np.data.splits import Splits, encode_parts

if TYPE_CHECKING:
    import polars

SOURCE = Source(
    name="iaac",
    files=("round1_ijcai_18_train_20180301.txt", "round1_train_sample.csv"),
    published="Alibaba on the Tianchi platform, competition IJCAI-18 Alimama search advertising",
)

_SCENARIOS = ("item_category", "user_gender_id")
_PAGE = "context_page_id"  # where on the site the advertisement stood: a scenario of its own kind
_CATEGORICAL = (
    *("item_category", "user_gender_id", "item_id", "item_brand_id", "item_city_id"),
    *("item_price_level", "item_sales_level", "item_collected_level", "item_pv_level"),
    *("user_id", "user_age_level", "user_occupation_id", "user_star_level"),
    *("shop_id", "shop_review_num_level", "shop_star_level"),
)
_NUMERIC = (
    *("shop_review_positive_rate", "shop_score_service"),
    *("shop_score_delivery", "shop_score_description"),
)
_RAW_ONLY = ("hour", "category_predicted", "n_item_properties")
_RAW_LISTS = ("item_category_list", "item_property_list", "predict_category_property")
_DAY = 86_400  # seconds
_BEIJING = 8 * 3_600  # seconds ahead of UTC; the days of the competition are local days


def make_schema(scenario: str = "item_category", *, raw: bool = False) -> Schema:
    """Return the schema for one of the two scenario columns and one of the two formats."""
    if scenario not in _SCENARIOS:
        raise ValueError(f"scenario must be one of {', '.join(_SCENARIOS)}; got {scenario!r}.")
    extra = _RAW_ONLY if raw else ()
    rest = tuple(name for name in _CATEGORICAL if name != scenario)
    return Schema(
        label="is_trade",
        scenario=scenario,
        aware=(scenario, _PAGE),
        agnostic=rest + _NUMERIC + extra,
        numeric=_NUMERIC + (("n_item_properties",) if raw else ()),
    )


def load(
    path: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    scenario: Literal["item_category", "user_gender_id"] = "item_category",
    parts: tuple[str, ...] = ("random_a", "random_b"),
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    without: tuple[str, ...] = (),
    min_count: int | Mapping[str, int] = 1,
) -> Splits:
    """Load IAAC, in the publisher's format or as an extract.

    Parameters
    ----------
    path : path
        The file, or the folder of a file with a known name.
    seed : int
        Seed of the random division (extract only).
    scenario : {"item_category", "user_gender_id"}
        Column of the scenario.
    parts : tuple of str
        Which values of the extract's column ``part`` to use; the random parts, by default.
    fractions : three floats
        Shares of training, validation and test rows (extract only).
    without : tuple of str
        Fields to leave out.
    min_count : int, or mapping of field to int
        Training rows that a category needs, as in ``Schema``.

    Returns
    -------
    Splits

    Raises
    ------
    FileNotFoundError
        If the file is not there; the message says where the data is published.
    ValueError
        If an option or the content of the file is wrong.
    """
    frame = read_table(SOURCE.locate(path))
    raw = "context_timestamp" in frame.columns
    schema = replace(make_schema(scenario, raw=raw).without(*without), min_count=min_count)
    n_read = frame.height
    if raw:
        frame = parse_raw(frame.unique(maintain_order=True))
        rows = split_by_day(frame["day"].to_numpy())
        rule = "Split by day: last day test, the one before validation."
    else:
        frame = _choose_parts(frame, parts)
        n_read = frame.height
        frame = frame.unique(maintain_order=True)
        rng = np.random.default_rng(seed)
        strata = frame["is_trade"].to_numpy()
        rows = split_by_fraction(frame.height, fractions, rng, strata)
        rule = f"Random split {fractions} with seed {seed}, in proportion to the label."
    notes = (rule, f"{n_read - frame.height} repeated rows removed.")
    return encode_parts(schema, frame, rows, name=SOURCE.name, notes=notes)


def _choose_parts(frame: polars.DataFrame, parts: tuple[str, ...]) -> polars.DataFrame:
    pl = import_polars()
    if "part" not in frame.columns:
        return frame
    present = sorted(set(frame["part"].to_list()))
    unknown = [part for part in parts if part not in present]
    if unknown or not parts:
        raise ValueError(f"parts must be among {', '.join(present)}; got {tuple(parts)}.")
    # Without the column, so that a click that occurs in two parts is recognised as one.
    return frame.filter(pl.col("part").is_in(list(parts))).drop("part")


def parse_raw(frame: polars.DataFrame) -> polars.DataFrame:
    """Turn the time stamp and the three list columns of the publisher's format into fields.

    - ``item_category``: second level of the category list (the first is the same for all items).
    - ``category_predicted``: whether that category is among those predicted from the query.
    - ``n_item_properties``: length of the property list.
    - ``hour`` and ``day``: local time of the click.

    -1 means "missing" there.  It stays a category of its own where the column is categorical; in
    the numeric columns it becomes a missing value.

    Parameters
    ----------
    frame : polars.DataFrame
        Rows with the publisher's columns.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    pl = import_polars()
    check_columns((*_RAW_LISTS, "context_timestamp"), frame.columns)
    local = pl.col("context_timestamp") + _BEIJING
    category = pl.col("item_category_list").str.split(";").list.get(1, null_on_oob=True)
    predicted = pl.col("predict_category_property").str.split(";")
    names = predicted.list.eval(pl.element().str.split(":").list.first())
    present = [name for name in _NUMERIC if name in frame.columns]
    return frame.with_columns(
        category.alias("item_category"),
        names.list.contains(category).alias("category_predicted"),
        pl.col("item_property_list").str.split(";").list.len().alias("n_item_properties"),
        (local % _DAY // 3_600).alias("hour"),
        (local // _DAY).alias("day"),
        *(pl.when(pl.col(name) != -1).then(pl.col(name)).alias(name) for name in present),
    )


def split_by_day(day: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return positions of training, validation (last day but one) and test rows (last day).

    Parameters
    ----------
    day : (N,) array
        Number of the day of each row.

    Raises
    ------
    ValueError
        If there are fewer than three days.
    """
    days = np.unique(day)
    if len(days) < 3:
        raise ValueError(
            f"a split by day needs clicks of at least three days; the file has {len(days)}."
        )
    before = np.flatnonzero(day < days[-2])
    return before, np.flatnonzero(day == days[-2]), np.flatnonzero(day == days[-1])
