"""``midpg data``: what a data set holds, and generating one into a file."""

import json

import numpy as np
import polars as pl
from midpg_command import midpg, one_sentence, words, write_rows

from midpg_np.data import load_dataset

SMALL = ("--data-option", "n_rows=3000")


def test_describe_as_json_and_as_a_table():
    outcome = midpg("data", "describe", *SMALL, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    description = json.loads(outcome.out)
    splits = load_dataset("synthetic", n_rows=3000)
    assert description["name"] == "synthetic"
    text = words(midpg("data", "describe", *SMALL).out)
    for part, dataset in splits.parts.items():
        found = description["parts"][part]
        assert found["rows"] == len(dataset)
        for d, scenario in enumerate(found["scenarios"]):
            own = dataset.label[dataset.scenario == d]
            assert (scenario["name"], scenario["rows"]) == (str(d), len(own))
            assert np.isclose(scenario["positive_rate"], own.mean())
            assert f" {len(own)} {100 * own.mean():.1f} %" in text
    assert [field["name"] for field in description["fields"]] == list(splits.train.field_names)
    assert "channel aware 5" in text and "field_14 agnostic 31" in text


def test_head_shows_codes_one_column_per_row():
    outcome = midpg("data", "head", *SMALL, "-n", 3, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    records = json.loads(outcome.out)
    train = load_dataset("synthetic", n_rows=3000).train
    assert records["label"] == train.label[:3].tolist()
    assert records["scenario"] == [train.scenario_names[d] for d in train.scenario[:3]]
    assert list(records["codes"]) == list(train.field_names)
    assert np.array_equal(list(records["codes"].values()), train.codes[:3].T)
    text = words(midpg("data", "head", *SMALL, "-n", 3).out)
    assert " ".join(["field_14", *map(str, train.codes[:3, -1])]) in text
    assert "…" not in text


def test_own_table(shop):
    schema = ("--schema", shop / "roles.toml")
    description = json.loads(midpg("data", "describe", shop / "rows.csv", *schema, "--json").out)
    assert {part: d["rows"] for part, d in description["parts"].items()} == {
        "train": 1200,
        "valid": 150,
        "test": 150,
    }
    assert len(json.loads(midpg("data", "head", shop / "rows.csv", *schema, "--json").out)) == 3


def test_what_does_not_go_together(shop, tmp_path):
    rows, roles = shop / "rows.csv", shop / "roles.toml"
    for arguments, message in (
        (["synthetik"], "there is no data set 'synthetik'; choose synthetic, marketbias, "),
        ([rows], f"the table {rows} needs --schema FILE, a TOML file that names its label, "),
        (["synthetic", "--schema", roles], "data set 'synthetic' has its own schema; leave out"),
        ([rows, "--schema", roles, "--path", tmp_path], "--path goes with a built-in data set; "),
        ([rows, "--schema", tmp_path / "x.toml"], "there is no schema file "),
        (["iaac"], "data set 'iaac' needs a path"),
        (["--data-option", "n_row=9"], "--data-option n_row: the loader of synthetic has no such "),
        (["--data-option", "n_rows"], "a setting is written NAME=VALUE, such as gain=2; got "),
        ([rows, "--schema", roles, "--data-option", "path=x"], "--data-option path: the loader of"),
    ):
        assert one_sentence(midpg("data", "describe", *arguments)).startswith(message)


def test_a_misspelt_column_of_the_schema(shop, tmp_path):
    rows = write_rows(tmp_path / "rows.csv", 20, price=None, prize=range(20))
    message = one_sentence(midpg("data", "head", rows, "--schema", shop / "roles.toml"))
    assert message.startswith(
        f"{rows} has no column 'price'; its columns are channel, device, item"
    )
    assert message.endswith("Did you mean 'prize'?")


def test_generate_writes_a_file_that_can_be_read(tmp_path):
    path = tmp_path / "clicks.parquet"
    arguments = ("data", "generate", "industrial", path, "--fraction", 0.0002, "--seed", 4)
    outcome = midpg(*arguments)
    assert outcome == (0, "", f"21730 rows written to {path}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["clicks.parquet"]
    rows = pl.read_parquet(path)
    assert rows.height == 21_730 and rows["user_id"].n_unique() == 8_680
    description = json.loads(midpg("data", "describe", "industrial", "--path", path, "--json").out)
    assert [part["rows"] for part in description["parts"].values()] == [15_211, 2_173, 4_346]
    other = midpg(*arguments[:-1], 5)
    assert other.code == 0 and not rows.equals(pl.read_parquet(path))


def test_what_cannot_be_generated(tmp_path):
    file = tmp_path / "rows.parquet"
    for arguments, message in (
        (["industrail", file], "'industrail' cannot be generated; choose synthetic-marketbias, "),
        (["synthetic-marketbias", tmp_path / "x.csv"], "the file to write must end in .parquet; "),
        (["industrial", tmp_path / "no" / "x.parquet"], "there is no folder "),
        (["industrial", file, "--fraction", 2], "fraction must lie in [0.0001, 1]; got 2.0."),
    ):
        assert one_sentence(midpg("data", "generate", *arguments)).startswith(message)
    assert list(tmp_path.iterdir()) == []
