"""``synthetic-marketbias``: rows like those of the complete MarketBias electronics file.

The complete file is what the MI-DPG paper calls its Amazon data.  Rows, users, items, categories,
brands, years, genders, activity and mean ratings follow its published statistics, at full size or
any fraction; who rated what, and how, is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from midpg_np.data.generated.marketbias_dates import draw_dates, make_calendar
from midpg_np.data.generated.marketbias_items import Items, make_items
from midpg_np.data.generated.marketbias_numbers import (
    BRANDS,
    CATEGORIES,
    GENDERS,
    MODELS_SHOWN,
    N_ITEMS,
    N_ROWS,
    YEARS,
)
from midpg_np.data.generated.marketbias_ratings import (
    USER_SD,
    Ratings,
    draw_parts,
    draw_ratings,
    solve_ratings,
)
from midpg_np.data.generated.marketbias_users import Users, assign_users, make_users
from midpg_np.data.marketbias import checked_schema, option_notes, split_rows, with_label
from midpg_np.data.reading import import_polars
from midpg_np.data.splits import PARTS, Splits, encode_parts

if TYPE_CHECKING:
    import polars

NAME = "synthetic-marketbias"
CHUNK_ROWS = 2**17
_LEAST = 0.001


class MarketbiasTruth(NamedTuple):
    """How the ratings came about.

    Parameters
    ----------
    ratings : Ratings
        The planted parts, and the thresholds.
    items : Items
        What they belong to.
    bayes_auc : dict of str to float
        By part: AUC of the label's probability given all planted parts, those of users among them.
    bayes_auc_without_user : dict of str to float
        The same without the users' parts: what can be known of users who have one row.
    """

    ratings: Ratings
    items: Items
    bayes_auc: dict[str, float]
    bayes_auc_without_user: dict[str, float]


@dataclass(frozen=True, eq=False)
class MarketbiasRows:
    """All rows as whole numbers, ordered by date; made into frames piece by piece.

    Shapes
    ------
    item, user : (N,)
        Positions in the tables of items and users.
    date : (N,)
        datetime64[D].
    rating, split : (N,)
        int8.
    latent, user_part : (N,)
        float32: what the rating was drawn from, without the user, and the user's part.
    item_id : (9560,), user_id : (U,)
        Numbers by first appearance, as in the file.
    """

    items: Items
    users: Users
    ratings: Ratings
    item: np.ndarray
    user: np.ndarray
    date: np.ndarray
    rating: np.ndarray
    split: np.ndarray
    latent: np.ndarray
    user_part: np.ndarray
    item_id: np.ndarray
    user_id: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of rows N."""
        return len(self.item)

    def frames(self, chunk_rows: int = CHUNK_ROWS) -> Iterator[polars.DataFrame]:
        """Yield frames of so many rows, with the columns of ``df_electronics.csv``."""
        pl = import_polars()
        texts = {
            "model_attr": pl.Series(MODELS_SHOWN),
            "category": pl.Series([category.name for category in CATEGORIES]),
            "brand": pl.Series([brand.name for brand in BRANDS] + [None]),
            "user_attr": pl.Series([*GENDERS, None]),
        }
        for start in range(0, self.n_rows, chunk_rows):
            rows = slice(start, start + chunk_rows)
            item, user = self.item[rows], self.user[rows]
            brand = self.items.brand[item] % (len(BRANDS) + 1)  # -1, none, is the last
            yield pl.DataFrame(
                {
                    "item_id": self.item_id[item],
                    "user_id": self.user_id[user],
                    "rating": self.rating[rows].astype(np.float64),
                    "timestamp": self.date[rows],
                    "model_attr": texts["model_attr"].gather(self.items.model[item]),
                    "category": texts["category"].gather(self.items.category[item]),
                    "brand": texts["brand"].gather(brand),
                    "year": self.items.year[item] + YEARS[0],
                    "user_attr": texts["user_attr"].gather(self.users.gender[user]),
                    "split": self.split[rows].astype(np.int64),
                }
            )


def make_marketbias(fraction: float = 1.0, *, seed: int = 0) -> MarketbiasRows:
    """Generate the rows.

    Parameters
    ----------
    fraction : float
        Share of the 1,292,954 rows and 1,157,633 users, from 0.001 to 1.  The items and what is
        planted about them are the same for every fraction.
    seed : int
        Everything random derives from it.

    Raises
    ------
    ValueError
        If the fraction is out of range.
    """
    if not _LEAST <= fraction <= 1:
        raise ValueError(f"fraction must lie in [{_LEAST}, 1]; got {fraction}.")
    # One stream for each purpose, so that more rows do not change the items.
    rng_items, rng_parts, rng_users, rng_rows, rng_ratings = np.random.default_rng(seed).spawn(5)
    items, calendar = make_items(rng_items), make_calendar()
    ratings = solve_ratings(draw_parts(rng_parts), items, calendar.of_item_year)
    users = make_users(fraction, rng_users)
    item = _draw_items(items.rows, int(users.n_rows.sum()), rng_rows)
    year, date = draw_dates(calendar, items.year[item], rng_rows)
    order = np.argsort(date, kind="stable")
    item, year, date = item[order].astype(np.int32), year[order], date[order]
    user = assign_users(users, items, item, rng_users).astype(np.int32)
    latent = ratings.latent(items, item, year).astype(np.float32)
    user_part = (USER_SD * rng_ratings.normal(size=len(users.n_rows))).astype(np.float32)[user]
    return MarketbiasRows(
        *(items, users, ratings, item, user, date),
        rating=draw_ratings(latent + user_part, ratings.thresholds, rng_ratings),
        split=_publishers_split(user, users.n_rows),
        latent=latent,
        user_part=user_part,
        item_id=_by_appearance(item, N_ITEMS),
        user_id=_by_appearance(user, len(users.n_rows)),
    )


def load(
    path: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    fraction: float = 1.0,
    label: Literal["rating >= 4", "rating == 5"] = "rating >= 4",
    split: Literal["publisher", "random"] = "publisher",
    without: tuple[str, ...] = (),
    min_count: int | Mapping[str, int] = 1,
) -> Splits:
    """Generate rows like MarketBias electronics and encode them as ``marketbias`` is.

    Parameters
    ----------
    path : None
        Nothing is read; a file written by ``midpg data generate`` is read as ``marketbias``.
    seed : int
        Seed of the rows, and of a random division.
    fraction : float
        Share of the complete file, from 0.001 to 1.
    label, split, without, min_count
        As for ``marketbias``.

    Returns
    -------
    Splits
        With ``truth``, a ``MarketbiasTruth``.

    Raises
    ------
    ValueError
        If an option is wrong, or a path is given.
    """
    if path is not None:
        raise ValueError(
            f"data set {NAME!r} is generated and reads no file; got path {path}. A file that "
            "'midpg data generate' wrote is read with --data marketbias --path FILE."
        )
    schema = replace(checked_schema(label, split, without), min_count=min_count)
    made = make_marketbias(fraction, seed=seed)
    frame = import_polars().concat(made.frames())
    note = f"Generated with seed {seed}: {made.n_rows} rows, {len(made.users.n_rows)} users."
    rows = split_rows(frame, split, seed)
    truth = _truth(made, label, rows)
    notes = (note, *option_notes(label, split))
    splits = encode_parts(schema, with_label(frame, label), rows, name=NAME, notes=notes)
    return replace(splits, truth=truth)


def _truth(made: MarketbiasRows, label: str, rows: tuple[np.ndarray, ...]) -> MarketbiasTruth:
    from sklearn.metrics import roc_auc_score

    least = 4 if label == "rating >= 4" else 5
    auc: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for part, at in zip(PARTS, rows, strict=True):
        positive, latent = made.rating[at] >= least, made.latent[at]
        for with_user in auc:
            score = latent + made.user_part[at] if with_user else latent
            both = 0 < positive.mean() < 1 if len(at) else False
            auc[with_user][part] = float(roc_auc_score(positive, score)) if both else float("nan")
    return MarketbiasTruth(made.ratings, made.items, auc[True], auc[False])


def _draw_items(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the item of ``n`` rows: one of each N / n rows of the complete file, in random order."""
    at = (np.arange(n) + rng.random()) * (N_ROWS / n)
    return rng.permutation(np.searchsorted(np.cumsum(rows), at, side="right"))


def _publishers_split(user: np.ndarray, n_rows: np.ndarray) -> np.ndarray:
    """Return 2, test, for the last row of users with several, 1 for the last but one of three."""
    split = np.zeros(len(user), dtype=np.int8)
    order = np.argsort(user, kind="stable")  # each user's rows by date
    ends = np.cumsum(n_rows) - 1
    split[order[ends[n_rows > 1]]] = 2
    split[order[ends[n_rows > 2] - 1]] = 1
    return split


def _by_appearance(ids: np.ndarray, n: int) -> np.ndarray:
    """Return for each of ``n`` ids its number in the order of first appearance."""
    first = np.full(n, len(ids))
    first[ids[::-1]] = np.arange(len(ids))[::-1]  # the last to be written is the first row
    numbers = np.empty(n, dtype=np.int64)
    numbers[np.argsort(first, kind="stable")] = np.arange(n)
    return numbers


def generate(*, seed: int = 0, fraction: float = 1.0) -> tuple[int, Iterator[polars.DataFrame]]:
    """Return the number of rows and the frames to write, as ``write_parquet`` calls it."""
    made = make_marketbias(fraction, seed=seed)
    return made.n_rows, made.frames()
