"""When the rows of the generated MarketBias file were written."""

from __future__ import annotations

import calendar
from datetime import date
from typing import NamedTuple

import numpy as np

from midpg_np.data.generated.draws import draw_given, with_margins
from midpg_np.data.generated.marketbias_numbers import (
    CATEGORIES,
    FIRST_DATE,
    LAST_DATE,
    MONTH_ROWS,
    RATING_YEAR_ROWS,
    YEARS,
    YEARS_AFTER,
)


class Calendar(NamedTuple):
    """How dates are spread.

    Shapes
    ------
    of_item_year : (20, 20)
        Rows by the item's year and the year of the rating.
    of_year : (20, 12)
        Rows by year and month of the rating.
    """

    of_item_year: np.ndarray
    of_year: np.ndarray


def make_calendar() -> Calendar:
    """Return the tables nearest to what is known of both years, with the published sums."""
    n = len(YEARS)
    lag = np.arange(n) - np.arange(n)[:, None] + 1  # YEARS_AFTER starts one year before
    known = (lag >= 0) & (lag < len(YEARS_AFTER))
    start = np.where(known, np.array(YEARS_AFTER)[np.clip(lag, 0, len(YEARS_AFTER) - 1)], 0.0)
    item_years = np.sum([category.year_rows for category in CATEGORIES], axis=0)
    by_year = with_margins(start, [((0,), item_years), ((1,), np.array(RATING_YEAR_ROWS))])
    # The flow of ratings at the middle of each month, between those of neighbouring years.
    middle = np.arange(n) + 0.5
    months = np.arange(n)[:, None] + (np.arange(12) + 0.5) / 12
    flow = np.exp(np.interp(months, middle, np.log(RATING_YEAR_ROWS))) * _days()
    margins = [((1,), np.array(MONTH_ROWS)), ((0,), np.array(RATING_YEAR_ROWS))]
    return Calendar(by_year, with_margins(flow, margins))


def draw_dates(
    calendar_: Calendar, item_year: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the year of each rating, as a position in the table of years, and its date.

    Shapes
    ------
    item_year, year : (N,)
    date : (N,)
        datetime64[D].
    """
    year = draw_given(calendar_.of_item_year, item_year, rng)
    month = draw_given(calendar_.of_year, year, rng)
    starts = np.array(
        [[np.datetime64(max(date(y, m, 1), FIRST_DATE)) for m in range(1, 13)] for y in YEARS]
    )
    day = (rng.random(len(year)) * _days()[year, month]).astype(np.int64)
    return year, starts[year, month] + day


def _days() -> np.ndarray:
    """Return the days (20, 12) of each month that lie between the first and the last date."""
    days = np.zeros((len(YEARS), 12), dtype=np.int64)
    for i, year in enumerate(YEARS):
        for m in range(12):
            start = date(year, m + 1, 1)
            end = date(year, m + 1, calendar.monthrange(year, m + 1)[1])
            inside = min(end, LAST_DATE) - max(start, FIRST_DATE)
            days[i, m] = max(inside.days + 1, 0)
    return days
