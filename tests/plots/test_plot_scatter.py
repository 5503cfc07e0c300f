"""Points by scenario: colour, shape and a number at the middle tell which."""

import numpy as np
import pytest
from pictures import assert_png, legend_texts

from midpg_np.plots import plot_scatter


def test_points_scenarios_and_numbers_are_those_given(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"shop {d}" for d in range(20)]
    scenario = np.repeat(np.arange(20), 3)
    points = rng.normal(size=(60, 2)) + 20 * np.stack([scenario % 5, scenario // 5], axis=1)
    panel = (points, scenario)
    figure = plot_scatter({"without": panel, "with": panel}, names, tmp_path / "tsne.png")
    assert [axes.get_title() for axes in figure.axes] == ["without", "with"]
    for axes in figure.axes:
        for d, drawn in enumerate(axes.collections):
            np.testing.assert_array_equal(drawn.get_offsets(), points[scenario == d])
        places = {text.get_text(): text.get_position() for text in axes.texts}
        assert places == {
            str(d): tuple(np.median(points[scenario == d], axis=0)) for d in range(20)
        }
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes())
        for c in figure.axes[0].collections
    }
    assert len(looks) == 20
    assert legend_texts(figure) == names  # they end in their numbers
    assert_png(tmp_path / "tsne.png")


def test_ten_scenarios_differ_in_colour_alone():
    points, scenario = np.zeros((10, 2)), np.arange(10)
    (axes,) = plot_scatter({"": (points, scenario)}, list("abcdefghij")).axes
    assert len({tuple(c.get_facecolor()[0]) for c in axes.collections}) == 10


def test_numbers_that_would_cover_each_other_are_left_out():
    points = np.array([[0.0, 0.0], [0.01, 0.0], [1.0, 1.0]])
    (axes,) = plot_scatter({"": (points, np.arange(3))}, ["a", "b", "c"]).axes
    assert [text.get_text() for text in axes.texts] == ["0", "2"]


def test_a_scenario_without_points_is_in_the_legend_only():
    figure = plot_scatter({"": (np.ones((1, 2)), np.array([1]))}, ["a", "b"])
    assert legend_texts(figure) == ["0  a", "1  b"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1"]
    assert not plot_scatter({"": (np.ones((0, 2)), np.ones(0))}, ["a"]).axes[0].texts


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one panel"):
        plot_scatter({}, ["a"])
