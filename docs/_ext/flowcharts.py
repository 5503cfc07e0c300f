"""Flowcharts in Mermaid's notation, which GitHub draws, as pictures without a script.

What the documentation uses of the notation: boxes ``A["text"]`` and circles ``A(("text"))``, joined
by ``-->``, ``-- "text" -->``, ``-.->`` and ``-. "text" .->`` in chains, several boxes with ``&``.
"""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import networkx as nx
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from midpg_np.plots.layered import Extent, layered_layout

LOGGER = logging.getLogger(__name__)
INCH = 96  # the layout's unit, in pixels
HEIGHT, GAP, MARGIN = 30, 34, 8
LETTER = 7.6  # pixels that a letter needs at most, at a size of 14
_NODE = re.compile(r'(\w+)(?:\["([^"]*)"\]|\(\("([^"]*)"\)\))?$')
_ARROW = re.compile(r'\s+(-->|-\.->|--\s+"[^"]*"\s+-->|-\.\s+"[^"]*"\s+\.->)\s+')


class Place(NamedTuple):
    """Middle and width of a box, in pixels."""

    x: float
    y: float
    width: float


def read(text: str) -> nx.DiGraph:
    """Graph of a flowchart: nodes have ``text``, ``is_round``, edges ``text``, ``is_dashed``."""
    kind, *lines = (line.strip() for line in text.strip().splitlines())
    if not kind.startswith("flowchart"):
        raise ValueError(f"only flowcharts are drawn; got {kind!r}.")
    graph = nx.DiGraph()
    for line in filter(None, lines):
        first, *rest = _ARROW.split(line)
        left = boxes(graph, first)
        for arrow, group in zip(rest[::2], rest[1::2], strict=True):
            right = boxes(graph, group)
            label = re.search(r'"([^"]*)"', arrow)
            look = {"text": label[1] if label else "", "is_dashed": "." in arrow}
            graph.add_edges_from(((u, v) for u in left for v in right), **look)
            left = right
    return graph


def boxes(graph: nx.DiGraph, group: str) -> list[str]:
    """Names of the boxes in "A & B"; a text that stands there is noted."""
    names = []
    for part in group.split(" & "):
        match = _NODE.match(part.strip())
        if match is None:
            raise ValueError(
                f'a box is written NAME, NAME["text"] or NAME(("text")); got {part!r}.'
            )
        name, square, circle = match.groups()
        if square or circle:
            graph.add_node(name, text=square or circle, is_round=bool(circle))
        names.append(name)
    return names


def draw(graph: nx.DiGraph) -> str:
    """SVG of a flowchart, arrows down."""
    sizes = {n: len(graph.nodes[n]["text"]) * LETTER + 2 * 10 for n in graph}
    layout = layered_layout(
        graph, {n: Extent(w / 2 / INCH, w / 2 / INCH, w / INCH) for n, w in sizes.items()}
    )
    left = min(layout.x[n] * INCH - w / 2 for n, w in sizes.items()) - MARGIN
    right = max(layout.x[n] * INCH + w / 2 for n, w in sizes.items()) + MARGIN
    depth = {n: MARGIN + HEIGHT / 2 + layer * (HEIGHT + GAP) for n, layer in layout.layer.items()}
    places = {n: Place(layout.x[n] * INCH - left, depth[n], w) for n, w in sizes.items()}
    parts = []
    for u, v, look in graph.edges(data=True):
        end = places[v]
        way = [(places[u].x, places[u].y + HEIGHT / 2)]
        for point in layout.waypoints.get((u, v), []):
            x = layout.x[point] * INCH - left
            way += [(x, depth[point] - HEIGHT / 2), (x, depth[point] + HEIGHT / 2)]
        way.append((end.x + layout.ports[u, v] * INCH, end.y - HEIGHT / 2))
        parts.append(arrow(way, **look))
    parts += [box(place, **graph.nodes[n]) for n, place in places.items()]
    width, height = right - left, max(depth.values()) + HEIGHT / 2 + MARGIN
    names = {n: graph.nodes[n]["text"] for n in graph}
    told = "; ".join(f"{names[u]} to {names[v]}" for u, v in graph.edges)
    return (
        f'<svg class="flowchart" role="img" aria-label="{escape(told)}" width="{width:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg>"
    )


def box(place: Place, text: str, is_round: bool) -> str:
    """Frame with a text in its middle."""
    x, y, width = place
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{width:.1f}" '
        f'height="{HEIGHT}" rx="{HEIGHT / 2 if is_round else 4}"/>'
        f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
    )


def arrow(way: list[tuple[float, float]], text: str, is_dashed: bool) -> str:
    """Line through the corners of a way, with a head at its end."""
    (x0, y0), (x, y) = way[-2:]
    length = max(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5, 1e-9)
    dx, dy = (x - x0) / length, (y - y0) / length
    side = f"l{-8 * dx - 4 * dy:.1f},{-8 * dy + 4 * dx:.1f}l{8 * dy:.1f},{-8 * dx:.1f}"
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in way)
    dash = ' stroke-dasharray="5 3"' if is_dashed else ""
    (xa, ya), (xb, yb) = next(iter(pairwise(way)))
    label = (
        f'<text class="label" x="{(xa + xb) / 2:.1f}" y="{(ya + yb) / 2:.1f}">{escape(text)}</text>'
    )
    head = f'<path d="M{x:.1f},{y:.1f}{side}z"/>'
    return f'<polyline points="{line}"{dash}/>{head}{label if text else ""}'


def draw_flowcharts(app: Sphinx, doctree: nodes.document) -> None:
    """Replace the flowcharts of a page by pictures."""
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") != "mermaid":
            continue
        try:
            picture = draw(read(block.astext()))
        except (ValueError, KeyError) as error:
            LOGGER.warning("flowchart: %s", error, location=block, type="flowchart")
            continue
        block.replace_self(nodes.raw("", f'<div class="scroll">{picture}</div>', format="html"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.connect("doctree-read", draw_flowcharts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
