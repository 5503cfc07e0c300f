import numpy as np
import pytest

from midpg_np.data import Schema, describe, encode_splits, load_dataset, load_table
from midpg_np.data.sources import Source

SCHEMA = Schema("y", "s", aware=("s",), agnostic=("item", "x"), numeric=("x",), n_bins=2)


def part(scenarios, items, first=0):
    n_rows = len(items)
    return {
        "y": np.arange(n_rows) % 2,
        "s": np.array(list(scenarios)),
        "item": np.array(items),
        "x": np.arange(first, first + n_rows, dtype=float),
    }


def splits():
    tables = {
        "train": part("aabb", [1, 2, 3, 1]),
        "valid": part("abz", [1, 50, 2], first=100),
        "test": part("zzba", [60, 70, 80, 1], first=-100),
    }
    return encode_splits(SCHEMA, tables, name="mine", notes=("a note",))


def test_nothing_is_learned_from_later_parts():
    data = splits()
    assert data.encoder.vocab_sizes == (3, 4, 3)
    _, arrays = data.encoder.state()
    assert arrays["vocabulary/item/values"].tolist() == [1, 2, 3]
    assert arrays["vocabulary/x/edges"].tolist() == [1.0]  # the lower half of 0, 1, 2, 3
    assert data.valid.codes[:, 1].tolist() == [1, 0]
    assert data.valid.unknown_counts == {"item": 1}


def test_rows_of_unknown_scenarios_are_dropped_with_a_note():
    data = splits()
    assert [len(dataset) for dataset in data.parts.values()] == [4, 2, 2]
    assert data.notes == (
        "a note",
        "valid: 1 rows of scenarios without training rows dropped.",
        "test: 2 rows of scenarios without training rows dropped.",
    )


def test_a_part_without_rows():
    tables = {"train": part("aabb", [1, 2, 3, 1]), "valid": part("z", [1]), "test": part("a", [1])}
    with pytest.raises(ValueError, match="'mine' has no rows for the part 'valid'"):
        encode_splits(SCHEMA, tables, name="mine")


def test_describe_by_hand():
    description = describe(splits())
    assert description["name"] == "mine"
    assert description["fields"] == [
        {"name": "s", "role": "aware", "vocab_size": 3},
        {"name": "item", "role": "agnostic", "vocab_size": 4},
        {"name": "x", "role": "agnostic", "vocab_size": 3},
    ]
    test = description["parts"]["test"]
    assert (test["rows"], test["positives"], test["positive_rate"]) == (2, 1, 0.5)
    assert test["unknown_counts"] == {"item": 1}
    assert test["scenarios"] == [
        {"name": "a", "rows": 1, "positives": 1, "positive_rate": 1.0},
        {"name": "b", "rows": 1, "positives": 0, "positive_rate": 0.0},
    ]


def test_describe_without_labels_and_with_an_unknown_scenario():
    data = splits()
    rows = {name: values for name, values in part("az", [1, 1]).items() if name != "y"}
    lone = data.encoder.transform(rows, unknown_scenario="shared", require_label=False, warn=False)
    description = describe(lone)["parts"]["all"]
    assert (description["rows"], description["positive_rate"]) == (2, None)
    assert [row["name"] for row in description["scenarios"]] == ["a", "b", "(unknown)"]
    assert [row["rows"] for row in description["scenarios"]] == [1, 0, 1]


def test_own_table(write_csv):
    rng = np.random.default_rng(0)
    rows = [[i % 2, "ab"[i % 3 == 0], rng.integers(5), rng.normal()] for i in range(200)]
    path = write_csv([["y", "s", "item", "x"], *rows])
    data = load_table(path, SCHEMA, seed=1)
    assert [len(dataset) for dataset in data.parts.values()] == [160, 20, 20]
    again = load_table(path, SCHEMA, seed=1)
    np.testing.assert_array_equal(data.test.codes, again.test.codes)
    assert data.name == "table.csv"


def test_own_table_divided_by_a_column(write_csv):
    header = ["y", "s", "item", "x", "fold"]
    rows = [[i % 2, "a", i, i, ("train", "valid", "test")[i // 4]] for i in range(12)]
    data = load_table(write_csv([header, *rows]), SCHEMA, split="fold")
    assert [len(dataset) for dataset in data.parts.values()] == [4, 4, 4]
    rows[5][-1] = "dev"
    with pytest.raises(ValueError, match=r"'fold' must hold train, valid, test .* 'dev' at row 5"):
        load_table(write_csv([header, *rows]), SCHEMA, split="fold")


def test_unknown_data_set():
    with pytest.raises(ValueError, match=r"no data set 'kuairant'.*Did you mean 'kuairand'"):
        load_dataset("kuairant")


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("marketbias", "MengtingWan/marketBias"),
        ("iaac", "Alibaba on the Tianchi platform"),
        ("kuairand", "chongminggao/KuaiRand"),
        ("online-shoppers", "UCI Machine Learning Repository"),
    ],
)
def test_missing_files_say_where_they_are_published(name, published, tmp_path):
    for path in (None, tmp_path, tmp_path / "none.csv"):
        with pytest.raises(FileNotFoundError, match=published):
            load_dataset(name, path)


def test_source_prefers_the_original(tmp_path):
    source = Source("x", ("original.csv", "extract.csv"), "someone")
    (tmp_path / "extract.csv.gz").write_bytes(b"1")
    assert source.locate(tmp_path).name == "extract.csv.gz"
    (tmp_path / "original.csv").write_bytes(b"1")
    assert source.locate(tmp_path).name == "original.csv"
    assert source.locate(tmp_path / "extract.csv.gz").name == "extract.csv.gz"
