"""The common look: told apart without colour and by the colour-blind; no window, no NaN printed."""

import sys
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from pictures import values_in

from midpg_np.plots import STYLES, new_figure
from midpg_np.plots.style import (
    SCENARIO_COLORS,
    SCENARIO_MARKERS,
    clean,
    heat_map,
    scenario_style,
)

# Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def oklab(rgb):
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ rgb)


def seen(color, matrix):
    s = np.array(to_rgb(color))
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    return oklab(np.clip(np.array(matrix) @ linear, 0.0, 1.0))


@pytest.mark.parametrize("people", SEEN_BY)
def test_no_two_scenarios_have_colours_that_look_alike(people):
    colors = [seen(color, SEEN_BY[people]) for color in SCENARIO_COLORS]
    assert len(colors) == 12
    assert min(np.linalg.norm(a - b) for a, b in combinations(colors, 2)) > 0.07


def test_styles_differ_without_colour():
    assert len({style["linestyle"] for style in STYLES}) == len(STYLES)
    assert len({style["marker"] for style in STYLES}) == len(STYLES)


def test_144_scenarios_differ_and_the_first_twelve_in_colour_and_in_marker():
    pairs = [tuple(scenario_style(d).values()) for d in range(144)]
    assert len(set(pairs)) == 144
    colors, markers = map(set, zip(*pairs[:12], strict=True))
    assert len(colors) == len(markers) == len(SCENARIO_MARKERS) == 12


def test_a_figure_needs_no_window():
    figure = new_figure(2.5, 1.5)
    assert figure.get_size_inches().tolist() == [2.5, 1.5]
    clean(figure.subplots())
    assert "matplotlib.pyplot" not in sys.modules


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib.*install the extra 'app'"):
        new_figure(1, 1)


def test_a_small_heat_map_shows_its_values():
    matrix = np.array([[0.126, -0.001, np.nan], [1.0, -2.5, 0.3]])
    axes = new_figure(3, 3).subplots()
    image = heat_map(axes, matrix, -2.5, 1.0)
    np.testing.assert_array_equal(image.get_array().filled(np.nan), matrix)
    assert image.get_clim() == (-2.5, 1.0) and image.get_cmap().name == "cividis"
    assert values_in(axes).tolist() == [["0.13", "0.00", ""], ["1.00", "-2.50", "0.30"]]


def test_small_values_keep_their_digits_and_large_maps_have_none():
    small, large = new_figure(3, 3).subplots(1, 2)
    heat_map(small, [[0.00123]], 0.0, 0.00123)
    heat_map(large, np.zeros((9, 2)), 0.0, 1.0)
    assert values_in(small).tolist() == [["1.2e-03"]]
    assert not large.texts
