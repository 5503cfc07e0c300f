"""AUC against the low-rank size: a line per method, bars of the seeds, a star for the best."""

import numpy as np
import pytest
from pictures import assert_png, legend_texts, look

from midpg_np.plots import plot_rank


def points(*sizes, std=0.01):
    return [{"size": size, "mean": 0.6 + size / 100, "std": std} for size in sizes]


def test_one_line_per_method_that_differs_without_colour(tmp_path):
    methods = {name: points(1 / 64, 1 / 8, 2) for name in ("r", "rc", "c", "apg")}
    methods["non"] = points(1)
    best = {"test": dict.fromkeys(methods, (1 / 8, 0.6))}
    figure = plot_rank({"validation": methods, "test": methods}, best, tmp_path / "rank.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["validation AUC", "test AUC"]
    first, second = figure.axes
    assert first.get_xscale() == "log" and "low-rank size" in first.get_xlabel()
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["1/64", "1/8", "1", "2"]
    lines = [container.lines[0] for container in first.containers]
    assert len(set(map(look, lines))) == 5
    for line, drawn in zip(lines, methods.values(), strict=True):
        assert list(line.get_ydata()) == [point["mean"] for point in drawn]
        moved = np.array(line.get_xdata(), float) / [point["size"] for point in drawn]
        np.testing.assert_allclose(moved, moved[0])  # aside, and no further than to a neighbour
        assert 0.85 < moved[0] < 1.15
    assert legend_texts(figure) == list(methods)
    stars = [sum(line.get_marker() == "*" for line in axes.lines) for axes in (first, second)]
    assert stars == [0, 5]
    assert_png(tmp_path / "rank.png")


def test_bars_are_the_standard_deviations():
    (axes,) = plot_rank({"test": {"r": points(0.25, 0.5, std=0.02)}}, {}).axes
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose([np.ptp(bar[:, 1]) for bar in bars.get_segments()], 0.04)


def test_one_seed_has_no_bars():
    (axes,) = plot_rank({"test": {"r": points(0.25, 0.5, std=None)}}, {}).axes
    assert not axes.containers[0].has_yerr


def test_without_methods():
    with pytest.raises(ValueError, match="draws 1 to 5 methods; got 0"):
        plot_rank({"test": {}}, {})
