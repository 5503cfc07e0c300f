"""Plots: every quantity has its panel, runs differ by more than colour, errors are sentences."""

import sys
import warnings

import numpy as np
import pytest

from midpg_np.plots import plot_curves, plot_rank, plot_scatter, plot_similarity

pytest.importorskip("matplotlib", reason="plots need matplotlib")


def history(offset=0.0, epochs=(1, 2, 3)):
    return [
        {
            "epoch": epoch,
            "step": 10 * i,
            "train_ce": 0.7 - 0.1 * i + offset,
            "valid_auc": 0.6 + 0.1 * i - offset,
            "valid_logloss": 0.7 - 0.05 * i + offset,
            "is_best": True,
        }
        for i, epoch in enumerate(epochs, start=1)
    ]


def test_three_panels_with_labels_and_lines_that_differ_without_colour(tmp_path):
    figure = plot_curves({"midpg": history(), "dnn": history(0.05)}, tmp_path / "c.png")
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "training cross-entropy",
        "validation AUC",
        "validation LogLoss",
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 2
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_several_validations_per_epoch_are_drawn_by_step():
    figure = plot_curves({"dnn": history(epochs=(1, 1, 2))})
    assert figure.axes[0].get_xlabel() == "step"


def test_without_validation_there_is_one_panel():
    records = [{"epoch": 1, "step": 4, "train_ce": 0.5, "is_best": True}]
    assert len(plot_curves({"dnn": records}).axes) == 1


def test_undefined_auc_is_left_out():
    records = [record | {"valid_auc": None} for record in history()]
    labels = [axes.get_ylabel() for axes in plot_curves({"dnn": records}).axes]
    assert labels == ["training cross-entropy", "validation LogLoss"]


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="draws 1 to 4 runs; got 0"):
        plot_curves({})
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_curves({"dnn": []})


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="install the extra 'app'"), warnings.catch_warnings():
        plot_curves({"dnn": history()})


def rank_points(*sizes, std=0.01):
    return [{"size": size, "mean": 0.6 + size / 100, "std": std} for size in sizes]


def test_rank_has_one_line_per_method_that_differs_without_colour(tmp_path):
    methods = {name: rank_points(1 / 64, 1 / 8, 2) for name in ("r", "rc", "c", "apg")}
    methods["non"] = rank_points(1)
    best = {"test": dict.fromkeys(methods, (1 / 8, 0.6))}
    figure = plot_rank({"validation": methods, "test": methods}, best, tmp_path / "rank.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["validation AUC", "test AUC"]
    first, second = figure.axes
    assert first.get_xscale() == "log" and "low-rank size" in first.get_xlabel()
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["1/64", "1/8", "1", "2"]
    lines = [container.lines[0] for container in first.containers]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(methods)
    stars = [sum(line.get_marker() == "*" for line in axes.lines) for axes in (first, second)]
    assert stars == [0, 5]
    assert (tmp_path / "rank.png").read_bytes().startswith(b"\x89PNG")


def test_rank_of_one_seed_has_no_bars():
    (axes,) = plot_rank({"test": {"r": rank_points(0.25, 0.5, std=None)}}, {}).axes
    assert not axes.containers[0].has_yerr


def test_rank_without_methods():
    with pytest.raises(ValueError, match="draws 1 to 5 methods; got 0"):
        plot_rank({"test": {}}, {})


def test_scatter_tells_scenarios_by_colour_and_shape(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"scenario {d}" for d in range(20)]
    scenario = np.repeat(np.arange(20), 3)
    panel = (rng.normal(size=(60, 2)), scenario)
    figure = plot_scatter({"without": panel, "with": panel}, names, tmp_path / "tsne.png")
    assert [axes.get_title() for axes in figure.axes] == ["without", "with"]
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes())
        for c in figure.axes[0].collections
    }
    assert len(looks) == 20
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    assert (tmp_path / "tsne.png").exists()
    with pytest.raises(ValueError, match="at least one panel"):
        plot_scatter({}, names)


def test_similarity_leaves_out_the_diagonal_and_shares_a_scale(tmp_path):
    low, high = np.array([[1, 0.2], [0.2, 1]]), np.array([[1, 0.9], [0.9, 1]])
    rows = {"without": {"cosine": high, "deviation": -low}, "with": {"cosine": low}}
    rows["with"]["deviation"] = np.full((2, 2), np.nan)
    figure = plot_similarity(rows, ["a", "b"], tmp_path / "similarity.png")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        *("without: cosine", "without: deviation", "with: cosine", "with: deviation")
    ]
    assert [axes.images[0].get_clim() for axes in panels] == [(0.2, 1), (-0.2, 1)] * 2
    assert all(
        np.isnan(np.diag(axes.images[0].get_array().filled(np.nan))).all() for axes in panels
    )
    assert (tmp_path / "similarity.png").exists()
    with pytest.raises(ValueError, match="at least one row"):
        plot_similarity({}, [])
