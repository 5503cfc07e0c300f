"""``industrial``: rows in the shape of the MI-DPG paper's advertising data, at any fraction.

Of that data the numbers of rows, users and scenarios are published; everything else here is
chosen.  Rows are made in chunks that do not depend on each other, so no more than one is ever in
memory, and training reads them from disk (``data.stored``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from midpg_np.data.generated.hashing import hashed, hashed_normal, hashed_uniform
from midpg_np.data.pieces import first_rows, fit_in_pieces
from midpg_np.data.reading import import_polars, read_chunks, table_height
from midpg_np.data.schema import Schema
from midpg_np.data.splits import Splits, rare_notes
from midpg_np.data.stored import store

if TYPE_CHECKING:
    import polars

NAME = "industrial"
N_ROWS, N_USERS = 108_649_408, 43_397_838
SCENARIO_SHARES = (0.60, 0.28, 0.12)
POSITIVE_RATES = (0.06, 0.08, 0.11)
N_ITEMS, N_BUCKETS = 50_000, 2**17
CHUNK_ROWS = 2**18
_LEAST = 1e-4

# Number of values of each field: of the row, of the user, of the item.
_OF_ROW = {"placement": 6, "hour": 24, "position": 12, "device": 4}
_OF_USER = {"age": 8, "gender": 3, "city": 300, "activity": 10}
_OF_ITEM = {"item_category": 120, "shop_id": 3_000, "price_level": 20}
_EFFECTS = {**_OF_ROW, **_OF_USER, **_OF_ITEM, "item_id": N_ITEMS}
_EFFECT_SD, _USER_SD = 0.28, 0.5

SCHEMA = Schema(
    label="is_converted",
    scenario="scenario",
    aware=("scenario", "placement"),
    agnostic=(
        "user_bucket",
        "item_id",
        *(f for f in _EFFECTS if f not in ("placement", "item_id")),
    ),
)


class Planted(NamedTuple):
    """How the labels come about: log-odds = intercept + sum of factor x effect, + user's part.

    Shapes
    ------
    effects : dict of (V,)
        By field, one number per value, shared by the scenarios.
    factors : (3, F)
        What each scenario multiplies the effects of each field with.
    intercepts : (3,)
    of_item : dict of (50000,)
        Values of the fields that belong to an item.
    placements : (3, 6)
        Shares of the placements in each scenario.
    """

    effects: dict[str, np.ndarray]
    factors: np.ndarray
    intercepts: np.ndarray
    of_item: dict[str, np.ndarray]
    placements: np.ndarray

    def log_odds(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the log-odds (N,) of rows."""
        scenario = columns["scenario"]
        total = self.intercepts[scenario] + _USER_SD * hashed_normal(columns["user_id"], 0)
        for f, (name, effect) in enumerate(self.effects.items()):
            total += self.factors[scenario, f] * effect[columns[name]]
        return total


@dataclass(frozen=True)
class IndustrialRows:
    """The rows, made chunk by chunk.

    Parameters
    ----------
    fraction : float
        Share of the 108,649,408 rows and 43,397,838 users, from 0.0001 to 1.  What is planted is
        the same for every fraction.
    seed : int
        Everything random derives from it.

    Raises
    ------
    ValueError
        If the fraction is out of range.
    """

    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not _LEAST <= self.fraction <= 1:
            raise ValueError(f"fraction must lie in [{_LEAST}, 1]; got {self.fraction}.")

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return round(self.fraction * N_ROWS)

    @property
    def n_users(self) -> int:
        """Number of users; each has a row at least."""
        return round(self.fraction * N_USERS)

    @cached_property
    def planted(self) -> Planted:
        """How the labels come about."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0,)))
        planted = Planted(
            {name: _EFFECT_SD * rng.normal(size=size) for name, size in _EFFECTS.items()},
            # Some fields count twice in a scenario, some hardly at all.
            factors=rng.uniform(0.0, 2.0, size=(len(SCENARIO_SHARES), len(_EFFECTS))),
            intercepts=np.zeros(len(SCENARIO_SHARES)),
            of_item={name: rng.integers(0, size, N_ITEMS) for name, size in _OF_ITEM.items()},
            placements=rng.dirichlet(np.full(_OF_ROW["placement"], 2.0), len(SCENARIO_SHARES)),
        )
        columns = self._features(np.arange(2**16), planted, rng)
        return planted._replace(intercepts=_intercepts(planted.log_odds(columns), columns))

    def chunks(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield all columns of the rows, ``CHUNK_ROWS`` at a time."""
        for start in range(0, self.n_rows, CHUNK_ROWS):
            rows = np.arange(start, min(start + CHUNK_ROWS, self.n_rows))
            key = (1, start // CHUNK_ROWS)
            rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            columns = self._features(rows, self.planted, rng)
            probability = 0.5 * (1 + np.tanh(0.5 * self.planted.log_odds(columns)))
            label = rng.random(len(rows)) < probability
            yield columns | {"is_converted": label.astype(np.int8)}

    def frames(self) -> Iterator[polars.DataFrame]:
        """Yield the same as frames, in the smallest types that hold the values."""
        pl = import_polars()
        large = ("user_id", "user_bucket", "item_id", "shop_id", "city")
        for columns in self.chunks():
            small = {
                name: values.astype(np.int32 if name in large else np.int8)
                for name, values in columns.items()
            }
            yield pl.DataFrame(small)

    def _features(
        self, rows: np.ndarray, planted: Planted, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Draw the columns of rows but the label; their users alone follow from their numbers."""
        n = len(rows)
        scenario = rng.choice(len(SCENARIO_SHARES), size=n, p=SCENARIO_SHARES)
        user = self._users(rows, rng)
        item = (N_ITEMS * rng.random(n) ** 2.5).astype(np.int64)  # a few are shown often
        ends = np.cumsum(planted.placements, axis=1)[:, :-1]
        of_row = {name: rng.integers(0, size, n) for name, size in _OF_ROW.items()}
        of_row["placement"] = (rng.random((n, 1)) > ends[scenario]).sum(axis=1)
        of_user = {
            name: (size * hashed_uniform(user, purpose)).astype(np.int64)
            for purpose, (name, size) in enumerate(_OF_USER.items(), start=1)
        }
        of_user["activity"] = _OF_USER["activity"] * user // self.n_users
        return {
            "user_id": user,
            "user_bucket": (hashed(user, 9) % np.uint64(N_BUCKETS)).astype(np.int64),
            "item_id": item,
            "scenario": scenario,
            **of_row,
            **of_user,
            **{name: values[item] for name, values in planted.of_item.items()},
        }

    def _users(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the users of rows: each one once, and then the active ones again and again."""
        n_rows, n_users = self.n_rows, self.n_users
        step = round(n_rows * (math.sqrt(5) - 1) / 2) | 1
        while math.gcd(step, n_rows) > 1:
            step += 2
        place = rows * step % n_rows  # a permutation of all rows, without a table of it
        again = (n_users * rng.random(len(rows)) ** 1.5).astype(np.int64)
        return np.where(place < n_users, place, again)


def _intercepts(log_odds: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Solve for intercepts (3,) that give each scenario its rate of positives, by bisection."""
    found = np.zeros(len(POSITIVE_RATES))
    for d, rate in enumerate(POSITIVE_RATES):
        own = log_odds[columns["scenario"] == d]
        low, high = -20.0, 20.0
        for _ in range(40):
            found[d] = (low + high) / 2
            mean = (0.5 * (1 + np.tanh(0.5 * (own + found[d])))).mean()
            low, high = (low, found[d]) if mean > rate else (found[d], high)
    return found


def load(
    path: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    fraction: float | None = None,
    user: Literal["user_bucket", "user_id"] = "user_bucket",
    valid_rows: int = 100_000,
    test_rows: int = 200_000,
    without: tuple[str, ...] = (),
    min_count: int | Mapping[str, int] = 1,
) -> Splits:
    """Generate the rows, or read them from a file, and encode them; training rows stay on disk.

    The last rows are for testing, those before for validation: a fifth and a tenth of all, but no
    more than ``test_rows`` and ``valid_rows``, which are held in memory.

    Parameters
    ----------
    path : path, optional
        Parquet file that ``midpg data generate industrial`` wrote; without it rows are generated.
    seed : int
        Seed of generated rows.
    fraction : float, optional
        Share of the 108,649,408 rows, a hundredth if not given; of the file's rows, all.
    user : {"user_bucket", "user_id"}
        Field that stands for the user: one of 131,072 groups, so that the embedding table is the
        same for every fraction, or the user.
    valid_rows, test_rows : int
        Largest numbers of validation and test rows.
    without : tuple of str
        Fields to leave out.
    min_count : int, or mapping of field to int
        Training rows that a category needs, as in ``Schema``.

    Returns
    -------
    Splits
        ``train`` is a ``StoredDataset``: its files lie in the place for temporary files (TMPDIR)
        and go with it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If an option or the content of the file is wrong.
    """
    schema = replace(_schema(user).without(*without), min_count=min_count)
    if min(valid_rows, test_rows) < 1:
        raise ValueError(
            f"valid_rows and test_rows must be at least 1; got {valid_rows} and {test_rows}."
        )
    n_rows, chunks, origin = _source(path, seed, fraction, schema)
    n_test, n_valid = min(test_rows, n_rows // 5), min(valid_rows, n_rows // 10)
    n_train = n_rows - n_valid - n_test
    if min(n_valid, n_train) < 1:
        raise ValueError(f"{n_rows} rows are too few for training, validation and test rows.")

    encoder = fit_in_pieces(schema, first_rows(chunks(), n_train, schema.columns))
    stored = store(encoder, first_rows(chunks(), n_rows, schema.columns))
    return Splits(
        train=stored.first(n_train),
        valid=stored.take(np.arange(n_train, n_train + n_valid)),
        test=stored.take(np.arange(n_train + n_valid, n_rows)),
        encoder=encoder,
        name=NAME,
        notes=(
            origin,
            "Division: the last rows are test rows, those before validation rows.",
            *rare_notes(encoder),
        ),
    )


def _schema(user: str) -> Schema:
    if user not in ("user_bucket", "user_id"):
        raise ValueError(f"user must be 'user_bucket' or 'user_id'; got {user!r}.")
    agnostic = tuple(user if name == "user_bucket" else name for name in SCHEMA.agnostic)
    return replace(SCHEMA, agnostic=agnostic)


def _source(
    path: str | PathLike[str] | None, seed: int, fraction: float | None, schema: Schema
) -> tuple[int, Callable[[], Iterator[Any]], str]:
    """Return the number of rows, what gives them in chunks, and a note on where they are from."""
    if path is None:
        rows = IndustrialRows(0.01 if fraction is None else fraction, seed)
        note = f"Generated with seed {seed}: {rows.n_rows} rows, {rows.n_users} users."
        return rows.n_rows, rows.chunks, note
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1]; got {fraction}.")
    file = Path(path)
    n_rows = round(table_height(file) * (fraction or 1.0))
    columns = schema.columns
    return n_rows, lambda: read_chunks(file, columns, CHUNK_ROWS), f"{n_rows} rows of {file.name}."


def generate(*, seed: int = 0, fraction: float = 0.01) -> tuple[int, Iterator[polars.DataFrame]]:
    """Return the number of rows and the frames to write, as ``write_parquet`` calls it."""
    rows = IndustrialRows(fraction, seed)
    return rows.n_rows, rows.frames()
