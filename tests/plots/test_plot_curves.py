"""Curves: every quantity has its panel, runs differ by more than colour, gaps stay gaps."""

import numpy as np
import pytest
from pictures import assert_png, legend_texts, line_of, look

from midpg_np.plots import plot_curves, plot_scenario_curves


def history(offset=0.0, epochs=(1, 2, 3)):
    return [
        {
            "epoch": epoch,
            "step": 10 * i,
            "train_ce": 0.7 - 0.1 * i + offset,
            "valid_auc": 0.6 + 0.1 * i - offset,
            "valid_logloss": 0.7 - 0.05 * i + offset,
            "valid_scenarios": {
                "tea": {"auc": 0.5 + 0.1 * i, "logloss": 0.6},
                "cake": {"auc": None if i == 2 else 0.4, "logloss": 0.5},
            },
            "is_best": i < 3,
        }
        for i, epoch in enumerate(epochs, start=1)
    ]


def test_three_panels_with_labels_and_lines_that_differ_without_colour(tmp_path):
    runs = {"midpg": history(), "dnn": history(0.05)}
    figure = plot_curves(runs, tmp_path / "c.png")
    keys = {
        "training cross-entropy": "train_ce",
        "validation AUC": "valid_auc",
        "validation LogLoss": "valid_logloss",
    }
    assert [axes.get_ylabel() for axes in figure.axes] == list(keys)
    for axes in figure.axes:
        assert axes.get_xlabel() == "epoch"
        for name, records in runs.items():
            x, y = line_of(axes, name).get_data()
            assert list(x) == [1, 2, 3]
            assert list(y) == [record[keys[axes.get_ylabel()]] for record in records]
        assert len({look(line_of(axes, name)) for name in runs}) == 2
    assert_png(tmp_path / "c.png")


def test_a_star_marks_the_parameters_that_were_kept():
    training, auc, _ = plot_curves({"midpg": history()}).axes
    stars = [line.get_xydata().tolist() for line in auc.lines if line.get_marker() == "*"]
    assert stars == [[[2, 0.8]]]
    assert not any(line.get_marker() == "*" for line in training.lines)


def test_several_validations_per_epoch_are_drawn_by_step():
    axes = plot_curves({"dnn": history(epochs=(1, 1, 2))}).axes[0]
    assert axes.get_xlabel() == "step"
    assert list(line_of(axes, "dnn").get_xdata()) == [10, 20, 30]


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


def test_a_line_per_scenario_of_a_history(tmp_path):
    figure = plot_scenario_curves(history(), path=tmp_path / "s.png")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation AUC")
    np.testing.assert_allclose(line_of(axes, "tea").get_ydata(), [0.6, 0.7, 0.8])
    np.testing.assert_array_equal(line_of(axes, "cake").get_ydata(), [0.4, np.nan, 0.4])
    assert look(line_of(axes, "tea")) != look(line_of(axes, "cake"))
    assert set(line_of(axes, "kept").get_xdata()) == {2}
    assert legend_texts(figure) == ["tea", "cake", "kept"]
    assert_png(tmp_path / "s.png")


def test_other_metrics_units_and_names():
    (axes,) = plot_scenario_curves(history(epochs=(1, 1, 2)), "logloss", names=["a", "b"]).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "validation LogLoss")
    assert line_of(axes, "b").get_xydata().tolist() == [[10, 0.5], [20, 0.5], [30, 0.5]]


def test_a_mapping_of_scenarios_to_values():
    figure = plot_scenario_curves({0: [0.5, None], 1: np.array([0.25, 0.75])}, "hit rate")
    (axes,) = figure.axes
    assert axes.get_ylabel() == "validation hit rate"
    assert line_of(axes, "1").get_xydata().tolist() == [[1, 0.25], [2, 0.75]]
    assert legend_texts(figure) == ["0", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "the history holds no 'auc' of any scenario; was there validation?"),
        (([{"epoch": 1, "step": 4}],), "holds no 'auc' of any scenario"),
        ((history(), "f1"), "the history holds no 'f1' of any scenario"),
        (({"a": [None]},), "holds no 'auc' of any scenario"),
        (({"a": [0.5]}, "auc", ["a", "b"]), r"names must be one per scenario, 1; got 2\."),
    ],
)
def test_scenario_curves_say_what_is_missing(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_scenario_curves(*arguments)
