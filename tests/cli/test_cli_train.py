"""``midpg train``: what it prints, where, and what it leaves in the run folder."""

import json
import statistics
from unittest.mock import patch

import pytest
from midpg_command import SHORT, midpg, one_sentence, words

from midpg_np.layers import mlp
from midpg_np.training.checkpoint import load_model

FILES = [
    "config.json",
    "curves.png",
    "history.jsonl",
    "metrics.json",
    "model.safetensors",
    "report.html",
]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_results_on_stdout_messages_on_stderr(trained):
    outcome, folder = trained
    assert outcome.code == 0
    checked = outcome.err.splitlines()[1]
    assert outcome.err.splitlines() == [
        "Generated with seed 0.",
        checked,
        f"run folder: {folder}",
    ]
    assert checked.startswith("gradient check: MIDPG: 36 parameter arrays agree")
    assert "gradient" not in outcome.out and "run folder" not in outcome.out


def test_the_table_shows_both_models_overall_and_per_scenario(trained):
    outcome, folder = trained
    metrics = read(folder / "metrics.json")
    assert list(metrics) == ["midpg", "dnn"]
    text = words(outcome.out)
    assert "AUC LogLoss AUC LogLoss" in text
    rows = {"all rows": list(metrics.values())}
    for d in range(10):
        rows[str(d)] = [m["scenarios"][d] for m in metrics.values()]
    for name, (main, baseline) in rows.items():
        assert main["n_rows"] == baseline["n_rows"]
        scores = [main["auc"], main["logloss"], baseline["auc"], baseline["logloss"]]
        share = f"{100 * main['positive_rate']:.1f} %"
        line = " ".join([name, str(main["n_rows"]), share, *(f"{s:.4f}" for s in scores)])
        assert line in text
    macro = [metrics[name][key] for name in metrics for key in ("macro_auc", "macro_logloss")]
    assert " ".join(["mean over scenarios", *(f"{s:.4f}" for s in macro)]) in text


def test_the_run_folder(trained):
    _, folder = trained
    assert sorted(path.name for path in folder.iterdir()) == ["baseline", *FILES]
    assert sorted(path.name for path in (folder / "baseline").iterdir()) == FILES
    config = read(folder / "config.json")
    assert list(config["runs"]) == ["midpg", "dnn"]
    assert config["runs"]["midpg"]["training"] == config["runs"]["dnn"]["training"]
    assert config["data"]["rows"] == {"train": 2100, "valid": 300, "test": 600}
    assert read(folder / "baseline" / "metrics.json")["dnn"] == read(folder / "metrics.json")["dnn"]
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["run"], record["step"]) for record in records] == [("midpg", 33), ("dnn", 33)]
    loaded = load_model(folder / "model.safetensors")
    assert type(loaded.model).__name__ == "MIDPG" and loaded.encoder is not None
    assert type(load_model(folder / "baseline" / "model.safetensors").model).__name__ == "DNN"
    assert "gradient" in (folder / "report.html").read_text(encoding="utf-8").lower()


def test_one_seed_gives_the_same_bits_in_another_process(trained, tmp_path):
    """And --json prints the same results for programs."""
    outcome, folder = trained
    again = midpg("train", *SHORT, "--out", tmp_path / "x", "--json")
    for model in ("model.safetensors", "baseline/model.safetensors"):
        assert (tmp_path / "x" / model).read_bytes() == (folder / model).read_bytes()
    summary = json.loads(again.out)
    metrics = read(folder / "metrics.json")
    for name, scores in summary["models"].items():
        for key in ("auc", "macro_auc", "logloss"):
            assert scores[key] == {
                "values": [metrics[name][key]],
                "mean": metrics[name][key],
                "std": None,
            }
    assert summary["data"] == "synthetic" and summary["seeds"] == [0]
    assert again.err.splitlines()[:-1] == outcome.err.splitlines()[:-1]


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    size = ("--set", "hidden=[16,8]", "--set", "generator_hidden=[8]")
    command = ("train", *SHORT, *size, "--seed", 3, "--seeds", 2, "--out", folder)
    return midpg(*command), folder, command


def test_paired_differences_over_seeds(two_seeds):
    """Recomputed from the metrics of each run."""
    outcome, folder, _ = two_seeds
    assert outcome.code == 0, outcome.err
    summary = read(folder / "summary.json")
    assert summary["seeds"] == [3, 4]
    runs = [read(folder / f"seed-{seed}" / "metrics.json") for seed in (3, 4)]
    text = words(outcome.out)
    for key in ("auc", "macro_auc", "logloss"):
        main, baseline = ([run[name][key] for run in runs] for name in ("midpg", "dnn"))
        differences = [a - b for a, b in zip(main, baseline, strict=True)]
        assert summary["models"]["dnn"][key]["values"] == baseline
        assert summary["models"]["midpg"][key]["mean"] == pytest.approx(sum(main) / 2)
        found = summary["difference"][key]
        mean, std = sum(differences) / 2, abs(differences[0] - differences[1]) / 2**0.5
        assert found["mean"] == pytest.approx(mean, abs=1e-15)
        assert found["std"] == pytest.approx(std, abs=1e-15)
        assert found["std"] == pytest.approx(statistics.stdev(differences), abs=1e-15)
        assert (found["n_ahead"], found["n_pairs"]) == (sum(d > 0 for d in differences), 2)
        assert f"{mean:+.4f} ± {std:.4f}" in text
    assert "synthetic, test rows, seed 3" in text and "synthetic, test rows, seed 4" in text
    n_ahead = [summary["difference"][k]["n_ahead"] for k in ("auc", "macro_auc", "logloss")]
    assert "seeds with a larger value " + " ".join(f"{n} of 2" for n in n_ahead) in text


def test_a_finished_run_is_refused_and_intact(two_seeds, trained):
    _, folder, command = two_seeds
    before = (folder / "seed-3" / "metrics.json").read_bytes()
    assert one_sentence(midpg(*command)) == (
        f"{folder / 'seed-3'} holds a finished run; choose another folder by --out, or delete it."
    )
    assert (folder / "seed-3" / "metrics.json").read_bytes() == before
    _, single = trained
    message = one_sentence(midpg("train", *SHORT, "--baseline", "none", "--out", single))
    assert message.startswith(f"{single} holds a finished run")


def test_resuming_what_is_finished_shows_its_results_again(two_seeds):
    """So one command line can be repeated until it is done."""
    outcome, folder, command = two_seeds
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    again = midpg(*command, "--resume")
    assert (again.code, again.out) == (0, outcome.out)
    assert f"{folder / 'seed-4'} is finished; its results are shown again." in again.err
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_resuming_a_finished_run_with_other_options_is_refused(trained):
    _, folder = trained
    outcome = midpg("train", *SHORT, "--lr", 0.5, "--out", folder, "--resume")
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.splitlines()[-1] == (
        f"midpg: {folder} holds a finished run with runs.midpg.training.lr = 0.003; this command "
        "has 0.5. Choose another folder by --out."
    )


def test_resume_after_a_kill_while_the_files_were_written(trained, tmp_path):
    """The metrics are there, the report is not, and the checkpoint is not yet removed."""
    command = ("train", *SHORT, "--baseline", "none", "--no-gradcheck", "--out", tmp_path)
    with patch("midpg_np.training.run.render_report", side_effect=KeyboardInterrupt):
        stopped = midpg(*command)
    assert stopped.code == 130
    assert f"--out {tmp_path} --resume goes on" in stopped.err
    assert (tmp_path / "metrics.json").exists() and not (tmp_path / "report.html").exists()
    assert "holds an interrupted run; go on with it by --resume" in one_sentence(midpg(*command))
    assert midpg(*command, "--resume").code == 0
    _, folder = trained
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    expected = load_model(folder / "model.safetensors").params["embedding"]["table"]
    found = load_model(tmp_path / "model.safetensors").params["embedding"]["table"]
    assert found.tobytes() == expected.tobytes()


def test_own_table_settings_and_shared_options(shop):
    config = read(shop / "run" / "config.json")
    assert config["runs"]["midpg"]["options"]["hidden"] == [16, 8]
    assert config["runs"]["dnn"]["options"]["hidden"] == [16, 8]  # or the comparison is unfair
    assert config["runs"]["midpg"]["training"]["lr"] == 0.01
    assert config["data"]["name"] == "rows.csv"
    names = [s["name"] for s in read(shop / "run" / "metrics.json")["midpg"]["scenarios"]]
    assert names == ["app", "mail", "web"]


def test_a_wrong_gradient_stops_before_training(monkeypatch, tmp_path):
    right = mlp.product_backward
    monkeypatch.setattr(
        mlp,
        "product_backward",
        lambda dy, cache: (right(dy, cache)[0] * 1.01, *right(dy, cache)[1:]),
    )
    outcome = midpg("train", *SHORT, "--out", tmp_path / "x")
    assert outcome.code == 1
    assert outcome.out == "" and "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("midpg: gradient check failed: MIDPG: d/d")
    assert not (tmp_path / "x").exists()
