"""The users of the generated MarketBias file, and which rows are whose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from midpg_np.data.generated.draws import apportion, with_margins
from midpg_np.data.generated.marketbias_items import Items
from midpg_np.data.generated.marketbias_numbers import (
    ACTIVE_USERS,
    CATEGORIES,
    GENDERS,
    MODEL_BY_GENDER,
    MODELS_SHOWN,
    MOST_ROWS_OF_A_USER,
    N_ROWS,
    N_USERS,
    ROWS_OF_ACTIVE_USERS,
    USERS_BY_ACTIVITY,
    USERS_OF_GENDER,
)

MISSING = len(GENDERS)  # gender of a user that is not known


class Users(NamedTuple):
    """One entry per user.

    Shapes
    ------
    n_rows : (U,)
        Rows of each user, at least 1.
    gender : (U,)
        Position in the table of genders; ``MISSING``: not known.
    """

    n_rows: np.ndarray
    gender: np.ndarray


def make_users(fraction: float, rng: np.random.Generator) -> Users:
    """Draw so many users and their rows: the published activity and genders, times ``fraction``."""
    n_users, total = round(fraction * N_USERS), round(fraction * N_ROWS)
    n_one, n_two, n_active = apportion(np.array(USERS_BY_ACTIVITY), n_users)
    active = _active(n_active, total - n_one - 2 * n_two, rng)
    several = rng.permutation(np.concatenate([np.full(n_two, 2), active]))
    n_rows = np.concatenate([np.ones(n_one, dtype=np.int64), several])
    gender = np.full(n_users, MISSING)
    ones, others = np.arange(n_one), np.arange(n_one, n_users)
    for g, n_all in enumerate(USERS_OF_GENDER):
        # A gender's rows per user say how many of its users have several.
        beyond_first = sum(category.gender_rows[g] for category in CATEGORIES) - n_all
        n_several = round(fraction * beyond_first / _rows_beyond_first())
        n_single = round(fraction * n_all) - n_several
        gender[others[:n_several]] = gender[ones[:n_single]] = g
        others, ones = others[n_several:], ones[n_single:]
    return Users(n_rows, gender)


def _rows_beyond_first() -> float:
    """Rows of a user with several, besides the first, on the average."""
    _, n_two, n_active = USERS_BY_ACTIVITY
    return (n_two + ROWS_OF_ACTIVE_USERS - n_active) / (n_two + n_active)


def _active(n_users: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the rows of users with more than two, which have ``total`` together."""
    counts = np.array([*ACTIVE_USERS, MOST_ROWS_OF_A_USER])
    scale = ROWS_OF_ACTIVE_USERS / np.dot(list(ACTIVE_USERS), list(ACTIVE_USERS.values()))
    shares = np.array([scale * n for n in ACTIVE_USERS.values()] + [1.0])
    n_rows = rng.permutation(np.repeat(counts, apportion(shares, n_users)))
    while (excess := int(n_rows.sum()) - total) != 0:
        step = -1 if excess > 0 else 1
        can = n_rows > 3 if excess > 0 else n_rows < MOST_ROWS_OF_A_USER
        chosen = rng.permutation(np.flatnonzero(can))[: abs(excess)]
        n_rows[chosen] += step
    return n_rows


def assign_users(
    users: Users, items: Items, item: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the user of each row; nobody rates an item twice.

    Women and men choose categories and models shown as often as published.

    Shapes
    ------
    item, user : (N,)
    """
    cell = items.category[item] * len(MODELS_SHOWN) + items.model[item]
    slots = np.repeat(np.arange(len(users.n_rows)), users.n_rows)
    gender_of_slot = users.gender[slots]
    gender = _genders(cell, np.bincount(gender_of_slot, minlength=3), rng)
    user = np.empty(len(item), dtype=np.int64)
    for g in range(MISSING + 1):
        user[gender == g] = rng.permutation(slots[gender_of_slot == g])
    _separate(user, item, gender, rng)
    return user


def _genders(cell: np.ndarray, totals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the gender of each row's user, given its category and model shown.

    Shapes
    ------
    cell : (N,)
        Category and model in one number.
    totals : (3,)
        Rows of women, of men, and of users whose gender is not known.
    """
    n_cells = len(CATEGORIES) * len(MODELS_SHOWN)
    rows = np.bincount(cell, minlength=n_cells)
    start = np.repeat(rows.reshape(len(CATEGORIES), len(MODELS_SHOWN), 1), len(GENDERS), axis=2)
    by_category = np.array([category.gender_rows for category in CATEGORIES])
    known = with_margins(start, [((1, 2), np.array(MODEL_BY_GENDER)), ((0, 2), by_category)])
    order = np.lexsort((rng.random(len(cell)), cell))  # by cell, at random within
    first = np.cumsum(rows) - rows
    gender = np.full(len(cell), MISSING)
    taken = np.zeros(n_cells, dtype=np.int64)
    for g in range(len(GENDERS)):
        for c, n in enumerate(apportion(known[:, :, g].ravel(), totals[g])):
            start_at = first[c] + taken[c]
            gender[order[start_at : start_at + n]] = g
            taken[c] += n
    return gender


def _separate(
    user: np.ndarray, item: np.ndarray, gender: np.ndarray, rng: np.random.Generator
) -> None:
    """Exchange users, in place, between random rows until no user has an item twice."""
    rows_of = [np.flatnonzero(gender == g) for g in range(MISSING + 1)]
    for _ in range(20):
        pair = user * np.int64(item.max() + 1) + item
        order = np.argsort(pair, kind="stable")
        again = order[1:][pair[order[1:]] == pair[order[:-1]]]
        for row in again:
            other = rng.choice(rows_of[gender[row]])
            user[row], user[other] = user[other], user[row]
        if not len(again):
            return
