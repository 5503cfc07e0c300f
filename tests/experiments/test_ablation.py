"""The ablation: every open choice is one option away from the default."""

import json

import numpy as np
import pytest
from fake_runs import Runner
from scipy import stats

from midpg_np.experiments.ablation import CHOICES, DEFAULT, Ablation, ablation_report, run_ablation
from midpg_np.experiments.table_report import write_report
from midpg_np.experiments.tuning import Task
from midpg_np.models import make_model

TASK = Task("synthetic")
SIZES = {"vocab_sizes": (4,) * 16, "n_aware": 2, "n_scenarios": 3}


def auc(job, shifts):
    value = 0.6 + 0.01 * np.random.default_rng(job.seed).normal()
    for (name, setting), shift in shifts.items():
        if job.model_options.get(name) == setting:
            value += shift + 0.001 * np.random.default_rng([job.seed, 1]).normal()
    return float(value)


def outcome(shifts, **plan):
    run = Runner(lambda job: auc(job, shifts))
    return run_ablation(Ablation(TASK, **plan), run), run


def test_the_choices_are_those_of_the_table_of_open_choices():
    assert {choice.row for choice in CHOICES} == {
        "3.6",
        "3",
        "7",
        "9",
        "10",
        "15",
        "16",
        "17",
        "18",
        "20",
    }
    default = make_model("midpg", **SIZES)
    for choice in CHOICES:
        changed = make_model("midpg", **SIZES, **{choice.option: choice.value})
        assert changed != default
        assert getattr(default, choice.option) != choice.value


def test_one_option_at_a_time_with_the_same_seeds():
    _, run = outcome({}, seeds=(3, 4))
    (jobs,) = run.batches
    assert len(jobs) == 2 * (1 + len(CHOICES))
    assert [job.seed for job in jobs] == [3, 4] * (1 + len(CHOICES))
    assert jobs[0].model_options == {}
    assert all(len(job.model_options) == 1 for job in jobs[2:])
    assert {job.model for job in jobs} == {"midpg"}


def test_paired_differences_and_the_verdict():
    content, _ = outcome({("gain", 2.0): 0.02, ("repeat_mode", "tile"): -0.03})
    settings = content["settings"]
    pair = settings["gain=2"]["metrics"]["auc"]["against_default"]
    values = settings["gain=2"]["metrics"]["auc"]["values"]
    base = settings[DEFAULT]["metrics"]["auc"]["values"]
    assert pair["mean"] == pytest.approx(np.mean(values) - np.mean(base))
    assert pair["p_t"] == pytest.approx(stats.ttest_rel(values, base).pvalue, rel=1e-6)
    assert pair["n_better"] == 10
    # Eleven choices change nothing at all: their p-values are 1.
    assert pair["holm_t"] == pytest.approx(13 * pair["p_t"], rel=1e-6) or pair["holm_t"] < 0.05
    same = settings["mi_reduce=sum"]["metrics"]["auc"]["against_default"]
    assert (same["mean"], same["p_t"], same["p_wilcoxon"], same["n_tied"]) == (0.0, 1.0, 1.0, 10)
    report = ablation_report(content, "midpg reproduce ablation")
    assert report.verdict.startswith("2 of 13 choices change the AUC")
    assert "gain=2 (+0.02" in report.verdict and "repeat_mode=tile (-0.03" in report.verdict
    rows = {row[0]: row for row in report.sheets[0].rows}
    assert rows["gain=2"][3].endswith("*")
    assert not rows["repeat_mode=tile"][3].endswith("*")  # it is worse


def test_nothing_changes():
    content, _ = outcome({("gain", 2.0): 0.0001}, seeds=(0, 1, 2))
    verdict = ablation_report(content, "midpg").verdict
    assert verdict.startswith("None of 13 choices changes the AUC by more than chance")
    assert "gain=2" in verdict


def test_a_single_trial():
    content, _ = outcome({("gain", 2.0): 0.05}, seeds=(0,))
    assert "(p n/a, after Holm n/a)" in ablation_report(content, "midpg").verdict


def test_what_the_base_sets_is_not_varied(tmp_path):
    content, run = outcome({}, seeds=(0,), base={"gain": 2.0, "variant": "rc"})
    assert "gain=2" not in content["settings"]
    assert all(job.model_options["variant"] == "rc" for job in run.batches[0])
    assert content["settings"][DEFAULT]["options"] == {"gain": 2.0, "variant": "rc"}
    write_report(tmp_path, ablation_report(content, "midpg"), content)
    assert json.loads((tmp_path / "ablation.json").read_text()) == content
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".tex", ".html"}


def test_failed_trials():
    run = Runner(lambda job: None if job.model_options.get("disc_input") == "full" else 0.6)
    content = run_ablation(Ablation(TASK, seeds=(0, 1)), run)
    assert content["settings"]["disc_input=full"]["cost"] is None
    assert len(content["failed"]) == 2
    report = ablation_report(content, "midpg")
    assert report.sheets[-1].title == "Trainings that failed"
    everything = run_ablation(Ablation(TASK, seeds=(0, 1)), Runner(lambda job: None))
    assert ablation_report(everything, "midpg").verdict.startswith("No choice could be compared")


def test_a_plan_without_seeds():
    with pytest.raises(ValueError, match="at least one trial"):
        Ablation(TASK, seeds=())
