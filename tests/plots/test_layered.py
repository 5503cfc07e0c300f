"""Layers: arrows lead down, boxes keep apart, few arrows cross, chains are straight."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midpg_np.plots.layered import GAP, Extent, layered_layout

nx = pytest.importorskip("networkx", reason="graphs need networkx")


def random_graph(n, density, seed):
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < density, 1)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(np.argwhere(upper).tolist())
    return graph


def layout_of(graph, seed=0):
    rng = np.random.default_rng(seed)
    extents = {v: Extent(*rng.uniform(0.2, 1.5, 2), port=0.3) for v in graph}
    return layered_layout(graph, extents), extents


@given(st.integers(1, 9), st.floats(0.0, 0.7), st.integers(0, 10**6))
def test_arrows_lead_down_and_boxes_keep_apart(n, density, seed):
    graph = random_graph(n, density, seed)
    layout, extents = layout_of(graph, seed)
    for u, v in graph.edges:
        way = [u, *layout.waypoints[u, v], v]
        assert [layout.layer[b] - layout.layer[a] for a, b in pairwise(way)] == [1] * (len(way) - 1)
    assert set(layout.x) == set(layout.layer) and min(layout.layer.values()) == 0
    for i in set(layout.layer.values()):
        row = sorted((v for v in graph if layout.layer[v] == i), key=layout.x.__getitem__)
        assert row
        for a, b in pairwise(row):
            free = layout.x[b] - extents[b].left - (layout.x[a] + extents[a].right)
            assert free > GAP - 1e-6


def test_arrows_that_need_not_cross_do_not():
    graph = nx.DiGraph([(f"a{i}", f"b{j}") for i, j in enumerate((3, 0, 4, 1, 2))])
    layout, _ = layout_of(graph)
    order = [sorted(range(5), key=lambda i: layout.x[f"a{i}"])]
    assert [layout.x[f"b{(3, 0, 4, 1, 2)[i]}"] for i in order[0]] == sorted(
        layout.x[f"b{j}"] for j in range(5)
    )


def test_a_chain_is_straight_and_what_passes_it_bends_only_at_its_ends():
    graph = nx.DiGraph([*pairwise("abcde"), ("a", "e")])
    layout, _ = layout_of(graph)
    chain = [layout.x[v] for v in "bcd"]
    np.testing.assert_allclose(chain, chain[0], atol=1e-6)
    passing = [layout.x[point] for point in layout.waypoints["a", "e"]]
    np.testing.assert_allclose(passing, passing[0], atol=1e-6)
    assert layout.ports["a", "e"] == -layout.ports["d", "e"] != 0.0


def test_a_source_stands_right_above_its_first_reader():
    graph = nx.DiGraph([*pairwise("abcd"), ("late", "d")])
    assert layout_of(graph)[0].layer["late"] == 2
