"""How alike scenarios are: the diagonal is left out, panels below each other share a scale."""

import numpy as np
import pytest
from pictures import assert_png, values_in

from midpg_np.plots import plot_similarity


def test_the_diagonal_is_left_out_and_scales_are_shared(tmp_path):
    low, high = np.array([[1, 0.2], [0.2, 1]]), np.array([[1, 0.9], [0.9, 1]])
    rows = {"without": {"cosine": high, "deviation": -low}, "with": {"cosine": low}}
    rows["with"]["deviation"] = np.full((2, 2), np.nan)
    figure = plot_similarity(rows, ["a", "b"], tmp_path / "similarity.png")
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == [
        *("without: cosine", "without: deviation", "with: cosine", "with: deviation")
    ]
    limits = [axes.images[0].get_clim() for axes in panels.values()]
    assert limits == [(0.2, 1), (-0.2, 1)] * 2
    for title, axes in panels.items():
        row, measure = title.split(": ")
        shown = axes.images[0].get_array().filled(np.nan)
        expected = np.where(np.eye(2, dtype=bool), np.nan, rows[row][measure])
        np.testing.assert_array_equal(shown, expected)
    assert values_in(panels["with: cosine"]).tolist() == [["", "0.20"], ["0.20", ""]]
    assert [a.get_ylabel() for a in figure.axes[4:]] == ["cosine", "deviation"]
    bottom = panels["with: cosine"]
    assert [tick.get_text() for tick in bottom.get_xticklabels()] == ["a", "b"]
    assert_png(tmp_path / "similarity.png")


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one row"):
        plot_similarity({}, [])
