"""Table 1: equal budgets, the choice on validation rows, tests, and the four files."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_BROWSER, assert_fits, assert_quiet, measure
from fake_runs import Runner
from scipy import stats

from midpg_np.experiments.table1 import PAPER, SYSTEMS, Table1, run_table1, tune
from midpg_np.experiments.table1_report import table1_report
from midpg_np.experiments.table_report import (
    TITLES,
    Sheet,
    latex,
    latex_text,
    markdown_table,
    number,
    p_value,
    spread,
    write_report,
)
from midpg_np.experiments.tuning import OWN_OPTION, Setting, Task, is_divided_by_seed, settings_of
from midpg_np.models import make_model
from midpg_np.training.config import TrainConfig

TASK = Task("marketbias", "somewhere")
SIZES = {"vocab_sizes": (4,) * 9, "n_aware": 2, "n_scenarios": 3}


def noise(job, scale=0.002):
    """One number per seed and model."""
    return scale * np.random.default_rng([job.seed, SYSTEMS.index(job.model)]).normal()


def by_model(means):
    return Runner(lambda job: float(means[job.model] + noise(job)))


MEANS = {name: 0.60 + 0.005 * i for i, name in enumerate(SYSTEMS)}


@pytest.fixture(scope="module")
def content():
    """Outcome for all systems, without tuning, ten trials."""
    return run_table1(Table1(TASK, tuning_seeds=()), by_model(MEANS))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_grid_of_one_size_whose_first_point_is_the_default(system):
    settings = settings_of(system, TASK)
    assert len(settings) == 16 == len({setting.text for setting in settings})
    first = settings[0]
    assert make_model(system, **SIZES, **first.model) == make_model(system, **SIZES)
    config = TrainConfig.from_dict(TASK.all_training)
    assert TrainConfig.from_dict(TASK.all_training | first.training) == config
    for setting in settings:
        make_model(system, **SIZES, **setting.model)
        TrainConfig.from_dict(TASK.all_training | setting.training)


def test_systems_differ_in_their_own_option_only():
    shared = [[setting.training for setting in settings_of(name, TASK)] for name in SYSTEMS]
    assert all(grid == shared[0] for grid in shared)
    assert set(OWN_OPTION) == set(SYSTEMS)


def test_the_page_lists_the_options():
    text = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    for system, (option, values) in OWN_OPTION.items():
        shown = ", ".join(
            Setting({option: value}, {}).text.removeprefix(f"{option}=") for value in values
        )
        assert f"| {TITLES[system]} | `{option}` | {shown} |" in text


def test_what_the_user_sets_is_not_tuned_for_anybody():
    task = Task("synthetic", training={"lr": 0.01})
    for system in SYSTEMS:
        settings = settings_of(system, task)
        assert len(settings) == 8
        assert not any("lr" in setting.training for setting in settings)
        assert task.job(system, settings[0], 0).training["lr"] == 0.01


def test_the_rate_is_a_share_of_the_preset():
    rates = {setting.training["lr"] for setting in settings_of("dnn", Task("synthetic"))}
    assert rates == {0.003, 0.0009}


def test_presets_of_the_data_are_part_of_the_job():
    job = TASK.job("dnn", Setting({}, {}), 3)
    assert job.training["valid_every"] == 20
    assert (job.seed, job.parts) == (3, ("valid", "test"))
    with pytest.raises(ValueError, match="training has no option 'lrr'"):
        Task("synthetic", training={"lrr": 1})


def test_trials_share_the_division_where_a_seed_would_draw_it():
    assert Task("iaac", "x").job("dnn", Setting({}, {}), 3).data_options == {"seed": 0}
    own = Task("rows.csv", schema="roles.toml", data_options={"split": "part"})
    assert own.job("dnn", Setting({}, {}), 3).data_options == {"split": "part"}
    assert is_divided_by_seed("rows.csv", {})
    assert is_divided_by_seed("marketbias", {"split": "random"})
    assert not is_divided_by_seed("marketbias", {})
    assert not is_divided_by_seed("kuairand", {})
    assert not is_divided_by_seed("synthetic", {})  # another seed, other rows


def test_tuning_scores_validation_rows_only_and_takes_the_best():
    best = {"lr": 3e-4, "l2_embedding": 0.0, "embedding_dropout": 0.3}

    def auc(job):
        if job.model_options.get("gain") != 2.0:
            return 0.6
        return 0.6 + 0.1 * (job.training == TASK.all_training | best)

    table, run = Table1(TASK, systems=("dnn", "midpg"), tuning_seeds=(0, 1)), Runner(auc)
    tuned = tune(table, run)
    (jobs,) = run.batches
    assert len(jobs) == 2 * 16 * 2
    assert all(job.parts == ("valid",) for job in jobs)
    assert tuned["midpg"].setting == Setting({"gain": 2.0}, best)
    assert tuned["midpg"].n_trainings == 32
    assert tuned["midpg"].seconds == pytest.approx(48.0)
    assert tuned["dnn"].chosen == 0  # all equal: the defaults stay


def test_a_setting_that_failed_is_not_chosen():
    table = Table1(TASK, systems=("dnn",))
    tuned = tune(table, Runner(lambda job: None if job.training["lr"] == 1e-3 else 0.5))["dnn"]
    assert tuned.chosen == 8 and tuned.valid_auc[:8] == [None] * 8
    assert tune(table, Runner(lambda job: None))["dnn"].chosen == 0


def test_trials_use_the_setting_that_was_chosen():
    run = Runner(lambda job: 0.5 + 0.1 * (job.training["l2_embedding"] > 0))
    content = run_table1(Table1(TASK, systems=("dnn",), seeds=(4, 5)), run)
    _, trials = run.batches
    assert [job.seed for job in trials] == [4, 5]
    assert all(job.training["l2_embedding"] > 0 for job in trials)
    assert all("test" in job.parts for job in trials)
    assert content["systems"]["dnn"]["setting"]["text"].startswith("lr=0.001, l2_embedding=1,")


def test_statistics_of_the_table(content):
    systems = content["systems"]
    assert content["best_comparison"] == {
        "auc": "optmsm",
        "logloss": "optmsm",
        "macro_auc": "optmsm",
    }
    assert systems["optmsm"]["metrics"]["auc"]["against_best"] is None
    assert systems["dnn"]["metrics"]["auc"]["against_dnn"] is None
    auc = systems["midpg"]["metrics"]["auc"]
    reference = systems["optmsm"]["metrics"]["auc"]["values"]
    assert auc["mean"] == pytest.approx(np.mean(auc["values"]))
    assert auc["std"] == pytest.approx(np.std(auc["values"], ddof=1))
    pair = auc["against_best"]
    test = stats.ttest_rel(auc["values"], reference)
    assert pair["p_t"] == pytest.approx(test.pvalue, rel=1e-6)
    others = [
        entry["metrics"]["auc"]["against_best"]["p_t"]
        for name, entry in systems.items()
        if name != "optmsm"
    ]
    rank = sorted(others).index(pair["p_t"])
    assert len(others) == 8
    assert pair["holm_t"] >= min(1.0, (8 - rank) * pair["p_t"])
    # A smaller loss is better.
    assert systems["midpg"]["metrics"]["logloss"]["against_dnn"]["n_better"] == 10


def test_gains_of_the_paper(content):
    paper = content["systems"]["midpg"]["paper"]
    assert paper["auc_gain"] == 0.0155 and paper["logloss_gain"] == -0.0173
    assert content["systems"]["optmsm"]["paper"] is None
    assert PAPER["iaac"]["midpg"] == (0.6504, 0.0794)


def test_the_report_says_it_all(content, tmp_path):
    report = table1_report(content, "midpg reproduce table1 --data <x>", ["A note & more."])
    write_report(tmp_path, report, content)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("report.html", "table1.json", "table1.md", "table1.tex")
    ]
    assert json.loads((tmp_path / "table1.json").read_text()) == content
    text = (tmp_path / "table1.md").read_text(encoding="utf-8")
    auc = content["systems"]["midpg"]["metrics"]["auc"]
    assert f"| MI-DPG | {spread(auc['mean'], auc['std'])}* |" in text
    assert "+0.0155" in text  # the paper's gain
    titles = [sheet.title for sheet in report.sheets]
    assert titles[:2] == ["Results", "Gain over the DNN"]
    assert "AUC against the best comparison system, OptMSM" in titles
    assert "LogLoss against DNN" in titles
    assert titles[-2:] == ["Settings", "Size and time"]
    assert "above the best comparison system, OptMSM: " in report.verdict
    assert "above the DNN: significant" in report.verdict
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "--data &lt;x&gt;" in html and "A note &amp; more." in html
    assert "http" not in html
    HTMLParser().feed(html)
    tex = (tmp_path / "table1.tex").read_text(encoding="utf-8")
    assert tex.count(r" \\") == 1 + len(SYSTEMS)
    assert r"$\pm$" in tex and "±" not in tex


@pytest.fixture(params=[400, 1400])
def seen(request, content, tmp_path):
    """Width of the report, what a browser measures in it, and its messages."""
    write_report(tmp_path, table1_report(content, "midpg reproduce table1"), content)
    return request.param, *measure(tmp_path / "report.html", request.param, tmp_path)


class TestInABrowser:
    pytestmark = NEEDS_BROWSER

    def test_the_page_fits_and_asks_for_nothing(self, seen):
        width, measured, messages = seen
        assert_quiet(measured, messages)
        assert_fits(measured, width)
        assert measured["headings"][:3] == ["Table 1 on marketbias", "Results", "Gain over the DNN"]
        for n_heads, n_cells, has_row_heads in measured["tables"]:
            assert n_heads == n_cells and has_row_heads


def test_a_single_trial_has_no_tests():
    content = run_table1(Table1(TASK, seeds=(0,), tuning_seeds=()), by_model(MEANS))
    report = table1_report(content, "midpg")
    assert content["systems"]["midpg"]["metrics"]["auc"]["std"] is None
    assert "1 trial." in report.verdict and "there is no t-test of this" in report.verdict
    assert "±" not in str(report.sheets[0].rows) and "*" not in str(report.sheets[0].rows)


def test_failed_trials_are_told_and_left_out():
    def auc(job):
        return None if (job.model, job.seed) == ("midpg", 1) else MEANS[job.model] + noise(job)

    table = Table1(TASK, systems=("dnn", "midpg"), seeds=(0, 1, 2), tuning_seeds=())
    content = run_table1(table, Runner(auc))
    assert content["systems"]["midpg"]["metrics"]["auc"]["seeds"] == [0, 2]
    assert content["systems"]["midpg"]["metrics"]["auc"]["against_dnn"]["n_pairs"] == 2
    (failed,) = content["failed"]
    assert failed["system"] == "MI-DPG, seed 1" and failed["command"].startswith("midpg train ")
    sheet = table1_report(content, "midpg").sheets[-1]
    assert sheet.title == "Trainings that failed" and sheet.rows[0][1] == "ValueError: no."


def test_all_trials_of_a_system_failed():
    table = Table1(TASK, systems=("dnn", "midpg"), seeds=(0, 1), tuning_seeds=())
    for broken in table.systems:
        run = Runner(lambda job, broken=broken: None if job.model == broken else 0.6)
        content = run_table1(table, run)
        report = table1_report(content, "midpg")
        assert content["systems"][broken]["cost"] is None
        assert "n/a" in str(report.sheets[0].rows)


def test_some_systems_only():
    run = by_model(MEANS)
    without_dnn = run_table1(Table1(TASK, systems=("ple", "midpg"), tuning_seeds=()), run)
    assert without_dnn["systems"]["midpg"]["metrics"]["auc"]["against_dnn"] is None
    titles = [sheet.title for sheet in table1_report(without_dnn, "midpg").sheets]
    assert "Gain over the DNN" not in titles
    alone = run_table1(Table1(TASK, systems=("midpg",), tuning_seeds=()), run)
    assert alone["best_comparison"]["auc"] is None
    assert "against" not in str([sheet.title for sheet in table1_report(alone, "midpg").sheets])
    comparison = run_table1(Table1(TASK, systems=("dnn", "ple"), tuning_seeds=()), run)
    assert table1_report(comparison, "midpg").verdict.startswith("2 systems on marketbias")


def test_metrics_that_are_not_defined():
    def run(jobs):
        results = by_model(MEANS)(jobs)
        for result in results:
            result["metrics"]["test"]["macro_auc"] = None
        return results

    content = run_table1(Table1(TASK, systems=("dnn", "midpg"), tuning_seeds=()), run)
    assert content["best_comparison"]["macro_auc"] is None
    assert [row[3] for row in table1_report(content, "midpg").sheets[0].rows] == ["n/a", "n/a"]


def test_bad_plans():
    with pytest.raises(ValueError, match=r"systems must be some of dnn, .*; got dnn, x\."):
        Table1(TASK, systems=("dnn", "x"))
    with pytest.raises(ValueError, match="each once; got dnn, dnn"):
        Table1(TASK, systems=("dnn", "dnn"))
    with pytest.raises(ValueError, match="got none"):
        Table1(TASK, systems=())
    with pytest.raises(ValueError, match="at least one trial"):
        Table1(TASK, seeds=())
    with pytest.raises(ValueError, match=r"systems must be among dnn, .*; got 'x'"):
        settings_of("x", TASK)


def test_numbers_as_text():
    assert (number(None), number(0.12345), number(0.1, sign="+")) == ("n/a", "0.1235", "+0.1000")
    assert (number(-0.00001), number(-0.00001, sign="+")) == ("0.0000", "+0.0000")
    assert spread(0.5, None) == "0.5000" and spread(None, None) == "n/a"
    assert spread(-0.1, 0.02, "+") == "-0.1000 ± 0.0200"
    assert [p_value(p) for p in (None, 0.0004, 0.0005, 0.05)] == [
        "n/a",
        "< 0.001",
        "0.001",
        "0.050",
    ]


def test_marks_of_the_formats_are_escaped():
    sheet = Sheet("t", "50 % & more_or_less", ("a", "b"), [("x|y", "1 ± 2")])
    assert markdown_table(sheet) == "| a | b |\n| --- | --- |\n| x\\|y | 1 ± 2 |"
    assert r"\caption{50 \% \& more\_or\_less}" in latex(sheet, "tab:t")
    assert (
        latex_text("a\\b~{c}^<") == r"a\textbackslash{}b\textasciitilde{}\{c\}\textasciicircum{}$<$"
    )
