"""Generated data: the published statistics are met, and the labels follow what is planted."""

import json
import math
from collections import Counter
from datetime import date

import numpy as np
import polars as pl
import pytest

from midpg_np.data import describe, load_dataset
from midpg_np.data.generated import marketbias_numbers as numbers
from midpg_np.data.generated import write_parquet
from midpg_np.data.generated.draws import apportion, draw_given, with_margins
from midpg_np.data.generated.hashing import hashed, hashed_normal, hashed_uniform
from midpg_np.data.generated.industrial import (
    CHUNK_ROWS,
    POSITIVE_RATES,
    SCENARIO_SHARES,
    IndustrialRows,
)
from midpg_np.data.generated.marketbias import make_marketbias

SHARE = 0.05
STATISTICS = "full_data_statistics.json"


def sampling_error(rows):
    """Four and a half standard deviations of a mean of ratings."""
    return 4.5 * 1.38 / np.sqrt(rows)


@pytest.fixture(scope="module")
def made():
    return make_marketbias(SHARE, seed=1)


@pytest.fixture(scope="module")
def frame(made):
    return pl.concat(made.frames(chunk_rows=10_000))


def check_marketbias(frame, share):
    """Compare a generated table with ``share`` times the published statistics."""
    n = frame.height
    assert n == round(share * numbers.N_ROWS)
    assert frame["user_id"].n_unique() == round(share * numbers.N_USERS)
    check_ratings(frame)
    check_categories(frame, share)
    check_brands(frame, share)
    check_users(frame, share)
    check_dates(frame)


def check_ratings(frame):
    counts = dict(frame.group_by("rating").len().iter_rows())
    shares = np.array([counts[float(r)] for r in range(1, 6)]) / frame.height
    published = np.array(numbers.RATING_ROWS) / numbers.N_ROWS
    assert (abs(shares - published) < 4.5 * np.sqrt(published / frame.height)).all()


def check_categories(frame, share):
    columns = pl.len(), pl.col("rating").mean()
    found = {name: rest for name, *rest in frame.group_by("category").agg(columns).iter_rows()}
    for category in numbers.CATEGORIES:
        rows, mean = found[category.name]
        assert abs(rows - share * sum(category.year_rows)) <= 1
        assert abs(mean - category.mean_rating) < sampling_error(rows)
    by_year = dict(frame.group_by("year").len().iter_rows())
    totals = np.sum([category.year_rows for category in numbers.CATEGORIES], axis=0)
    for year, rows in zip(numbers.YEARS, totals, strict=True):
        assert abs(by_year.get(year, 0) - share * rows) <= len(numbers.CATEGORIES)


def check_brands(frame, share):
    columns = pl.len(), pl.col("rating").mean()
    found = {name: rest for name, *rest in frame.group_by("brand").agg(columns).iter_rows()}
    for brand in numbers.BRANDS:
        rows, mean = found[brand.name]
        # A part has the popular items of a brand, and of the others some.
        assert abs(rows - share * brand.rows) < 30 + 0.1 * share * brand.rows
        assert abs(mean - brand.mean_rating) < sampling_error(rows) + 0.05
    assert abs(found[None][0] / frame.height - 961_834 / numbers.N_ROWS) < 0.005
    assert frame.group_by("item_id").agg(pl.col("brand").n_unique())["brand"].max() == 1


def check_users(frame, share):
    rows = Counter(frame.group_by("user_id").len()["len"].to_list())
    one, two, more = numbers.USERS_BY_ACTIVITY
    assert abs(rows[1] - share * one) <= 1 and abs(rows[2] - share * two) <= 1
    assert abs(sum(rows.values()) - rows[1] - rows[2] - share * more) <= 1
    assert max(rows) <= numbers.MOST_ROWS_OF_A_USER
    assert frame.select("user_id", "item_id").is_unique().all()
    known = frame.drop_nulls("user_attr")
    users = dict(known.unique("user_id").group_by("user_attr").len().iter_rows())
    for g, gender in enumerate(numbers.GENDERS):
        assert abs(users[gender] - share * numbers.USERS_OF_GENDER[g]) <= 1
    cells = {(a, b): n for a, b, n in known.group_by("category", "user_attr").len().iter_rows()}
    for category in numbers.CATEGORIES:
        for gender, rows in zip(numbers.GENDERS, category.gender_rows, strict=True):
            # The rows of all users of a gender are drawn, to a per cent or so.
            assert abs(cells[category.name, gender] - share * rows) < 3 + 0.04 * share * rows
    cells = {(a, b): n for a, b, n in known.group_by("model_attr", "user_attr").len().iter_rows()}
    for shown, of_gender in zip(numbers.MODELS_SHOWN, numbers.MODEL_BY_GENDER, strict=True):
        for gender, rows in zip(numbers.GENDERS, of_gender, strict=True):
            assert abs(cells[shown, gender] - share * rows) < 0.04 * share * rows


def check_dates(frame):
    dates = frame["timestamp"]
    assert dates.is_sorted()
    assert numbers.FIRST_DATE <= dates.min() and dates.max() <= numbers.LAST_DATE
    by_year = dict(frame.group_by(pl.col("timestamp").dt.year()).len().iter_rows())
    for year, rows in zip(numbers.YEARS, numbers.RATING_YEAR_ROWS, strict=True):
        expected = rows * frame.height / numbers.N_ROWS
        assert abs(by_year.get(year, 0) - expected) < 5 * np.sqrt(expected) + 5
    published = (date(2014, 9, 6), date(2015, 10, 19), date(2016, 10, 19))
    for quarter, expected in enumerate(published, start=1):
        assert abs((dates[quarter * len(dates) // 4] - expected).days) < 25


def test_a_part_has_the_published_statistics(frame):
    check_marketbias(frame, SHARE)


@pytest.mark.slow
def test_the_whole_has_the_published_statistics():
    frame = pl.concat(make_marketbias(1.0, seed=0).frames())
    check_marketbias(frame, 1.0)
    assert frame["item_id"].n_unique() == numbers.N_ITEMS
    shown = dict(frame.unique("item_id").group_by("model_attr").len().iter_rows())
    assert [shown[name] for name in numbers.MODELS_SHOWN] == list(numbers.ITEMS_OF_MODEL)
    assert abs(frame["timestamp"].n_unique() - 6354) < 100
    # The publisher's rule of division, which these two numbers betray.
    assert abs(frame["split"].mean() - 0.1747587) < 1e-6
    assert abs(frame["split"].std() - 0.550681) < 1e-5


def test_the_numbers_agree_with_each_other():
    assert sum(numbers.RATING_ROWS) == numbers.N_ROWS
    assert sum(sum(category.year_rows) for category in numbers.CATEGORIES) == numbers.N_ROWS
    assert sum(numbers.RATING_YEAR_ROWS) == sum(numbers.MONTH_ROWS) == numbers.N_ROWS
    assert sum(numbers.ITEMS_OF_MODEL) == numbers.N_ITEMS
    assert sum(numbers.USERS_BY_ACTIVITY) == numbers.N_USERS
    one, two, _ = numbers.USERS_BY_ACTIVITY
    assert one + 2 * two + numbers.ROWS_OF_ACTIVE_USERS == numbers.N_ROWS
    assert sum(brand.rows for brand in numbers.BRANDS) == numbers.N_ROWS - 961_834
    by_gender = np.sum([category.gender_rows for category in numbers.CATEGORIES], axis=0)
    assert (np.sum(numbers.MODEL_BY_GENDER, axis=0) == by_gender).all()


def test_the_numbers_are_the_published_ones(shared):
    published = json.loads((shared("marketbias-electronics") / STATISTICS).read_text())
    assert [published[name] for name in ("n_rows", "n_users", "n_items")] == [
        *(numbers.N_ROWS, numbers.N_USERS, numbers.N_ITEMS)
    ]
    assert tuple(published["rating_counts"].values()) == numbers.RATING_ROWS
    for category in numbers.CATEGORIES:
        there = published["category"][category.name]
        assert category.mean_rating == there["mean_rating"]
        genders = there["user_attr_female_rows"], there["user_attr_male_rows"]
        assert category.gender_rows == genders
        years = published["year_column_x_category_rows"]["rows"][category.name]
        assert list(category.year_rows) == years and sum(years) == there["rows"]
    means = published["brand_mean_rating_exact"] | published["brand_mean_rating_estimated_pm_0.003"]
    for brand in numbers.BRANDS:
        assert brand.rows == published["brand_rows"][brand.name]
        assert abs(brand.mean_rating - means[brand.name]) < 0.001
    by_year = published["timestamp_year"].values()
    assert tuple(year["rows"] for year in by_year) == numbers.RATING_YEAR_ROWS
    found = [year["mean_rating"] for year in by_year]
    np.testing.assert_allclose(found, numbers.RATING_YEAR_MEAN, atol=1e-4)
    assert tuple(published["timestamp_month_rows"].values()) == numbers.MONTH_ROWS
    rows = np.array(list(published["year_column_x_rating_rows"]["rows"].values()))
    means = np.arange(1, 6) @ rows / rows.sum(axis=0)
    np.testing.assert_allclose(means, numbers.ITEM_YEAR_MEAN, atol=1e-4)
    activity = published["user_activity"]
    assert activity["rows_of_those_users"] == numbers.ROWS_OF_ACTIVE_USERS
    assert activity["max_rows_of_one_user"] == numbers.MOST_ROWS_OF_A_USER
    histogram = activity["rows_per_user_histogram_of_100000_random_users"]
    assert {int(n): users for n, users in histogram.items() if int(n) > 2} == numbers.ACTIVE_USERS


def test_ids_are_numbered_by_first_appearance_and_the_last_rows_of_a_user_are_held_out(frame):
    for name in ("user_id", "item_id"):
        ids = frame[name].unique(maintain_order=True).to_list()
        assert ids == list(range(len(ids)))
    rank_from_the_end = pl.int_range(pl.len()).reverse().over("user_id")
    n_rows = pl.len().over("user_id")
    rule = (
        pl.when((n_rows > 1) & (rank_from_the_end == 0))
        .then(2)
        .when((n_rows > 2) & (rank_from_the_end == 1))
        .then(1)
        .otherwise(0)
    )
    assert frame.select((rule == pl.col("split")).all()).item()


def test_ratings_follow_the_planted_parts(made):
    probability = []
    for latent in np.quantile(made.latent + made.user_part, [0.1, 0.5, 0.9]):
        near = abs(made.latent + made.user_part - latent) < 0.05
        above = (latent - made.ratings.thresholds[2]) / math.sqrt(2)
        probability.append(0.5 * (1 + math.erf(above)))
        found = (made.rating[near] >= 4).mean()
        assert abs(found - probability[-1]) < 4.5 * 0.5 / math.sqrt(near.sum())
    assert probability[2] - probability[0] > 0.3


def test_synthetic_marketbias_is_encoded_as_marketbias(tmp_path):
    made = load_dataset("synthetic-marketbias", fraction=0.01, seed=3)
    path = tmp_path / "rows.parquet"
    assert write_parquet("synthetic-marketbias", path, fraction=0.01, seed=3) == 12_930
    read = load_dataset("marketbias", path)
    for part, dataset in made.parts.items():
        np.testing.assert_array_equal(dataset.codes, read.parts[part].codes)
        np.testing.assert_array_equal(dataset.label, read.parts[part].label)
    columns = "item_id user_id rating timestamp model_attr category brand year user_attr split"
    assert pl.read_parquet_schema(path).names() == columns.split()
    assert 0.6 < made.truth.bayes_auc_without_user["train"] < made.truth.bayes_auc["train"] < 0.8
    other = load_dataset("synthetic-marketbias", fraction=0.01, seed=4)
    assert not np.array_equal(other.train.label[:100], made.train.label[:100])


def test_items_are_the_same_for_every_fraction(made):
    few = make_marketbias(0.002, seed=1)
    np.testing.assert_array_equal(few.items.rows, made.items.rows)
    np.testing.assert_array_equal(few.ratings.thresholds, made.ratings.thresholds)


def test_industrial_has_its_shape():
    rows = IndustrialRows(0.005, seed=2)
    chunks = list(rows.chunks())
    assert [len(chunk["user_id"]) for chunk in chunks] == [
        *[CHUNK_ROWS] * (rows.n_rows // CHUNK_ROWS),
        rows.n_rows % CHUNK_ROWS,
    ]
    columns = {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
    assert rows.n_rows == 543_247
    assert len(np.unique(columns["user_id"])) == rows.n_users == 216_989
    for d, (share, rate) in enumerate(zip(SCENARIO_SHARES, POSITIVE_RATES, strict=True)):
        own = columns["scenario"] == d
        assert abs(own.mean() - share) < 0.003
        assert abs(columns["is_converted"][own].mean() - rate) < 0.006
    # Among rows of alike log-odds, the share of positives is the probability.
    log_odds = rows.planted.log_odds(columns)
    for at in (-4.0, -2.5, -1.0):
        near = abs(log_odds - at) < 0.05
        expected = 1 / (1 + math.exp(-at))
        error = abs(columns["is_converted"][near].mean() - expected)
        assert error < 0.002 + 4.5 * math.sqrt(expected / near.sum())


def test_industrial_at_full_size_is_numbered_in_full():
    whole = IndustrialRows(1.0)
    assert (whole.n_rows, whole.n_users) == (108_649_408, 43_397_838)
    first = next(whole.chunks())
    assert first["user_id"].max() > 43_000_000
    assert len(np.unique(first["user_id"])) > 0.98 * CHUNK_ROWS
    np.testing.assert_array_equal(first["is_converted"], next(whole.chunks())["is_converted"])


def test_industrial_from_a_file_is_industrial_generated(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet("industrial", path, seed=1, fraction=0.0005)
    read = load_dataset("industrial", path)
    made = load_dataset("industrial", seed=1, fraction=0.0005)
    for part, dataset in made.parts.items():
        np.testing.assert_array_equal(dataset.codes, read.parts[part].codes)
        np.testing.assert_array_equal(dataset.scenario, read.parts[part].scenario)
        np.testing.assert_array_equal(dataset.label, read.parts[part].label)
    half = load_dataset("industrial", path, fraction=0.5)
    assert sum(map(len, half.parts.values())) == round(0.5 * sum(map(len, made.parts.values())))
    description = describe(made)
    assert [row["name"] for row in description["parts"]["train"]["scenarios"]] == ["0", "1", "2"]
    by_user = load_dataset("industrial", path, user="user_id", min_count=3)
    assert by_user.train.field_names[2] == "user_id"
    assert "too rare for a code of their own: user_id" in by_user.notes[-1]


def test_parts_are_capped():
    data = load_dataset("industrial", fraction=0.0002, valid_rows=50, test_rows=70)
    assert [len(part) for part in data.parts.values()] == [21_730 - 120, 50, 70]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("synthetic-marketbias", {"fraction": 1.5}, r"fraction must lie in \[0.001, 1\]; got 1.5"),
        ("synthetic-marketbias", {"path": "x"}, "is generated and reads no file; got path x"),
        ("synthetic-marketbias", {"split": "none"}, "split must be 'publisher' or 'random'"),
        ("industrial", {"fraction": 0.0}, r"fraction must lie in \[0.0001, 1\]; got 0.0"),
        ("industrial", {"user": "user"}, "user must be 'user_bucket' or 'user_id'; got 'user'"),
        ("industrial", {"valid_rows": 0}, "must be at least 1; got 0 and 200000"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(name, **options)


def test_a_file_of_another_kind(write_csv):
    path = write_csv([["user_id"], [1]])
    with pytest.raises(ValueError, match="must be a Parquet file"):
        load_dataset("industrial", path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_dataset("industrial", "no.parquet")


def test_apportioned_numbers_add_up():
    assert apportion(np.array([1.0, 1.0, 1.0]), 4).tolist() == [1, 2, 1]
    shares = np.random.default_rng(0).random(100)
    counts = apportion(shares, 12_345)
    assert counts.sum() == 12_345
    assert abs(counts - 12_345 * shares / shares.sum()).max() < 1


def test_margins_are_met_and_zeros_stay():
    start = np.array([[1.0, 0.0, 1.0], [1.0, 2.0, 3.0]])
    rows, columns = np.array([4.0, 6.0]), np.array([3.0, 2.0, 5.0])
    table = with_margins(start, [((0,), rows), ((1,), columns)])
    np.testing.assert_allclose(table.sum(axis=1), rows)
    np.testing.assert_allclose(table.sum(axis=0), columns)
    assert table[0, 1] == 0


def test_draws_have_the_shares_of_their_row():
    table = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 2.0], [1.0, 1.0, 2.0]])
    given = np.repeat([0, 1, 2], 20_000)
    drawn = draw_given(table, given, np.random.default_rng(0))
    for k, row in enumerate(table):
        shares = np.bincount(drawn[given == k], minlength=3) / 20_000
        np.testing.assert_allclose(shares, row / row.sum(), atol=0.02)
        assert (shares[row == 0] == 0).all()


def test_hashed_numbers():
    # The first outputs of splitmix64 from the seed 1234567, as published with the algorithm.
    assert hashed(np.array([1234567]), 0).tolist() == [6457827717110365317]
    assert hashed(np.array([1234567]), 1).tolist() == [3203168211198807973]
    ids = np.arange(100_000)
    uniform, normal = hashed_uniform(ids, 2), hashed_normal(ids, 3)
    assert 0 < uniform.min() and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005 and abs(uniform.std() - 12**-0.5) < 0.005
    assert abs(normal.mean()) < 0.015 and abs(normal.std() - 1) < 0.01
    assert abs(np.corrcoef(uniform, hashed_uniform(ids, 4))[0, 1]) < 0.015
