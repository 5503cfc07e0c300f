"""The built-in data sets, read from real files beside the repository."""

import numpy as np
import polars as pl
import pytest

from midpg_np.data import describe, load_dataset, read_table
from midpg_np.data.iaac import parse_raw


def rows_of(data):
    return {part: len(dataset) for part, dataset in data.parts.items()}


def scenario_rows(data):
    """Rows per scenario over all parts."""
    total = {}
    for part in describe(data)["parts"].values():
        for row in part["scenarios"]:
            total[row["name"]] = total.get(row["name"], 0) + row["rows"]
    return total


def positives(data):
    return sum(int(dataset.label.sum()) for dataset in data.parts.values())


def code_of(data, name):
    return data.train.field_names.index(name)


def test_marketbias_extract(shared):
    data = load_dataset("marketbias", shared("marketbias-electronics"))
    assert rows_of(data) == {"train": 42_347, "valid": 2_374, "test": 7_826}
    assert positives(data) == 41_718
    assert data.train.n_scenarios == 10
    assert scenario_rows(data)["Headphones"] == 18_071
    assert scenario_rows(data)["Wearable Technology"] == 204
    assert not {"rating", "split", "stratum", "full_row"} & set(data.train.field_names)
    brand = data.train.codes[:, code_of(data, "brand")]
    assert 0 < (brand == 0).mean() < 0.2  # the rows whose brand is missing


def test_marketbias_vocabulary_is_that_of_the_training_rows(shared):
    folder = shared("marketbias-electronics")
    data = load_dataset("marketbias", folder)
    frame = read_table(folder / "real_subset.csv.gz")
    train = frame.filter(pl.col("split") == 0)
    for name in ("item_id", "user_id", "brand", "year", "model_attr"):
        size = data.train.vocab_sizes[code_of(data, name)]
        assert size == train[name].drop_nulls().n_unique() + 1
    unseen = frame.filter(pl.col("split") == 2)["user_id"].is_in(train["user_id"].to_list())
    test_codes = data.test.codes[:, code_of(data, "user_id")]
    np.testing.assert_array_equal(test_codes == 0, ~unseen.to_numpy())


def test_marketbias_other_label_and_original_format(shared):
    folder = shared("marketbias-electronics")
    assert positives(load_dataset("marketbias", folder, label="rating == 5")) == 32_492
    head = load_dataset("marketbias", folder / "head_524.csv", without=("user_id",))
    assert rows_of(head) == {"train": 519, "valid": 1, "test": 4}
    assert "user_id" not in head.train.field_names
    divided = load_dataset("marketbias", folder / "head_524.csv", split="random", seed=1)
    # A few rows may go, where chance left a scenario without training rows.
    assert 515 <= sum(rows_of(divided).values()) <= 524


@pytest.fixture(scope="module")
def iaac(shared):
    return load_dataset("iaac", shared("iaac"))


def test_iaac_extract(shared, iaac):
    data, folder = iaac, shared("iaac")
    frame = read_table(folder / "round1_train_sample.csv.gz")
    chosen = frame.filter(pl.col("part").str.starts_with("random")).drop("part").unique()
    assert sum(rows_of(data).values()) == chosen.height == 27_641
    assert "359 repeated rows removed." in data.notes
    assert positives(data) == chosen["is_trade"].sum()
    for dataset in data.parts.values():
        assert 0.018 < dataset.label.mean() < 0.021
    assert scenario_rows(data)["22731265849056483"] <= 4  # the rarest category survives


def test_iaac_parts_share_no_row(iaac):
    rows = [np.column_stack([part.codes, part.label]) for part in iaac.parts.values()]
    # Numeric fields are cut into bins, so a few different rows look alike; items and users tell.
    seen = [{tuple(row) for row in part.tolist()} for part in rows]
    assert len(seen[0] & seen[2]) < 0.01 * len(seen[2])


def test_iaac_seed_and_scenario(shared, iaac):
    folder = shared("iaac")
    again, other = (load_dataset("iaac", folder, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(iaac.test.codes, again.test.codes)
    assert not np.array_equal(iaac.test.codes[:, 5], other.test.codes[:, 5])
    by_gender = load_dataset("iaac", folder, scenario="user_gender_id")
    assert by_gender.train.scenario_names == ("0", "1", "2")
    assert by_gender.train.field_names[:2] == ("user_gender_id", "context_page_id")
    with pytest.raises(ValueError, match=r"parts must be among head_a, .*; got"):
        load_dataset("iaac", folder, parts=("random_c",))


def test_iaac_publishers_rows(shared):
    frame = parse_raw(read_table(shared("iaac") / "raw_labelled_rows.txt"))
    first = frame.row(0, named=True)
    assert first["item_category"] == "5799347067982556520"
    assert first["category_predicted"] is True
    assert first["n_item_properties"] == 22
    # 1537236544 is 2018-09-18, 10:09 in Beijing.
    assert (first["hour"], first["day"]) == (10, 17_792)


def test_iaac_publishers_format(tmp_path, shared):
    frame = read_table(shared("iaac") / "raw_labelled_rows.txt")
    # The ten rows known are all negative and of one day: give them labels and days.
    n_rows = frame.height
    frame = pl.concat([frame, frame, frame]).with_columns(
        is_trade=pl.Series(np.arange(3 * n_rows) % 3 == 0).cast(pl.Int64),
        context_timestamp=pl.col("context_timestamp")
        + 86_400 * pl.Series(np.repeat([0, 1, 2], n_rows)),
        shop_score_service=pl.Series([-1.0, *np.linspace(0.8, 1.0, 3 * n_rows - 1)]),
    )
    path = tmp_path / "round1_ijcai_18_train_20180301.txt"
    frame.write_csv(path, separator=" ")
    data = load_dataset("iaac", tmp_path)
    assert rows_of(data)["train"] >= n_rows
    assert sum(rows_of(data).values()) <= 3 * n_rows
    assert data.train.codes[0, code_of(data, "shop_score_service")] == 0  # -1 is missing
    with pytest.raises(ValueError, match="at least three days; the file has"):
        load_dataset("iaac", shared("iaac") / "raw_labelled_rows.txt")


@pytest.fixture(scope="module")
def kuairand(shared):
    return load_dataset("kuairand", shared("kuairand-pure"))


def test_kuairand(kuairand):
    assert kuairand.train.scenario_names == ("0", "1", "2", "4", "6")
    assert scenario_rows(kuairand) == {
        "0": 20_254,
        "1": 173_008,
        "2": 6_909,
        "4": 13_647,
        "6": 11_208,
    }
    assert kuairand.notes[0].startswith("3303 rows of other tabs")
    outcomes = {"is_click", "is_like", "long_view", "play_time_ms", "profile_stay_time"}
    assert not outcomes & set(kuairand.train.field_names)
    # Both feature tables cover every row, so no user field is missing.
    assert (kuairand.train.codes[:, code_of(kuairand, "register_days_range")] > 0).all()


def test_kuairand_is_divided_by_time(kuairand, shared):
    frame = read_table(shared("kuairand-pure") / "log_standard_2022-04-25_to_05-08.csv.gz")
    frame = frame.filter(pl.col("tab").is_in([0, 1, 2, 4, 6]))
    bounds = {"train": (0, 20220501), "valid": (20220501, 20220503), "test": (20220503, 1e9)}
    for part, (low, high) in bounds.items():
        rows = frame.filter((pl.col("date") >= low) & (pl.col("date") < high))
        dataset = kuairand.parts[part]
        np.testing.assert_array_equal(dataset.label, rows["is_click"].to_numpy())


def test_kuairand_after_the_click(shared):
    data = load_dataset("kuairand", shared("kuairand-pure"), label="long_view", tabs="all")
    assert sum(rows_of(data).values()) == 100_900
    assert abs(positives(data) / 100_900 - 0.7008) < 1e-4


@pytest.mark.parametrize(("scenario", "n"), [("VisitorType", 3), ("Month", 10), ("Region", 9)])
def test_online_shoppers(scenario, n, shared):
    data = load_dataset("online-shoppers", shared("online-shoppers"), scenario=scenario)
    assert rows_of(data) == {"train": 8_631, "valid": 1_233, "test": 2_466}
    assert positives(data) == 1_908
    assert data.train.n_scenarios == n
    for dataset in data.parts.values():
        assert abs(dataset.label.mean() - 0.1547) < 0.003


def test_options_are_checked(shared):
    folder = shared("online-shoppers")
    with pytest.raises(ValueError, match=r"scenario must be one of VisitorType, .*; got 'Weekend'"):
        load_dataset("online-shoppers", folder, scenario="Weekend")
    with pytest.raises(ValueError, match="'Revenue', which is not a field"):
        load_dataset("online-shoppers", folder, without=("Revenue",))
    with pytest.raises(ValueError, match="label must be one of is_click"):
        load_dataset("kuairand", shared("kuairand-pure"), label="is_hate")
    with pytest.raises(ValueError, match="label must be 'rating >= 4'"):
        load_dataset("marketbias", shared("marketbias-electronics"), label="rating >= 3")
