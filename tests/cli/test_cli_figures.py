"""``midpg reproduce rank`` and ``diversity``: from the command to the files."""

import json

import pytest
from midpg_command import SCHEMA, midpg, one_sentence, words, write_rows

# Trainings of a fraction of a second, in this process.
TINY = (
    *("--data-option", "n_rows=400", "--data-option", "n_scenarios=3"),
    *("--epochs", 1, "--trials", 2, "--workers", 1, "--set", "hidden=[16,8]"),
)
GRID = ("--row-divisors", "8,4", "--col-divisors", "8", "--ranks", "1")


@pytest.fixture(scope="module")
def rank(tmp_path_factory):
    """Outcome and folder of a small grid."""
    folder = tmp_path_factory.mktemp("figures") / "rank"
    arguments = ("reproduce", "rank", *TINY, *GRID, "--methods", "r, apg", "--out", folder)
    return midpg(*arguments), folder, arguments


def test_rank_prints_and_writes_the_figure(rank):
    outcome, folder, _ = rank
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in folder.iterdir()) == [
        *("jobs", "rank.json", "rank.md", "rank.png", "report.html")
    ]
    text = words(outcome.out)
    assert "Best settings" in text and "APG's alignment" in text and "mismatch" in text
    assert "Change of test AUC per doubling of the size: DPG r" in text
    assert "seed 1: test AUC 0." in outcome.err
    content = json.loads((folder / "rank.json").read_text())
    assert content["command"].startswith("midpg reproduce rank --data-option n_rows=400 ")
    # The presets of the data hold where nothing is said.
    assert content["training"] == {"epochs": 1, "lr": 0.003, "patience": 3}
    assert [s["size"] for s in content["settings"]] == [1 / 64, 1 / 32] * 2


def test_the_same_command_computes_nothing_again(rank):
    _, folder, arguments = rank
    times = {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    again = midpg(*arguments, "--json")
    assert again.code == 0, again.err
    assert times == {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    assert json.loads(again.out)["lines"]["test"].keys() == {"r", "apg"}


def test_diversity_prints_and_writes_the_figure(tmp_path):
    folder = tmp_path / "diversity"
    outcome = midpg(
        *("reproduce", "diversity", *TINY, "--state", "last", "--layer", "layer_2"),
        *("--set", "gain=2", "--trials", 1, "--out", folder),
    )
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in folder.iterdir()) == [
        *("diversity.json", "diversity.md", "jobs", "report.html", "similarity.png", "tsne.png")
    ]
    text = words(outcome.out)
    assert "Cores of layer_1" in text and "without MIR" in text
    assert "In layer_2 the nearest neighbour of a core is of its own scenario for" in text
    content = json.loads((folder / "diversity.json").read_text())
    assert content["state"] == "last"
    assert content["model_options"] == {"hidden": [16, 8], "gain": 2}


@pytest.mark.slow
def test_a_table_of_ones_own(tmp_path):
    table = write_rows(tmp_path / "shop.csv", 300)
    schema = tmp_path / "roles.toml"
    schema.write_text(SCHEMA)
    source = ("--data", table, "--schema", schema, "--workers", 1, "--epochs", 1)
    for command, trials in (("rank", (*GRID, "--methods", "r")), ("diversity", ())):
        out = tmp_path / command
        outcome = midpg(
            "reproduce", command, *source, "--trials", 1, *trials, "--out", out, "--json"
        )
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["data"] == str(table)
    assert "agreement with the truth" not in (tmp_path / "diversity" / "diversity.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rank", "--ranks", "1,x"), "--ranks takes whole numbers with commas between"),
        (("rank", "--row-divisors", "3"), "row_divisor = 3 must divide d_m of layer_1 = 128"),
        (("rank", "--methods", "r,ple"), "methods must be among ('r', 'rc', 'c', 'non', 'apg')"),
        (("rank", "--model", "dnn"), "the variants are those of 'dpg' or 'midpg'; got 'dnn'."),
        (("rank", "--set", "d_k=2"), "--set d_k: the grid sets it"),
        (("rank", "--set", "gian=2"), "has an option 'gian' to be set. Did you mean 'gain'?"),
        (("diversity", "--layer", "layer_9"), "layer must be one of ['layer_1', 'layer_2'"),
        (("diversity", "--state", "first"), "state must be one of ('best', 'last'); got 'first'."),
        (("diversity", "--set", "mi_weight=0"), "mi_weight must be above 0"),
        (("diversity", "--data", "marketbias"), "data set 'marketbias' needs a path"),
    ],
)
def test_mistakes_are_one_sentence_before_any_training(arguments, sentence, tmp_path):
    rows = () if "--data" in arguments else ("--data-option", "n_rows=400")
    outcome = midpg("reproduce", *arguments, *rows, "--workers", 1, "--out", tmp_path / "x")
    outcome = outcome._replace(err="".join(outcome.err.splitlines(True)[-1:]))  # without notes
    assert sentence in one_sentence(outcome)
    assert not (tmp_path / "x").exists()


def test_help_shows_examples():
    for command in ("rank", "diversity"):
        text = words(midpg("reproduce", command, "--help").out)
        assert f"midpg reproduce {command}" in text and "--dask" in text
