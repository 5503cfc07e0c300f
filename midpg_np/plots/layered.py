"""A place for every box of a directed graph: in layers, arrows down, few crossings, no overlap.

The steps are those of Gansner, Koutsofios, North and Vo (1993): layers by the longest way from a
source, waypoints where an arrow passes a layer, order within a layer by the mean place of the
neighbours, and then the places that make arrows least slanted, which is a linear programme.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Node = Hashable
Edge = tuple[Node, Node]
STARTS, SWEEPS = 10, 12  # of the search for few crossings
GAP = 0.25  # inches between boxes of a layer
PORTS = 0.7  # share of a box's width over which arrows arrive
# What a slant costs: between two boxes, between a box and a waypoint, between two waypoints.
SLANT = (1.0, 2.0, 8.0)


class Extent(NamedTuple):
    """How far a box reaches to the left and right of its anchor, in inches.

    ``port`` is the width in whose middle the anchor is and at which arrows arrive.
    """

    left: float
    right: float
    port: float


class Layout(NamedTuple):
    """Layer and horizontal place of every node and waypoint, and the ways of the edges.

    ``ports`` says how far from the anchor of its target an edge arrives.
    """

    layer: dict[Node, int]
    x: dict[Node, float]
    waypoints: dict[Edge, list[Node]]
    ports: dict[Edge, float]


def layered_layout(graph: Any, extents: Mapping[Node, Extent]) -> Layout:
    """Return where the boxes of an acyclic networkx graph go, waypoints of long edges included.

    Parameters
    ----------
    graph : networkx DiGraph
        Without circles.
    extents : mapping of node to Extent
        One for every node.
    """
    layer = _layers(graph)
    proper, waypoints = _with_waypoints(graph, layer)
    rows = _ordered(proper, layer)
    widths = {node: extents.get(node, Extent(0.04, 0.04, 0.0)) for node in proper}
    ports = _ports(proper, rows, widths)
    x = _places(proper, rows, widths, ports)
    last = {(u, v): (passed or [u])[-1] for (u, v), passed in waypoints.items()}
    arriving = {(u, v): ports[last[u, v], v] for u, v in waypoints}
    return Layout(layer, x, waypoints, arriving)


def _layers(graph: Any) -> dict[Node, int]:
    """Longest way from a source; a source stands right above its first reader."""
    import networkx as nx

    layer = {node: i for i, nodes in enumerate(nx.topological_generations(graph)) for node in nodes}
    for node in graph:
        readers = [layer[reader] for reader in graph.successors(node)]
        if readers and not graph.in_degree(node):
            layer[node] = min(readers) - 1
    return layer


def _with_waypoints(graph: Any, layer: dict[Node, int]) -> tuple[Any, dict[Edge, list[Node]]]:
    """Cut every edge at the layers that it passes; adds the waypoints to ``layer``.

    All edges of a node run through the same waypoint of a layer, so that they share a way.
    """
    import networkx as nx

    proper, waypoints = nx.DiGraph(), {}
    proper.add_nodes_from(graph)
    for u, v in graph.edges:
        passed: list[Node] = [(u, i) for i in range(layer[u] + 1, layer[v])]
        layer.update({point: i for i, point in enumerate(passed, start=layer[u] + 1)})
        nx.add_path(proper, [u, *passed, v])
        waypoints[u, v] = passed
    return proper, waypoints


def _ordered(graph: Any, layer: Mapping[Node, int]) -> list[list[Node]]:
    """Return the nodes layer by layer, each in the order with the fewest crossings found.

    The search starts from the graph's order, which names make easy to follow, then from shuffled
    ones, which must save a fifth.
    """
    rng = np.random.default_rng(0)
    rows: list[list[Node]] = [[] for _ in range(max(layer.values()) + 1)]
    for node in graph:
        rows[layer[node]].append(node)
    best, fewest = rows, _crossings(graph, rows)
    for start in range(STARTS):
        if start == 1:
            fewest = int(0.8 * fewest)
        if start:
            rows = [[row[i] for i in rng.permutation(len(row))] for row in rows]
        for sweep in range(SWEEPS):
            rows = _swept(graph, rows, is_down=sweep % 2 == 0)
            crossings = _crossings(graph, rows)
            if crossings < fewest:
                best, fewest = rows, crossings
        if fewest == 0:
            break
    return best


def _swept(graph: Any, rows: list[list[Node]], is_down: bool) -> list[list[Node]]:
    """Sort each layer by the mean place of its nodes' neighbours in the layer before it."""
    swept, above = [], list[Node]()
    for row in rows if is_down else reversed(rows):
        place = {node: float(j) for j, node in enumerate(row)}
        other = {node: j for j, node in enumerate(above)}
        for node in row:
            near = [other[n] for n in (graph.pred if is_down else graph.succ)[node]]
            if near:
                place[node] = sum(near) / len(near)
        above = sorted(row, key=place.__getitem__)
        swept.append(above)
    return swept if is_down else swept[::-1]


def _crossings(graph: Any, rows: list[list[Node]]) -> int:
    total = 0
    for upper, lower in pairwise(rows):
        below = {node: j for j, node in enumerate(lower)}
        ends = [(i, below[v]) for i, u in enumerate(upper) for v in graph.successors(u)]
        if ends:
            start, end = np.array(ends).T
            total += int(((start[:, None] < start) & (end[:, None] > end)).sum())
    return total


def _ports(graph: Any, rows: list[list[Node]], extents: Mapping[Node, Extent]) -> dict[Edge, float]:
    """Return where along the top of its target each edge arrives: side by side, from the anchor."""
    place = {node: j for row in rows for j, node in enumerate(row)}
    ports = {}
    for v in graph:
        into = sorted(graph.predecessors(v), key=place.__getitem__)
        for i, u in enumerate(into):
            ports[u, v] = PORTS * extents[v].port * ((i + 0.5) / len(into) - 0.5)
    return ports


def _places(
    graph: Any,
    rows: list[list[Node]],
    extents: Mapping[Node, Extent],
    ports: Mapping[Edge, float],
) -> dict[Node, float]:
    """Return the anchors x with the least sum of cost |x_v + port - x_u|, boxes a gap apart.

    A linear programme in the anchors and in one bound on |.| for each edge.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    number = {node: i for i, node in enumerate(graph)}
    edges = list(graph.edges)
    n, below, limits = len(number), [], []  # rows of A x <= b, each as {column: factor}
    for k, (u, v) in enumerate(edges):
        for sign in (1.0, -1.0):
            below.append({number[v]: sign, number[u]: -sign, n + k: -1.0})
            limits.append(-sign * ports[u, v])
    for row in rows:
        for a, b in pairwise(row):
            below.append({number[a]: 1.0, number[b]: -1.0})
            limits.append(-(extents[a].right + GAP + extents[b].left))
    slants = [SLANT[_is_waypoint(u, graph) + _is_waypoint(v, graph)] for u, v in edges]
    if not below:  # a single box
        return dict.fromkeys(graph, 0.0)
    i, j, factors = zip(
        *((i, j, factor) for i, row in enumerate(below) for j, factor in row.items()), strict=True
    )
    matrix = coo_array((factors, (i, j)), shape=(len(below), n + len(edges))).tocsr()
    cost = np.concatenate([np.zeros(n), slants])
    bounds = [(None, None)] * n + [(0.0, None)] * len(edges)
    solution = linprog(cost, A_ub=matrix, b_ub=limits, bounds=bounds, method="highs")
    return {node: float(solution.x[i]) for node, i in number.items()}


def _is_waypoint(node: Node, graph: Any) -> bool:
    return isinstance(node, tuple) and node[0] in graph
