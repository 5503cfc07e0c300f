"""``midpg reproduce``: the tables, from the command to the files."""

import json

import pytest
from midpg_command import SCHEMA, midpg, one_sentence, words, write_rows

# Trainings of a fraction of a second, in this process.
TINY = (
    *("--data-option", "n_rows=400", "--data-option", "n_scenarios=2"),
    *("--epochs", 1, "--trials", 2, "--workers", 1),
)
FILES = ["jobs", "report.html"]


def without_times(path):
    """Lines of a report in Markdown but those on time; two computations agree in all of them."""
    text = path.read_text(encoding="utf-8")
    return text[: text.index("## Settings")].replace(str(path.parent), "OUT")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Outcome, folder and arguments of a tuned table of two systems."""
    folder = tmp_path_factory.mktemp("reproduce") / "table"
    arguments = (
        *("reproduce", "table1", *TINY, "--systems", "dnn, midpg"),
        *("--set", "lr=0.01", "--set", "embedding_dropout=0.1", "--tuning-seeds", 1),
    )
    return midpg(*arguments, "--out", folder), folder, arguments


def test_table1_prints_and_writes_a_table(table):
    outcome, folder, _ = table
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in folder.iterdir()) == [
        *FILES,
        *("table1.json", "table1.md", "table1.tex"),
    ]
    text = words(outcome.out)
    assert "MI-DPG reaches an AUC of 0." in text and "Gain over the DNN" in text
    assert "DNN, hidden=[128, 64, 32], seed 0: valid AUC 0." in outcome.err
    assert "MI-DPG, gain=" in outcome.err and "seed 1: test AUC 0." in outcome.err
    content = json.loads((folder / "table1.json").read_text())
    assert content["rows"] == {"train": 280, "valid": 40, "test": 80}
    assert content["command"].startswith("midpg reproduce table1 --data-option n_rows=400 ")
    assert content["training"]["epochs"] == 1
    # Two systems: a grid of four points (two axes were set), then two trials.
    assert content["tuning"]["systems"]["midpg"]["n_trainings"] == 4
    assert len(list((folder / "jobs").glob("*.json"))) == 2 * (4 + 2)
    assert "Every trial has generated rows of its own." in (folder / "table1.md").read_text()


def test_the_same_command_computes_nothing_again(table):
    _, folder, arguments = table
    times = {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    again = midpg(*arguments, "--out", folder, "--json")
    assert again.code == 0, again.err
    assert times == {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    content = json.loads(again.out)
    assert content == json.loads((folder / "table1.json").read_text())


def test_a_new_computation_gives_the_same_table(table, tmp_path):
    _, folder, arguments = table
    assert midpg(*arguments, "--out", tmp_path / "table").code == 0
    new, old = (without_times(path / "table1.md") for path in (tmp_path / "table", folder))
    assert new == old.replace(" --json", "")
    assert new.count("| MI-DPG |") == 5  # results, gain, three metrics against the DNN


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("midpg_np.commands.reproduce.run_jobs", interrupted)
    outcome = midpg("reproduce", "table1", *TINY, "--out", tmp_path / "x")
    assert outcome.code == 130
    assert f"the same command with --out {tmp_path / 'x'} goes on." in outcome.err


def test_without_tuning_only_the_trials_are_run(tmp_path):
    outcome = midpg(
        *("reproduce", "table1", *TINY, "--systems", "dnn", "--no-tune", "--out", tmp_path / "x")
    )
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "x" / "jobs").iterdir())) == 2
    assert "1 system on synthetic, 2 trials." in outcome.out


def test_ablation(tmp_path):
    outcome = midpg(
        *("reproduce", "ablation", *TINY, "--set", "gain=2", "--set", "lr=0.01"),
        *("--trials", 1, "--out", tmp_path / "x"),
    )
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        *("ablation.json", "ablation.md", "ablation.tex", *FILES),
    ]
    content = json.loads((tmp_path / "x" / "ablation.json").read_text())
    assert content["settings"]["default"]["options"] == {"gain": 2}
    assert "gain=2" not in content["settings"] and len(content["settings"]) == 13
    assert content["training"]["lr"] == 0.01
    assert "mi_grad_to=disc" in words(outcome.out)


def test_a_table_of_ones_own(tmp_path):
    write_rows(tmp_path / "rows.csv", 400, part=[f"{i % 3}" for i in range(400)])
    (tmp_path / "roles.toml").write_text(SCHEMA, encoding="utf-8")
    outcome = midpg(
        *("reproduce", "table1", "--data", tmp_path / "rows.csv"),
        *("--schema", tmp_path / "roles.toml", "--data-option", "split=part"),
        *("--systems", "dnn,midpg", "--no-tune", "--epochs", 1, "--trials", 1, "--workers", 1),
        *("--set", "batch_size=64", "--out", tmp_path / "out"),
    )
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "out" / "table1.md").read_text()
    assert "All trials have the same training, validation and test rows." in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("table1", "--systems", "dnn,star2"), "systems must be some of dnn, ple"),
        (("table1", "--set", "l2=1"), "training has no option 'l2'"),
        (("table1", "--set", "seed=1"), "--set seed: use --seed"),
        (("table1", "--data", "marketbais"), "Did you mean 'marketbias'?"),
        (("table1", "--data-option", "n_row=1"), "Did you mean 'n_rows'?"),
        (("table1", "--data", "marketbias", "--path", "nowhere"), "nowhere does not exist"),
        (("ablation", "--set", "gane=2"), "Did you mean 'gain'?"),
        (("ablation", "--workers", "0", "--no-such"), None),
    ],
)
def test_errors_are_one_sentence(arguments, sentence, tmp_path):
    outcome = midpg("reproduce", *arguments, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    if sentence is None:  # typer's own message
        assert outcome.code == 2
    else:
        assert sentence in one_sentence(outcome)


def test_failed_jobs_are_listed_and_the_files_written(tmp_path):
    outcome = midpg(
        *("reproduce", "table1", *TINY, "--systems", "dnn,midpg", "--no-tune"),
        *("--set", "lr=1e30", "--out", tmp_path / "x"),
    )
    assert outcome.code == 0
    assert "4 of 4 jobs failed" in outcome.err and "midpg train --data synthetic" in outcome.err
    content = json.loads((tmp_path / "x" / "table1.json").read_text())
    assert [job["system"] for job in content["failed"]] == [
        *("DNN, seed 0", "DNN, seed 1", "MI-DPG, seed 0", "MI-DPG, seed 1")
    ]
    assert "| DNN | n/a | n/a | n/a |" in (tmp_path / "x" / "table1.md").read_text()
