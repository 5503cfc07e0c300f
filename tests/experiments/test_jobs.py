"""Jobs: their hash, their command line, their way through JSON, and their results."""

import json
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_jobs import SMALL, bad_job, tiny_job, without_time

import midpg_np
from midpg_np.commands import app
from midpg_np.data import iterate_batches, load_dataset
from midpg_np.experiments.comparison import build_model, train_and_test
from midpg_np.experiments.jobs import Job, _steps_per_epoch, attempt_job, run_job
from midpg_np.training.config import TrainConfig

TABLE = "bought,channel,item\n" + "".join(
    f"{i * 7 % 3 == 0:d},{'web' if i % 2 else 'app'},{i * i % 11}\n" for i in range(90)
)
ROLES = 'label = "bought"\nscenario = "channel"\naware = ["channel"]\nagnostic = ["item"]\n'


def own_table(folder, content=TABLE):
    """Return a job on a table of the user's own, written into the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text(content)
    (folder / "roles.toml").write_text(ROLES)
    files = {"data": str(folder / "rows.csv"), "schema": folder / "roles.toml"}
    return tiny_job(**files, data_options={}, training={"epochs": 1, "batch_size": 16})


@pytest.fixture(scope="module")
def result():
    return run_job(tiny_job("midpg", seed=3))


def test_a_job_comes_back_from_json():
    job = tiny_job("midpg", parts=("test",), training={"lr": np.float64(0.01)})
    assert Job.from_dict(json.loads(json.dumps(job.as_dict()))) == job
    assert job.model_options["hidden"] == [16, 8]
    assert len({job, Job.from_dict(job.as_dict())}) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ("vald",)}, "'vald'"),
        ({"seed": -1}, "whole number"),
        ({"training": {"seed": 1}}, "stands apart"),
        ({"model_options": {"hidden": {1}}}, "must be JSON"),
        ({"training": {"lr": float("nan")}}, "must be JSON"),
    ],
)
def test_what_is_no_job_is_refused(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tiny_job(**changes)


@pytest.mark.parametrize(
    "content", [{"data": "synthetic"}, tiny_job().as_dict() | {"sed": 1}], ids=["lacks", "more"]
)
def test_what_is_no_whole_job_is_refused(content):
    with pytest.raises(ValueError, match="job"):
        Job.from_dict(content)


def test_the_key_is_the_same_in_another_process():
    """With another seed for Python's own hashes and another order of the options."""
    job = tiny_job("midpg", seed=5)
    turned = job.as_dict() | {"model_options": dict(reversed(job.model_options.items()))}
    code = (
        "import json, sys; from midpg_np.experiments.jobs import Job; "
        "print(Job.from_dict(json.loads(sys.argv[1])).key)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, json.dumps(turned)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    )
    assert other.stdout.strip() == job.key


def test_everything_that_decides_the_result_changes_the_key(monkeypatch):
    changes = [
        {},
        {"model": "dpg"},
        {"seed": 1},
        {"parts": ("valid",)},
        {"data_options": {"n_rows": 1300}},
        {"model_options": {}},
        {"training": {"epochs": 2}},
        {"data": "iaac"},
    ]
    keys = [tiny_job(**change).key for change in changes]
    monkeypatch.setattr(midpg_np, "__version__", "0.0.0")
    keys.append(tiny_job().key)
    assert len(set(keys)) == len(keys)


def test_files_count_by_their_content(tmp_path):
    job = own_table(tmp_path / "a")
    assert own_table(tmp_path / "b").key == job.key
    assert own_table(tmp_path / "c", TABLE + "1,web,5\n").key != job.key
    (tmp_path / "b" / "roles.toml").write_text(ROLES.replace('["item"]', "[]"))
    assert own_table(tmp_path / "a").key == job.key
    renamed = tiny_job(**job.as_dict() | {"schema": tmp_path / "b" / "roles.toml"})
    assert renamed.key != job.key


def test_a_folder_counts_by_names_and_content(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    first.mkdir()
    (first / "rows.csv").write_text("1")
    shutil.copytree(first, second)
    shutil.copytree(first, third)
    (third / "rows.csv").rename(third / "users.csv")
    keys = [tiny_job(data="iaac", path=folder).key for folder in (first, second, third)]
    assert keys[0] == keys[1] != keys[2]
    (second / "rows.csv").write_text("2")
    assert tiny_job(data="iaac", path=second).key != keys[0]


def test_a_missing_file_has_a_key_and_fails_when_run(tmp_path):
    job = tiny_job(data="iaac", path=tmp_path / "nowhere", data_options={})
    assert job.key == tiny_job(data="iaac", path=tmp_path / "elsewhere", data_options={}).key
    assert "is published by" in attempt_job(job)["error"]


def test_a_result_is_that_of_train_and_test(result):
    splits = load_dataset("synthetic", seed=3, **tiny_job().data_options)
    model = build_model("midpg", splits.train, SMALL)
    run = train_and_test(model, splits, TrainConfig(epochs=1, batch_size=128, seed=3))
    assert result["metrics"]["test"] == json.loads(json.dumps(run.metrics.as_dict()))
    assert result["metrics"]["valid"]["auc"] == run.fit.history[-1]["valid_auc"]
    assert result["params"]["training_only"] == model.count_params().training_only > 0


def test_a_result_is_json_and_says_how_it_came_about(result):
    assert json.loads(json.dumps(result)) == result
    assert result["key"] == tiny_job("midpg", seed=3).key
    assert Job.from_dict(result["job"]) == tiny_job("midpg", seed=3)
    assert (result["n_steps"], result["epochs"], result["best_epoch"]) == (7, 1.0, 1)
    assert result["seconds_per_epoch"] == result["seconds"] > 0
    assert {"numpy", "numba", "source"} <= result["versions"].keys()


def test_jobs_in_threads_of_one_process_do_not_disturb_each_other(result):
    """A Dask worker may have several."""
    jobs = [tiny_job("midpg", seed=3), tiny_job("dnn"), tiny_job("midpg", seed=3)]
    with ThreadPoolExecutor(3) as threads:
        first, _, last = threads.map(run_job, jobs)
    assert without_time([first, last]) == without_time([result, result])


def test_only_the_parts_asked_for_are_scored():
    assert run_job(tiny_job(parts=("valid",)))["metrics"].keys() == {"valid"}


def test_a_table_of_ones_own(tmp_path):
    metrics = run_job(own_table(tmp_path))["metrics"]
    assert [part["n_rows"] for part in metrics.values()] == [9, 9]


def test_a_failure_says_what_failed_and_how_to_repeat_it():
    failed = attempt_job(bad_job())
    assert "'hiden'" in failed["error"] and "Did you mean 'hidden'" in failed["error"]
    assert failed["command"] == bad_job().command
    assert Job.from_dict(failed["job"]) == bad_job()
    assert "Traceback" in failed["traceback"]


def test_the_command_repeats_the_result(result, tmp_path, capsys, monkeypatch):
    """Also what the presets of the data would change: here the learning rate."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(Job.from_dict(result["job"]).command)
    assert words[:2] == ["midpg", "train"]
    app([*words[1:], "--json"], standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)["models"]["midpg"]
    for name in ("auc", "macro_auc", "logloss"):
        assert printed[name]["values"] == [result["metrics"]["test"][name]]


def test_the_command_of_a_table_and_of_every_kind_of_value():
    job = tiny_job(
        data="my rows.csv",
        schema="roles.toml",
        path="a b",
        data_options={"label": "rating >= 4", "without": ("user_id",)},
        model="dpg",
        model_options={"variant": "rc", "form": "1"},
        training={"valid_every": None, "device": "cuda"},
    )
    assert job.command == (
        "midpg train --data 'my rows.csv' --path 'a b' --schema roles.toml "
        "--data-option 'label=rating >= 4' --data-option 'without=[\"user_id\"]' "
        "--model dpg --baseline none --seed 0 --device cuda "
        "--set variant=rc --set 'form=\"1\"' --set valid_every=null"
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_steps_of_an_epoch(batch_size):
    for n_rows in range(1, 12):
        n_batches = len(list(iterate_batches(n_rows, batch_size)))
        assert _steps_per_epoch(n_rows, batch_size) == n_batches
