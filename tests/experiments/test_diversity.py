"""The diversity figure: both trainings, what is measured of them, and what is made of it."""

import json
import pickle

import numpy as np
import pytest

from midpg_np.data import load_dataset
from midpg_np.experiments.comparison import build_model
from midpg_np.experiments.cores_job import CoresJob, balanced_rows, planted_means, to_plane
from midpg_np.experiments.diversity import ARMS, DiversityPlan, collect, run_diversity
from midpg_np.experiments.diversity_report import diversity_content, diversity_report
from midpg_np.experiments.figure_report import html, markdown, write_figure
from midpg_np.experiments.jobs import Job, run_job
from midpg_np.tree import tree_flatten

ROWS = {"n_rows": 700, "n_scenarios": 4, "size_ratio": 0.9}
SMALL = {"hidden": [16, 8], "row_divisor": 2, "col_divisor": 2}
TRAINING = {"epochs": 2, "batch_size": 64, "lr": 0.01}


def plan(**changes):
    tiny = {"data_options": ROWS, "model_options": SMALL, "training": TRAINING, "seeds": (0, 1)}
    return DiversityPlan("synthetic", **(tiny | {"rows_per_scenario": 20} | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The figure of two seeds, and its folder."""
    folder = tmp_path_factory.mktemp("diversity")
    return run_diversity(plan(), folder, workers=1, progress=False), folder


def test_without_mir_the_network_is_dpg_bit_by_bit(monkeypatch):
    """Only the discriminators differ: they are trained, and nothing else hears of them."""
    found = {}

    def keep(job, model, params, splits):
        found[job.model] = tree_flatten(params)
        return {}

    monkeypatch.setattr(Job, "measure", keep)
    monkeypatch.setattr(CoresJob, "measure", keep)
    watched = plan().job("without", 0)
    alone = Job("synthetic", None, ROWS, "dpg", SMALL, TRAINING, 0)
    scores = [run_job(job)["metrics"] for job in (watched, alone)]
    assert scores[0] == scores[1]
    discriminators = {k for k in found["midpg"] if k.startswith("discriminators.")}
    assert found["midpg"].keys() - discriminators == found["dpg"].keys()
    for name, leaf in found["dpg"].items():
        np.testing.assert_array_equal(found["midpg"][name], leaf)
    start = build_model("midpg", load_dataset("synthetic", **ROWS).train, SMALL)
    begun = tree_flatten(start.init(np.random.default_rng(0)))
    assert all(found["midpg"][k].shape == begun[k].shape for k in discriminators)


def test_what_is_measured(trained):
    result, _ = trained
    assert result.seeds == [0, 1] and result.layers == ["layer_1", "layer_2"]
    assert result.scenario_names == ["0", "1", "2", "3"]
    for arm in ARMS:
        for layer in result.layers:
            for measure in ("silhouette", "variance_ratio", "purity", "bound", "probe"):
                values = result.values(arm, layer, measure)
                assert list(values) == [0, 1] and np.isfinite(list(values.values())).all()
            alike = result.similarity(arm, layer, "cosine")
            assert alike.shape == (4, 4) and np.diag(alike) == pytest.approx(1.0)
            planted = result.planted(arm, layer, "deviation")
            assert all(-1 <= rho <= 1 for rho in planted.values())
        for seed in result.seeds:
            ceiling = result.ceiling()[seed]
            assert result.values(arm, "layer_1", "bound")[seed] < ceiling
            assert result.values(arm, "layer_1", "probe")[seed] < ceiling
    # The same rows of the same seed in both arms.
    for seed in result.seeds:
        arms = [result.results[arm][seed]["diversity"] for arm in ARMS]
        for key in ("scenario", "ceiling", "n_contexts"):
            assert arms[0][key] == arms[1][key]
        assert arms[0]["layers"] != arms[1]["layers"]


def test_only_the_first_seed_is_drawn(trained):
    result, _ = trained
    for arm in ARMS:
        drawn = [r["diversity"]["layers"]["layer_2"]["plane"] for r in result.results[arm].values()]
        assert len(drawn[0]) == len(result.results[arm][0]["diversity"]["scenario"])
        assert drawn[1] is None


def test_a_second_run_trains_nothing(trained):
    result, folder = trained
    times = {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    again = run_diversity(plan(), folder, workers=1, progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in (folder / "jobs").iterdir()}
    assert again == result


def test_report(trained, tmp_path):
    result, _ = trained
    report = diversity_report(result, "midpg reproduce diversity --trials 2")
    write_figure(tmp_path, report, diversity_content(result))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("diversity.json", "diversity.md", "report.html", "similarity.png", "tsne.png")
    ]
    text = (tmp_path / "diversity.md").read_text()
    assert "midpg reproduce diversity --trials 2" in text
    assert "## Cores of layer_1" in text and "## Cores of layer_2" in text
    assert "| agreement with the truth, deviation |" in text
    assert "| silhouette by scenario |" in text and "| chance " in text and "| at most 1." in text
    assert "it is no bound on the mutual information in the sense of Shannon" in text
    content = json.loads((tmp_path / "diversity.json").read_text())
    purity = content["layers"]["layer_1"]["purity"]
    assert len(purity["with"]["values"]) == 2
    assert purity["difference"]["mean"] == pytest.approx(
        purity["with"]["mean"] - purity["without"]["mean"]
    )
    assert html(report).count("<img") == 2


def test_failed_seeds_are_absent_from_both(trained):
    result, _ = trained
    found = {(arm, s): result.results[arm][s] for s in (0, 1) for arm in ARMS}
    job = plan().job("with", 0)
    found["with", 0] = {"job": job.as_dict(), "command": job.command, "error": "ValueError: no"}
    part = collect(plan(), found)
    assert part.seeds == [1] and len(part.failures) == 1
    report = diversity_report(part, "x")
    assert [picture.name for picture in report.pictures] == ["similarity.png"]  # 1 is not drawn
    assert "| MI-DPG | ValueError: no | midpg train" in markdown(report)
    assert diversity_content(part)["failures"][0]["error"] == "ValueError: no"
    found["without", 1] = found["with", 0]
    with pytest.raises(RuntimeError, match=r"with and without the regulariser; .*: ValueError: no"):
        collect(plan(), found)


def test_last_state_is_that_of_training_without_validation():
    training = TRAINING | {"patience": None}
    best, last = (
        run_job(plan(state=state, training=training).job("with", 1)) for state in ("best", "last")
    )
    assert last["best_step"] == last["n_steps"] == 2 * 8
    assert last["best_epoch"] == 2
    assert (best["metrics"] == last["metrics"]) == (best["best_step"] == 2 * 8)


def test_jobs_of_cores_are_jobs():
    job = plan().job("with", 1)
    plain = Job("synthetic", None, ROWS, "midpg", SMALL, TRAINING, 1)
    assert CoresJob.from_dict(json.loads(json.dumps(job.as_dict()))) == job
    assert pickle.loads(pickle.dumps(job)) == job and hash(job) == hash(plan().job("with", 1))
    others = [plan(state="last").job("with", 1), plan().job("without", 1), plan().job("with", 0)]
    assert len({j.key for j in (job, plain, *others)}) == 5
    assert "--set mi_grad_to=disc" in plan().job("without", 1).command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, "seeds must hold each value once"),
        ({"rows_per_scenario": 1}, "rows_per_scenario must be at least 2"),
        ({"state": "middle"}, r"state must be one of .*; got 'middle'"),
        ({"model_options": {"mi_weight": 0}}, "mi_weight must be above 0"),
    ],
)
def test_plans_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_a_layer_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match=r"layer must be one of \['layer_1', 'layer_2'\]"):
        run_diversity(plan(layer="layer_3"), tmp_path, workers=1)
    assert not list(tmp_path.iterdir())


def test_balanced_rows():
    scenario = np.array([0] * 50 + [2] * 3 + [1] * 20)
    rows = balanced_rows(scenario, 10, np.random.default_rng(0))
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(np.bincount(scenario[rows]), [10, 10, 3])


def test_planted_means_weigh_the_channels_as_the_rows_do():
    splits = load_dataset("synthetic", **ROWS | {"n_channels": 3})
    matrices = splits.truth.teacher.matrices[0]
    means = planted_means(splits)
    test = splits.test
    # All scenarios and channels occur in training, so codes are values plus 1.
    assert splits.train.vocab_sizes[:2] == (5, 4)
    for d in range(4):
        channels = test.codes[test.scenario == d, 1] - 1
        expected = sum((channels == c).mean() * matrices[d, c] for c in range(3))
        np.testing.assert_allclose(means[d], expected.reshape(-1))


def test_planted_means_of_many_scenarios_are_in_order():
    """Scenario 10 comes after scenario 2, not before."""
    splits = load_dataset("synthetic", n_rows=3000, n_scenarios=12, n_channels=1, size_ratio=1.0)
    matrices = splits.truth.teacher.matrices[0]
    assert splits.test.scenario_names == tuple(map(str, range(12)))
    np.testing.assert_allclose(planted_means(splits), matrices[:, 0].reshape(12, -1))


def test_to_plane():
    rng = np.random.default_rng(0)
    rows = np.repeat(20.0 * np.eye(3), 15, axis=0) + rng.normal(size=(45, 3))
    plane = to_plane(rows, 7)
    assert plane.shape == (45, 2)
    np.testing.assert_array_equal(plane, to_plane(rows, 7))
    np.testing.assert_array_equal(to_plane(np.ones((9, 3)), 0), np.zeros((9, 2)))
    np.testing.assert_array_equal(to_plane(rows[:3], 0), np.zeros((3, 2)))
    assert to_plane(rows[:, :1], 0).shape == (45, 2)


@pytest.mark.slow
def test_the_planted_similarity_is_found_and_mir_tells_scenarios_apart():
    """One weighting matrix per scenario: nothing but the scenario matters to it."""
    chosen = DiversityPlan(
        "synthetic",
        data_options={"n_channels": 1},
        training={"epochs": 6, "lr": 3e-3},
        state="last",
    )
    without, with_ = (run_job(chosen.job(arm, 1))["diversity"] for arm in ARMS)
    first, first_with = without["layers"]["layer_1"], with_["layers"]["layer_1"]
    assert first["planted"]["deviation"] > 0.4
    assert first["purity"] > 0.9 and first_with["purity"] > 0.95
    third, third_with = without["layers"]["layer_3"], with_["layers"]["layer_3"]
    assert third_with["purity"] > third["purity"] + 0.2
    assert third_with["bound"] > third["bound"] + 0.3
    for layer in with_["layers"].values():
        assert 0.5 * with_["ceiling"] < layer["bound"] < with_["ceiling"] + 0.03
        assert 0.9 * with_["ceiling"] < layer["probe"] < with_["ceiling"] + 1e-9
