"""The 9,560 items of the generated MarketBias file: what they are, and how often each is rated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from midpg_np.data.generated.draws import apportion
from midpg_np.data.generated.marketbias_numbers import (
    BRANDS,
    CATEGORIES,
    ITEMS_OF_MODEL,
    MODEL_BY_GENDER,
    N_ITEMS,
    N_ROWS,
)

_SPREAD = 1.9  # standard deviation of the log of an item's popularity within category and year
_N_SWAPS = 10_000


class Items(NamedTuple):
    """One entry per item.

    Shapes
    ------
    category, year, model : (9560,)
        Positions in the tables of categories, years and models shown.
    brand : (9560,)
        Position in the table of brands; -1: none.
    rows : (9560,)
        Rows in the complete file; they add up to 1,292,954.
    """

    category: np.ndarray
    year: np.ndarray
    model: np.ndarray
    brand: np.ndarray
    rows: np.ndarray


def make_items(rng: np.random.Generator) -> Items:
    """Draw items; rows by category and year, and items by model shown, are the published ones.

    Rows by brand miss the published ones by less than an item's rows; rows by model shown have
    the shares that they have among users of known gender.
    """
    category, year, rows = _cells(rng)
    brand = _brands(rng, category, rows)
    return Items(category, year, _models(rng, rows), brand, rows)


def _cells(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share items and their rows out over categories and years."""
    n_of_category = apportion(np.array([c.item_share for c in CATEGORIES]), N_ITEMS)
    categories, years, rows = [], [], []
    for c, (n_items, category) in enumerate(zip(n_of_category, CATEGORIES, strict=True)):
        of_year = np.array(category.year_rows)
        full = np.flatnonzero(of_year)  # each such year needs an item
        n_of_year = 1 + apportion(of_year[full] ** 0.7, n_items - len(full))
        for year, n in zip(full, n_of_year, strict=True):
            popularity = rng.lognormal(sigma=_SPREAD, size=n)
            rows.append(1 + apportion(popularity, of_year[year] - n))
            categories.append(np.full(n, c))
            years.append(np.full(n, year))
    return np.concatenate(categories), np.concatenate(years), np.concatenate(rows)


def _brands(rng: np.random.Generator, category: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Give each brand random items of its categories, as long as they fit into its rows."""
    brand = np.full(len(rows), -1)
    for c in range(len(CATEGORIES)):
        wanted = [
            (b.rows * b.percent[c] / sum(b.percent.values()), i)
            for i, b in enumerate(BRANDS)
            if c in b.percent
        ]
        for left, number in sorted(wanted, reverse=True):
            free = np.flatnonzero((category == c) & (brand < 0))
            for item in rng.permutation(free):
                if rows[item] <= left:
                    brand[item] = number
                    left -= rows[item]
    return brand


def _models(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """Deal out the models shown, then swap pairs of items until the rows are right as well."""
    model = rng.permutation(np.repeat(np.arange(3), ITEMS_OF_MODEL))
    known = np.array(MODEL_BY_GENDER).sum(axis=1)
    excess = np.bincount(model, rows) - N_ROWS * known / known.sum()
    for i, j in rng.integers(0, len(rows), size=(_N_SWAPS, 2)):
        changed = excess.copy()
        changed[model[i]] += rows[j] - rows[i]
        changed[model[j]] += rows[i] - rows[j]
        if model[i] != model[j] and np.abs(changed).sum() < np.abs(excess).sum():
            model[i], model[j], excess = model[j], model[i], changed
    return model
