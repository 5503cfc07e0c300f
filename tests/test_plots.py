"""Plots: every quantity has its panel, runs differ by more than colour, errors are sentences."""

import sys
import warnings

import pytest

from midpg_np.plots import plot_curves

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
