"""The rank figure: its grid, APG's alignment, and what is made of the results."""

import json

import numpy as np
import pytest

from midpg_np.data import load_dataset
from midpg_np.experiments.figure_report import html, markdown, write_figure
from midpg_np.experiments.rank import (
    METHODS,
    Point,
    RankPlan,
    aligned_ranks,
    apg_sizes,
    collect,
    jobs_of,
    run_rank,
    settings_of,
)
from midpg_np.experiments.rank_report import rank_content, rank_report
from midpg_np.models import model_for

ROWS = {"n_rows": 400, "n_scenarios": 2}
SMALL = {"hidden": [16, 8]}


@pytest.fixture(scope="module")
def rows():
    """Sixteen fields, of which two are scenario-aware: d_0 = 128 as in the tables of costs."""
    return load_dataset("synthetic", **ROWS).train


def plan(**changes):
    grid = {"row_divisors": (8, 2), "col_divisors": (8, 2), "ranks": (1,), "seeds": (0, 1)}
    return RankPlan("synthetic", **({"data_options": ROWS} | grid | changes))


def test_the_whole_grid(rows):
    settings = settings_of(RankPlan("synthetic"), rows)
    counts = {method: sum(s.method == method for s in settings) for method in METHODS}
    assert counts == {"r": 48, "rc": 48, "c": 48, "non": 1, "apg": 48}
    sizes = sorted({s.point.size for s in settings})
    assert sizes == [2.0**k for k in range(-6, 3)]


def test_sizes_and_parameters_of_the_paper(rows):
    """The parameters are those of the table of sizes and costs (derivations 12)."""
    assert Point(8, 4, 2).size == 1 / 16
    found = {
        (s.method, s.point): s.serving
        for s in settings_of(RankPlan("synthetic", methods=("r", "rc", "c", "non")), rows)
    }
    assert found["r", Point(8, 8, 1)] == 40_101
    assert found["c", Point(8, 8, 1)] == 39_717
    assert found["rc", Point(8, 8, 1)] == 52_869
    assert found["r", Point(4, 4, 2)] == 44_145
    assert found["r", Point(1, 1, 4)] == 81_889
    assert found["non", Point(1, 1, 1)] == 917_345


def test_options_go_to_the_models_that_have_them(rows):
    options = SMALL | {"gain": 2.0, "condition": "mix"}
    settings = settings_of(plan(model="midpg", model_options=options), rows)
    by_method = {s.method: s for s in settings}
    assert by_method["r"].model == "midpg"
    assert by_method["r"].options.keys() == {
        *("hidden", "gain", "variant", "row_divisor", "col_divisor", "d_k")
    }
    assert by_method["non"].options == SMALL | {"gain": 2.0, "variant": "non"}
    assert by_method["apg"].options.keys() == {"hidden", "condition", "rank", "over_rank"}
    for setting in settings:
        model_for(setting.model, rows, setting.options)


@pytest.mark.parametrize("target", [1, 3_000, 12_345, 10**7])
def test_the_rank_of_apg_comes_as_near_as_can_be(target, rows):
    def parameters(rank, over_rank):
        options = SMALL | {"rank": rank, "over_rank": over_rank}
        return model_for("apg", rows, options).count_params().serving

    sizes = apg_sizes(rows, SMALL)
    # P costs a prediction nothing.
    assert sizes == {rank: parameters(rank, 64) for rank in range(1, 9)}
    found = aligned_ranks(target, sizes, SMALL)
    gaps = {rank: abs(size - target) for rank, size in sizes.items()}
    assert gaps[found["rank"]] == min(gaps.values())
    assert found["over_rank"] == 64


def test_the_inner_width_of_apg_is_at_least_its_rank(rows):
    sizes = apg_sizes(rows, SMALL)
    assert aligned_ranks(10**7, sizes, {"over_rank": 4}) == {"rank": 8, "over_rank": 8}
    assert aligned_ranks(10**7, sizes, {"over_rank": None}) == {"rank": 8, "over_rank": None}


def test_the_mismatch_is_told(rows):
    settings = settings_of(plan(methods=("r", "apg"), model_options=SMALL), rows)
    aligned = {s.point: s for s in settings if s.method == "apg"}
    for setting in settings:
        if setting.method == "r":
            apg = aligned[setting.point]
            assert apg.target == setting.serving
            assert apg.mismatch == pytest.approx(apg.serving / setting.serving - 1)
            assert setting.mismatch is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ple"}, "those of 'dpg' or 'midpg'; got 'ple'"),
        ({"methods": ("r", "x")}, r"methods must be among .*; got 'x'"),
        ({"seeds": ()}, "seeds must hold each value once, and at least one"),
        ({"ranks": (1, 1)}, "ranks must hold each value once"),
        ({"row_divisors": (0, 8)}, "row_divisors must be whole numbers from 1 on"),
        ({"model_options": {"d_k": 2}}, "'d_k' is set by the grid"),
    ],
)
def test_plans_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_settings_that_do_not_fit_the_data(rows):
    with pytest.raises(ValueError, match="row_divisor = 5 must divide"):
        settings_of(plan(row_divisors=(5,)), rows)
    with pytest.raises(ValueError, match=r"none of the models .* has an option 'colour'"):
        settings_of(plan(model_options={"colour": 1}), rows)


def test_equal_trainings_of_apg_are_one_job(rows):
    chosen = plan(methods=("r", "apg"), model_options=SMALL)
    settings = settings_of(chosen, rows)
    jobs = jobs_of(chosen, settings)
    apg = [job for job in jobs if job.model == "apg"]
    ranks = {s.options["rank"] for s in settings if s.method == "apg"}
    assert len(apg) == len(ranks) * 2 < 4 * 2
    assert len(jobs) - len(apg) == 4 * 2
    assert len({job.key for job in jobs}) == len(jobs)


def results_of(chosen, settings, auc, failed=()):
    """Results with AUCs ``auc(setting, seed, part)``; jobs of ``failed`` failed."""
    results = {}
    for setting in settings:
        for seed in chosen.seeds:
            job = chosen.job(setting.model, setting.options, seed)
            scores = {part: {"auc": auc(setting, seed, part)} for part in ("valid", "test")}
            results[job] = {"job": job.as_dict(), "metrics": scores}
            if (setting.method, setting.point, seed) in failed:
                trouble = {"command": job.command, "error": "ValueError: no", "traceback": ""}
                results[job] = {"job": job.as_dict(), **trouble}
    return collect(chosen, settings, results)


def straight(setting, seed, part):
    """0.7, seed effects, and so much per doubling of the size: 0.01 on test, 0.02 on validation."""
    slope = {"valid": 0.02, "test": 0.01}[part] * (setting.method == "r")
    return 0.7 + 0.001 * seed + slope * np.log2(setting.point.size)


def test_lines_slopes_and_best(rows):
    chosen = plan(methods=("r", "c", "non"), seeds=(0, 1, 2))
    found = results_of(chosen, settings_of(chosen, rows), straight)
    line = found.line("r", "test")
    assert [point["size"] for point in line] == [1 / 64, 1 / 16, 1 / 4]
    assert [point["n_points"] for point in line] == [1, 2, 1]
    means = [0.701 + 0.01 * k for k in (-6, -4, -2)]
    assert [point["mean"] for point in line] == pytest.approx(means)
    assert [point["std"] for point in line] == pytest.approx([0.001] * 3)
    assert found.slope("r", "valid").mean == pytest.approx(0.02)
    assert found.slope("c", "test").mean == pytest.approx(0.0, abs=1e-12)
    assert found.slope("non", "test") is None
    assert found.best("r")[0].point == Point(2, 2, 1)
    assert found.comparisons("r")["non"].mean == pytest.approx(0.02)


def test_the_test_rows_have_no_say_in_the_choice(rows):
    chosen = plan(methods=("r",))
    found = results_of(
        chosen,
        settings_of(chosen, rows),
        lambda s, seed, part: 0.5 + (0.1 if part == "valid" else -0.1) * s.point.size,
    )
    assert found.best("r")[0].point == Point(2, 2, 1)


def test_failed_trainings_are_left_out(rows):
    chosen = plan(methods=("r", "non"))
    settings = settings_of(chosen, rows)
    best = Point(2, 2, 1)
    failed = [("r", best, 1), *(("non", Point(1, 1, 1), seed) for seed in (0, 1))]
    found = results_of(chosen, settings, straight, failed)
    assert found.methods == ["r"]
    assert found.best("r")[0].point != best  # a seed of it is missing
    assert [point["seeds"] for point in found.line("r", "test")] == [[0, 1], [0, 1], [0]]
    assert found.slope("r", "test").n_pairs == 2
    text = markdown(rank_report(found, "midpg reproduce rank"))
    assert "## Trainings that failed" in text
    assert text.count("| DPG | ValueError: no | midpg train") == 3


def test_all_failed(rows):
    chosen = plan(methods=("non",))
    settings = settings_of(chosen, rows)
    found = results_of(
        chosen, settings, straight, [("non", Point(1, 1, 1), seed) for seed in (0, 1)]
    )
    with pytest.raises(RuntimeError, match="all trainings on 'synthetic' failed"):
        rank_report(found, "midpg reproduce rank")


def test_report(rows, tmp_path):
    chosen = plan(seeds=(0, 1, 2), model="midpg")
    found = results_of(chosen, settings_of(chosen, rows), straight)
    report = rank_report(found, "midpg reproduce rank --trials 3")
    write_figure(tmp_path, report, rank_content(found))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["rank.json", "rank.md", "rank.png", "report.html"]
    text = (tmp_path / "rank.md").read_text()
    assert "midpg reproduce rank --trials 3" in text
    assert "| MI-DPG r | d_m/2 | d_n/2 | 1 | 1/4 |" in text
    assert "| MI-DPG non | d_m | d_n | n/a | 1 | 917,345 |" in text
    assert "| 40,101 | 23 | 64 | 39,748 | -0.9 % |" in text
    assert "MI-DPG r +0.01000" in report.verdict
    content = json.loads((tmp_path / "rank.json").read_text())
    assert content["settings"][0]["test"].keys() == {"0", "1", "2"}
    assert content["slopes"]["test"]["r"]["mean"] == pytest.approx(0.01)
    page = html(report)
    assert page.count("<img") == 1 and "data:image/png;base64," in page


def test_one_seed_gives_no_bars_and_no_tests(rows):
    chosen = plan(methods=("r", "apg"), seeds=(0,))
    text = markdown(rank_report(results_of(chosen, settings_of(chosen, rows), straight), "x"))
    cells = [cell for line in text.splitlines() if line.startswith("| DPG r |") for cell in line]
    assert cells and "±" not in cells
    assert "| DPG r | +0.02000 | n/a | +0.01000 | n/a |" in text


def test_from_training_to_figure(tmp_path):
    chosen = plan(
        methods=("r", "apg"),
        row_divisors=(8, 4),
        col_divisors=(8,),
        seeds=(0,),
        model_options=SMALL,
        training={"epochs": 1, "batch_size": 100},
    )
    told = []
    for _ in range(2):
        found = run_rank(chosen, tmp_path, workers=1, on_done=lambda job, _: told.append(job.model))
        assert found.methods == ["r", "apg"] and not found.failures
    stored = len(list((tmp_path / "jobs").iterdir()))
    assert len(told) == 2 * stored and set(told) == {"dpg", "apg"}
    report = rank_report(found, "midpg reproduce rank")
    assert report.verdict.startswith("Test AUC of the settings chosen on the validation rows")
