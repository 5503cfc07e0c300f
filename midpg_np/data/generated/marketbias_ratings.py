"""How the ratings of the generated MarketBias file come about: an ordered probit with known parts.

A row has the latent value

    category + brand + item's year + year of the rating + model shown in the category
    + slope of the category x age of the item + item + user + noise,   noise ~ N(0, 1),

and its rating is 1 plus the number of thresholds below that value.  The parts of items, users, of
models shown and the slopes are drawn; those of categories, brands and years, and the thresholds,
are solved for, so that the means and the counts expected are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from midpg_np.data.generated.marketbias_items import Items
from midpg_np.data.generated.marketbias_numbers import (
    BRANDS,
    CATEGORIES,
    ITEM_YEAR_MEAN,
    MODELS_SHOWN,
    N_ITEMS,
    N_ROWS,
    RATING_ROWS,
    RATING_YEAR_MEAN,
    YEARS,
)

# Standard deviations.  Those of items and users give the shares of the variance (within a
# category) that a part of the real rows has: about 7 % with the brands, and 20 %.
ITEM_SD, USER_SD, MODEL_SD, SLOPE_SD = 0.2, 0.55, 0.12, 0.06
_OLDEST = 8  # years after which an item's age counts no more
_N_ITERATIONS = 15


class Drawn(NamedTuple):
    """Parts that are drawn: item (9560,), model shown by category (10, 3), slope (10,)."""

    item: np.ndarray
    model: np.ndarray
    slope: np.ndarray


@dataclass(frozen=True, eq=False)
class Ratings:
    """The whole of the planted signal.

    Shapes
    ------
    drawn : Drawn
    category, brand, item_year, rating_year : (10,), (50,), (20,), (20,)
    thresholds : (4,)
        Increasing.
    """

    drawn: Drawn
    category: np.ndarray
    brand: np.ndarray
    item_year: np.ndarray
    rating_year: np.ndarray
    thresholds: np.ndarray

    def latent(self, items: Items, item: np.ndarray, year: np.ndarray) -> np.ndarray:
        """Return the latent values (N,) of rows, without user and noise.

        Shapes
        ------
        item, year : (N,)
            Item and year of the rating, as positions in their tables.
        """
        return (
            drawn_part(self.drawn, items, item, year)
            + self.category[items.category[item]]
            + np.append(self.brand, 0.0)[items.brand[item]]  # brand -1, none, takes the last
            + self.item_year[items.year[item]]
            + self.rating_year[year]
        )


def draw_parts(rng: np.random.Generator) -> Drawn:
    """Draw the parts that are not solved for."""
    n_categories = len(CATEGORIES)
    return Drawn(
        ITEM_SD * rng.normal(size=N_ITEMS),
        MODEL_SD * rng.normal(size=(n_categories, len(MODELS_SHOWN))),
        SLOPE_SD * rng.normal(size=n_categories),
    )


def drawn_part(drawn: Drawn, items: Items, item: np.ndarray, year: np.ndarray) -> np.ndarray:
    """Return the sum (N,) of the drawn parts, without users, of rows with these items and years."""
    category = items.category[item]
    age = year - items.year[item]
    return (
        drawn.item[item]
        + drawn.model[category, items.model[item]]
        + drawn.slope[category] * np.clip(age, 0, _OLDEST)
    )


def solve_ratings(drawn: Drawn, items: Items, of_item_year: np.ndarray) -> Ratings:
    """Solve for the other parts, given how often items of a year are rated in which year.

    Newton's method on all pairs of item and year, weighted by their expected rows; the parts take
    turns, each on what the ones before have left.

    Shapes
    ------
    of_item_year : (20, 20)
        Rows by the item's year and the year of the rating.
    """
    item, year = np.divmod(np.arange(N_ITEMS * len(YEARS)), len(YEARS))
    share = of_item_year / of_item_year.sum(axis=1, keepdims=True)
    weight = items.rows[item] * share[items.year[item], year]
    item, year, weight = (x[weight > 0] for x in (item, year, weight))
    parts = {
        "category": (items.category[item], np.array([c.mean_rating for c in CATEGORIES])),
        "brand": (items.brand[item], np.array([b.mean_rating for b in BRANDS])),
        "item_year": (items.year[item], np.array(ITEM_YEAR_MEAN)),
        "rating_year": (year, np.array(RATING_YEAR_MEAN)),
    }
    counts_above = N_ROWS - np.cumsum(RATING_ROWS)[:-1]
    spread = np.sqrt(1 + USER_SD**2)
    ratings = Ratings(
        drawn,
        **{name: np.zeros(len(target)) for name, (_, target) in parts.items()},
        thresholds=spread * ndtri(1 - counts_above / N_ROWS),
    )
    for _ in range(_N_ITERATIONS):
        z = (ratings.latent(items, item, year)[:, None] - ratings.thresholds) / spread
        above, density = ndtr(z), np.exp(-0.5 * z * z) / (np.sqrt(2 * np.pi) * spread)
        mean, slope = 1 + above.sum(axis=1), density.sum(axis=1)
        change = np.zeros(len(item))
        for name, (level, target) in parts.items():
            step = _step(level, target, weight, mean + slope * change, slope)
            getattr(ratings, name)[:] += step[:-1]
            change += step[level]
        above += density * change[:, None]
        ratings.thresholds[:] += (weight @ above - counts_above) / (weight @ density)
    return ratings


def _step(
    level: np.ndarray, target: np.ndarray, weight: np.ndarray, mean: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """Return what to add to each level of a part (and, last, to level -1: nothing)."""
    n = len(target)
    rows, total, rise = (
        np.bincount(level + 1, weight * x, minlength=n + 1)[1:] for x in (1.0, mean, slope)
    )
    return np.append((target * rows - total) / rise, 0.0)


def draw_ratings(
    latent: np.ndarray, thresholds: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw ratings 1 to 5, (N,) int8, of rows whose latent values include that of the user."""
    noisy = latent + rng.normal(size=len(latent))
    return (1 + np.searchsorted(thresholds, noisy)).astype(np.int8)
