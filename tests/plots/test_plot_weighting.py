"""Core, weighting matrix and weights: the numbers drawn are those of the layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import assert_png, values_in

from midpg_np.layers.repeat import repeat
from midpg_np.plots import plot_weighting

Q = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])


def panels(figure):
    return {axes.get_title().split("  ")[0]: axes for axes in figure.axes if axes.get_title()}


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def outlines(axes):
    """Places of the lines between rows and between columns."""
    data = [line.get_xydata() for line in axes.lines]
    rows = [float(xy[0, 1]) for xy in data if xy[0, 1] == xy[1, 1]]
    return rows, [float(xy[0, 0]) for xy in data if xy[0, 0] == xy[1, 0]]


@pytest.mark.parametrize(
    ("mode", "lines"), [("block", ([1.5, 3.5], [1.5])), ("tile", ([2.5], [1.5]))]
)
def test_all_four_matrices(mode, lines, tmp_path):
    W = np.random.default_rng(0).normal(size=(6, 4))
    figure = plot_weighting(Q, 6, 4, mode, W, tmp_path / "w.png")
    axes = panels(figure)
    S = repeat(Q[None], 6, 4, mode)[0]
    for title, matrix in {"core Q": Q, "S = ψ(Q)": S, "W": W, "S * W": S * W}.items():
        np.testing.assert_array_equal(shown(axes[title]), matrix)
    assert outlines(axes["S = ψ(Q)"]) == outlines(axes["S * W"]) == lines
    assert outlines(axes["core Q"]) == outlines(axes["W"]) == ([], [])
    assert values_in(axes["core Q"])[2].tolist() == ["0.50", "0.60"]
    scales = [a.images[0].get_clim() for a in axes.values()]
    assert scales[0] == scales[1] == (0.0, 0.6)
    assert scales[2] == scales[3] == (-np.abs(W).max(), np.abs(W).max())
    assert axes["core Q"].get_xlabel() == "column c" and axes["W"].get_ylabel() == "row i"
    assert_png(tmp_path / "w.png")


@settings(max_examples=8)  # each draws a figure
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_every_outlined_block_holds_one_number(d_r, d_c, f_r, f_c):
    core = np.arange(1.0, d_r * d_c + 1).reshape(d_r, d_c)
    axes = panels(plot_weighting(core, d_r * f_r, d_c * f_c))["S = ψ(Q)"]
    rows, columns = ([int(x + 0.5) for x in cuts] for cuts in outlines(axes))
    blocks = [b for r in np.split(shown(axes), rows) for b in np.split(r, columns, axis=1)]
    assert [np.unique(block).tolist() for block in blocks] == [[x] for x in core.ravel()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Q, 6, 4, "blok"), r"mode must be one of \('block', 'tile'\); got 'blok'"),
        ((Q, 7, 4), r"Q must be one core .* divide \(7, 4\); got shape \(3, 2\)"),
        ((Q[None], 6, 4), r"got shape \(1, 3, 2\)"),
        ((np.ones((0, 2)), 6, 4), r"got shape \(0, 2\)"),
        ((Q, 6, 4, "tile", Q), r"W must have the shape \(6, 4\) of S; got \(3, 2\)"),
    ],
)
def test_wrong_shapes_and_modes(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_weighting(*arguments)
