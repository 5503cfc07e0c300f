"""The graph of a model: every step and array is in it, boxes are legible, arrows pass none."""

import sys

import numpy as np
import pytest
from pictures import assert_png
from small import SMALL_MODELS, named_model, small_model

from midpg_np.models import MODELS
from midpg_np.plots import plot_graph
from midpg_np.plots.graph import graph_of
from midpg_np.tree import tree_flatten
from midpg_np.verify.longhand import write_out

nx = pytest.importorskip("networkx", reason="graphs need networkx")
LEGEND = "legend: "


@pytest.fixture(scope="module")
def midpg():
    return small_model("midpg")


def boxes(figure):
    """Frames by the name of their node, without those of the legend."""
    frames = [p for p in figure.axes[0].patches if hasattr(p, "get_boxstyle")]
    return {p.get_gid(): p for p in frames if not p.get_gid().startswith(LEGEND)}


def arrows(figure):
    found = [p for p in figure.axes[0].patches if hasattr(p, "get_arrowstyle")]
    return {p.get_gid(): p for p in found if not p.get_gid().startswith(LEGEND)}


def extent(frame):
    return np.array([frame.get_x(), frame.get_y()]), np.array(
        [frame.get_x() + frame.get_width(), frame.get_y() + frame.get_height()]
    )


@pytest.mark.parametrize("kind", MODELS)
def test_without_groups_every_step_and_every_array_is_there(kind):
    model = small_model(kind)
    graph, beside = graph_of(model, depth=None)
    steps = write_out(model).steps
    values = {node for node, box in graph.nodes.data("box") if box.kind == "value"}
    assert values == {step.output for step in steps}
    outputs = {step.output for step in steps}
    read = {(name, step.output) for step in steps for name in step.inputs if name in outputs}
    assert {(u, v) for u, v in graph.edges if u in values} == read
    sources = [box for _, box in graph.nodes.data("box") if box.kind != "value"]
    sources += [box for boxes in beside.values() for box in boxes]
    n_params = sum(len(box.lines) for box in sources if box.kind == "parameter")
    buffers = getattr(model, "buffers", ())
    assert n_params == len(tree_flatten(model.init(np.random.default_rng(0)))) - len(buffers)


def test_groups_of_every_model_have_no_circles():
    for name in SMALL_MODELS:
        graph, _ = graph_of(named_model(name))
        assert nx.is_directed_acyclic_graph(graph), name


def test_shapes_are_those_of_the_model(midpg):
    graph, beside = graph_of(midpg, depth=None)
    assert [box.lines for box in beside["z"]] == [("W (6, 1)", "b (1)")]
    lines = {node: box.lines for node, box in graph.nodes.data("box")}
    d_r, d_c = midpg.layers["layer_1"].weighting.d_r, midpg.layers["layer_1"].weighting.d_c
    assert lines["X"] == ("(B, 6)",) and lines["loss"] == ("one number",)
    assert lines["layer_1.Q"] == (f"(B, {d_r}, {d_c})",)
    assert lines["layer_1.SW"] == ("(B, 6, 12)",) and lines["logit"] == ("(B)",)
    assert [box.lines for box in beside["layer_1.SW"]] == [("layer_1.W (6, 12)",)]
    assert [(box.kind, box.lines) for box in beside["ce"]] == [("given", ("label (B)",))]


def test_a_layer_is_one_box_that_says_what_it_hands_on(midpg):
    graph, beside = graph_of(midpg)
    assert set(graph) == {
        *("rows", "X", "E_aw", "layer_1", "H_2", "layer_2", "H_3", "z", "mi", "logit"),
        *("ce", "loss"),
    }
    assert set(graph.predecessors("mi")) == {"E_aw", "layer_1", "layer_2"}
    box = graph.nodes["layer_1"]["box"]
    own = [step for step in write_out(midpg).steps if step.output.startswith("layer_1.")]
    assert box.title == f"layer_1: {len(own)} steps"
    assert [line.split()[0] for line in box.lines] == ["Q", "A"]
    params = tree_flatten(midpg.init(np.random.default_rng(0)))
    of_layer = [p for path, p in params.items() if path.startswith("layer_1.")]
    (shown,) = beside["layer_1"]
    assert shown.lines == (
        f"{len(of_layer)} arrays,",
        f"{sum(p.size for p in of_layer):,} numbers",
    )


def test_depth_two_divides_a_layer(midpg):
    graph, _ = graph_of(midpg, depth=2)
    assert {"layer_1.U", "layer_1.Q", "layer_1.row_generator", "mi.layer_1"} <= set(graph)
    assert "layer_1.row_generator.output" not in graph


@pytest.mark.parametrize(
    ("kind", "depth"), [("ple", 2), pytest.param("midpg", None, marks=pytest.mark.slow)]
)
def test_boxes_are_legible_and_no_arrow_passes_one(kind, depth):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    model = small_model(kind)
    graph, beside = graph_of(model, depth)
    figure = plot_graph(model, depth=depth)
    frames, ways = boxes(figure), arrows(figure)
    n_beside = sum(map(len, beside.values()))
    assert set(graph) <= set(frames) and len(frames) == len(graph) + n_beside
    assert {f"{u} -> {v}" for u, v in graph.edges} <= set(ways)
    corners = {name: extent(frame) for name, frame in frames.items()}
    for name, (low, high) in corners.items():
        for other, (its_low, its_high) in corners.items():
            assert name == other or (low >= its_high).any() or (high <= its_low).any()
    for gid, arrow in ways.items():
        u, v = gid.split(" -> ")
        (points,) = arrow.get_path().to_polygons(closed_only=False)[:1]
        assert points[-1][1] <= points[0][1] + 1e-9
        for name in set(corners) - {u, v}:
            low, high = corners[name]
            assert not ((points > low) & (points < high)).all(axis=1).any(), (gid, name)
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = figure.axes[0].transData.inverted()
    for text in figure.axes[0].texts:
        low, high = inside.transform(text.get_window_extent(renderer))
        hit = [c for c in corners.values() if (low < c[1]).all() and (high > c[0]).all()]
        assert all((low >= c[0]).all() and (high <= c[1]).all() for c in hit), text.get_text()


def test_kinds_differ_by_shape_shade_and_dashes(midpg, tmp_path):
    figure = plot_graph(midpg, tmp_path / "g.png")
    frames = boxes(figure)
    value, parameter, given = (
        frames[name] for name in ("layer_1", "parameter: layer_1", "given: ce")
    )
    assert type(value.get_boxstyle()) is not type(parameter.get_boxstyle())
    assert value.get_facecolor() != parameter.get_facecolor()
    assert value.get_linestyle() != given.get_linestyle()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"computed", "parameters", "given", "B: rows of the batch"} <= set(texts)
    assert "no gradient comes back" not in texts
    assert_png(tmp_path / "g.png")


def test_an_arrow_to_a_stop_gradient_is_dashed():
    model = small_model("midpg", dwm_detach_h=True)
    graph, _ = graph_of(model, depth=None)
    stopped = [v for _, v, is_stop in graph.edges.data("is_stop") if is_stop]
    assert stopped == ["layer_1.sg_H", "layer_2.sg_H"]
    figure = plot_graph(model, depth=None)
    dashed = [gid for gid, arrow in arrows(figure).items() if arrow.get_linestyle() == "--"]
    assert sorted(dashed) == ["H_2 -> layer_2.sg_H", "X -> layer_1.sg_H"]
    assert "no gradient comes back" in [text.get_text() for text in figure.axes[0].texts]


def test_depth_must_be_a_number_of_parts(midpg):
    with pytest.raises(ValueError, match="depth must be at least 1, or None for every step; got 0"):
        plot_graph(midpg, depth=0)


def test_only_models_whose_steps_are_written_out():
    with pytest.raises(TypeError, match=r"draws the models of MODELS, .* got str"):
        plot_graph("midpg")


def test_a_missing_networkx_names_the_extra(midpg, monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"plot_graph needs networkx.*install the extra 'app'"):
        plot_graph(midpg)
