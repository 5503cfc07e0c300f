"""Where an error sits: powers of ten beyond what is allowed, and no wrong entry is lost."""

import numpy as np
import pytest
from pictures import assert_png

from midpg_np.plots import plot_error_map


def cells(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_a_matrix_is_shown_entry_by_entry(tmp_path):
    excess = np.array([[0.5, 1.0, 10.0], [0.0, 1e4, 3.0]])
    figure = plot_error_map(excess, "d.W", tmp_path / "e.png")
    np.testing.assert_allclose(cells(figure), [[0, 0, 1], [0, 4, np.log10(3)]])
    axes, scale = figure.axes
    assert axes.get_title() == "d.W (2, 3)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("last axis", "first axis")
    assert scale.get_ylabel() == "log10 of error / allowed"
    assert_png(tmp_path / "e.png")


@pytest.mark.parametrize(
    ("shape", "drawn", "labels"),
    [((5,), (1, 5), ("entry", "")), ((2, 3, 4), (6, 4), ("last axis", "leading axes"))],
)
def test_other_shapes(shape, drawn, labels):
    figure = plot_error_map(np.ones(shape), "x")
    assert cells(figure).shape == drawn
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == labels


def test_neighbours_that_share_a_cell_show_their_largest():
    excess = np.ones((200, 1000))
    excess[123, 777] = 1e6
    shown = cells(plot_error_map(excess, "x", most=10))
    assert shown.shape == (10, 10)
    assert np.argwhere(shown > 0).tolist() == [[6, 7]] and shown.max() == pytest.approx(6)
