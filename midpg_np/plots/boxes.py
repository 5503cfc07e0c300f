"""Boxes and arrows of a graph, drawn where a layered layout puts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from midpg_np.plots.layered import Extent, Layout, layered_layout
from midpg_np.plots.style import new_figure

# All lengths are in inches.
FONT = 8.0  # points
POINT = 1 / 72
LINE_HEIGHT = 1.45 * FONT * POINT
PADDING = 0.08
BESIDE = 0.22  # between a box and what stands beside it
LAYER_GAP = 0.34
MARGIN = 0.2
LEGEND_HEIGHT = 0.35
LEGEND_STEP = 1.2
# Parameters differ by shape and shade, what is given by dashes: neither needs colour.
LOOKS: dict[str, dict[str, Any]] = {
    "value": {"facecolor": "#ffffff", "linestyle": "-"},
    "parameter": {"facecolor": "#d0d4d8", "linestyle": "-"},
    "given": {"facecolor": "#ffffff", "linestyle": (0, (3, 2))},
}
MEANINGS = {"value": "computed", "parameter": "parameters", "given": "given"}
SIDES = {"parameter": -1, "given": 1}  # of what only one box reads


class Box(NamedTuple):
    """What stands in a box.

    Parameters
    ----------
    kind : str
        "value", "parameter" or "given".
    title : str
        First line; may be empty.
    lines : tuple of str
        Further lines.
    """

    kind: str
    title: str
    lines: tuple[str, ...]


class Place(NamedTuple):
    """Middle and size of a box."""

    x: float
    y: float
    width: float
    height: float


class Band(NamedTuple):
    """Top and bottom of a layer."""

    top: float
    bottom: float


def draw_boxes(graph: Any, beside: Mapping[str, Sequence[Box]]) -> Any:
    """Return a figure of a graph, arrows down.

    Every box and arrow has a ``gid``: the name of its node, "u -> v", or "kind: node" for what
    stands beside a node.

    Parameters
    ----------
    graph : networkx DiGraph
        Nodes have a ``box``, edges ``is_stop``: such arrows are dashed.
    beside : mapping of node to sequence of Box
        Parameters to the left of a node, what is given to its right.
    """
    sizes = {node: _size(graph.nodes[node]["box"]) for node in graph}
    aside = {node: {box: _size(box) for box in beside.get(node, ())} for node in graph}
    extents = {node: _extent(sizes[node][0], aside[node]) for node in graph}
    layout = layered_layout(graph, extents)
    bands = _bands(
        layout, {n: max(sizes[n][1], *(h for _, h in aside[n].values()), 0) for n in graph}
    )
    places = {
        node: Place(layout.x[node], sum(bands[layout.layer[node]]) / 2, *sizes[node])
        for node in graph
    }
    ends = [layout.x[n] + side for n, e in extents.items() for side in (-e.left, e.right)]
    ends += layout.x.values()
    left, right = min(ends) - MARGIN, max(ends) + MARGIN
    has_stops = any(is_stop for _, _, is_stop in graph.edges.data("is_stop"))
    n_legend = len(MEANINGS) + 2 * has_stops
    right = max(right, left + n_legend * LEGEND_STEP + 1.8)
    axes = _canvas(left, right, bands[-1].bottom - MARGIN, MARGIN + LEGEND_HEIGHT)
    for u, v, is_stop in graph.edges.data("is_stop"):
        _draw_arrow(axes, _way(layout, bands, places, u, v), is_stop, f"{u} -> {v}")
    for node, place in places.items():
        _draw_box(axes, graph.nodes[node]["box"], place, node)
        for box, size in aside[node].items():
            _draw_beside(axes, box, size, place, node)
    _draw_legend(axes, left + MARGIN, MARGIN + LEGEND_HEIGHT / 2, has_stops)
    return axes.figure


def _lines(box: Box) -> list[tuple[str, str]]:
    """Return the lines of a box with their weights."""
    title = [(box.title, "bold")] if box.title else []
    return title + [(line, "normal") for line in box.lines]


def _size(box: Box) -> tuple[float, float]:
    """Return the width and height that the text of a box needs."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    widths = []
    for text, weight in _lines(box):
        font = FontProperties(size=FONT, weight=weight)
        widths.append(text_to_path.get_text_width_height_descent(text, font, False)[0])
    return max(widths) * POINT + 2 * PADDING, len(widths) * LINE_HEIGHT + 2 * PADDING


def _extent(width: float, aside: Mapping[Box, tuple[float, float]]) -> Extent:
    reach = dict.fromkeys(SIDES, width / 2)
    for box, (own_width, _) in aside.items():
        reach[box.kind] += BESIDE + own_width
    return Extent(reach["parameter"], reach["given"], width)


def _bands(layout: Layout, heights: Mapping[Any, float]) -> list[Band]:
    """Return where the layers are, each as high as its highest box."""
    tallest = [0.0] * (1 + max(layout.layer.values()))
    for node, height in heights.items():
        tallest[layout.layer[node]] = max(tallest[layout.layer[node]], height)
    tops = -np.cumsum([0.0, *(height + LAYER_GAP for height in tallest[:-1])])
    return [Band(float(t), float(t) - height) for t, height in zip(tops, tallest, strict=True)]


def _canvas(left: float, right: float, bottom: float, top: float) -> Any:
    """Return the axes of a figure whose data are in inches."""
    figure = new_figure(right - left, top - bottom)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_axis_off()
    return axes


def _draw_box(axes: Any, box: Box, place: Place, gid: str) -> None:
    _draw_frame(axes, box.kind, place, gid)
    lines = _lines(box)
    for i, (text, weight) in enumerate(lines):
        y = place.y + ((len(lines) - 1) / 2 - i) * LINE_HEIGHT
        look = {"fontsize": FONT, "fontweight": weight, "zorder": 4}
        axes.text(place.x, y, text, ha="center", va="center_baseline", **look)


def _draw_frame(axes: Any, kind: str, place: Place, gid: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height = place
    style = "square,pad=0" if kind == "parameter" else "round,pad=0,rounding_size=0.07"
    look = {"edgecolor": "#000000", "linewidth": 0.9, "zorder": 3, **LOOKS[kind]}
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, gid=gid, **look))


def _draw_beside(axes: Any, box: Box, size: tuple[float, float], place: Place, node: str) -> None:
    side, gid = SIDES[box.kind], f"{box.kind}: {node}"
    x = place.x + side * (place.width / 2 + BESIDE + size[0] / 2)
    _draw_box(axes, box, Place(x, place.y, *size), gid)
    start, end = x - side * size[0] / 2, place.x + side * place.width / 2
    _draw_arrow(axes, [(start, place.y), (end, place.y)], False, f"{gid} -> {node}")


def _way(
    layout: Layout, bands: Sequence[Band], places: Mapping[str, Place], u: str, v: str
) -> list[tuple[float, float]]:
    """Return the corners of an edge: from box to box, upright through the layers between."""
    start, end = places[u], places[v]
    arrival = end.x + layout.ports[u, v]
    points = [
        (start.x, start.y - start.height / 2),
        (start.x, bands[layout.layer[u]].bottom),
        *((layout.x[p], y) for p in layout.waypoints[u, v] for y in bands[layout.layer[p]]),
        (arrival, bands[layout.layer[v]].top),
        (arrival, end.y + end.height / 2),
    ]
    kept = [a for a, b in pairwise(points) if not np.allclose(a, b)]
    return [*kept, points[-1]]


def _draw_arrow(axes: Any, points: Sequence[tuple[float, float]], is_stop: bool, gid: str) -> None:
    """Draw a way through points, upright at each, with a head at its end."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for (x_0, y_0), (x_1, y_1) in pairwise(points):
        if np.isclose(x_0, x_1) or y_0 == y_1:
            vertices.append((x_1, y_1))
            codes.append(Path.LINETO)
        else:
            half = (y_0 + y_1) / 2
            vertices += [(x_0, half), (x_1, half), (x_1, y_1)]
            codes += [Path.CURVE4] * 3
    look: dict[str, Any] = {
        "color": "#444444",
        "linewidth": 0.9,
        "linestyle": "--" if is_stop else "-",
    }
    head: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(path=Path(vertices, codes), gid=gid, **head, **look))


def _draw_legend(axes: Any, x: float, y: float, has_stops: bool) -> None:
    """Draw a small box of each kind with its meaning, and what B is."""
    for kind, meaning in MEANINGS.items():
        _draw_frame(axes, kind, Place(x + 0.12, y, 0.24, 0.14), f"legend: {kind}")
        axes.text(x + 0.32, y, meaning, fontsize=FONT, va="center_baseline")
        x += LEGEND_STEP
    if has_stops:
        _draw_arrow(axes, [(x, y), (x + 0.3, y)], True, "legend: stop")
        axes.text(x + 0.38, y, "no gradient comes back", fontsize=FONT, va="center_baseline")
        x += 2 * LEGEND_STEP
    axes.text(x, y, "B: rows of the batch", fontsize=FONT, va="center_baseline")
