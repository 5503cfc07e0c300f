"""The computation graph of a model: what is computed from what, in which shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from math import prod
from typing import Any

import numpy as np

from midpg_np.plots.boxes import Box, draw_boxes
from midpg_np.plots.style import save

# Rows of two batches: a length that is 5 in one and 7 in the other is B.
N_ROWS = (5, 7)
MOST_LINES = 4


def plot_graph(model: Any, path: Any = None, depth: int | None = 1) -> Any:
    """Draw the computation graph of a model's training step, with the shapes of its arrays.

    The steps are those of the model written out (``verify.longhand.write_out``): DPG builds every
    weighting matrix here, and PLE passes every row through every expert.  Boxes with round corners
    are computed, grey ones are parameters, dashed ones are given; B is the number of rows.  An
    arrow that is dashed ends the gradient: it leads to a stop-gradient.

    Parameters
    ----------
    model : Model
        A model of ``MODELS``.
    path : path or file, optional
        Where to save the picture (PNG).
    depth : int or None
        Steps whose names agree in so many parts share a box: with 1 all of "layer_1." does, with
        2 all of "layer_1.row_generator.".  None draws every step.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If ``depth`` is below 1.
    TypeError
        If the model is none of ``MODELS``.
    ImportError
        If matplotlib or networkx is missing.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth must be at least 1, or None for every step; got {depth}.")
    figure = draw_boxes(*graph_of(model, depth))
    save(figure, path)
    return figure


def graph_of(model: Any, depth: int | None = 1) -> tuple[Any, dict[str, list[Box]]]:
    """Return the graph of the boxes and the boxes that stand beside one.

    Returns
    -------
    graph : networkx DiGraph
        Nodes by name, each with ``box``; edges with ``is_stop``.
    beside : dict of name to list of Box
        Parameters and given arrays that only this box reads.
    """
    try:
        import networkx as nx
    except ImportError as error:
        raise ImportError(
            "plot_graph needs networkx, which is not installed; install the extra 'app' "
            "(pip install 'midpg_np[app]')."
        ) from error
    from midpg_np.verify.longhand import write_out

    try:
        steps = write_out(model).steps
    except StopIteration:
        raise TypeError(
            f"plot_graph draws the models of MODELS, of which it knows the steps; got "
            f"{type(model).__name__}."
        ) from None
    shapes, given = _shapes(model)

    def group(name: str) -> str:
        return ".".join(name.split(".")[:depth])

    members: dict[str, list[Any]] = {}
    for step in steps:
        members.setdefault(group(step.output), []).append(step)
    home = {step.output: group(step.output) for step in steps}
    graph = nx.DiGraph()
    for name, own in members.items():
        graph.add_node(name, box=_value_box(name, own, steps, shapes))
    readers: dict[str, list[str]] = {}
    for step in steps:
        here = home[step.output]
        for name in step.inputs:
            if name not in home:
                readers.setdefault(name, [])
                readers[name] += [here] if here not in readers[name] else []
            elif home[name] != here:
                is_stop = step.rule.is_stop and len(members[here]) == 1
                graph.add_edge(home[name], here, is_stop=is_stop)
    return graph, _add_sources(graph, readers, shapes, given, group)


def _shapes(model: Any) -> tuple[dict[str, tuple[Any, ...]], set[str]]:
    """Return the shape of every quantity, and the names of what is given and no parameter."""
    from midpg_np.tree import tree_flatten
    from midpg_np.verify.case_batch import case_batch
    from midpg_np.verify.longhand import write_out

    params = tree_flatten(model.init(np.random.default_rng(0)))
    found = []
    for n_rows in N_ROWS:
        batch, draws = case_batch(model, np.random.default_rng(0), n_rows)
        given = {"codes": batch.codes, "scenario": batch.scenario, "label": batch.label, **draws}
        values = write_out(model).run(given | params)
        found.append({name: np.shape(value) for name, value in values.items()})
    shapes = {
        name: tuple(a if a == b else "B" for a, b in zip(few, found[1][name], strict=True))
        for name, few in found[0].items()
    }
    return shapes, {*given, *getattr(model, "buffers", ())}


def _value_box(
    name: str, own: Sequence[Any], steps: Sequence[Any], shapes: Mapping[str, tuple[Any, ...]]
) -> Box:
    """Return a box that says what a group of steps hands on."""
    outputs = [step.output for step in own]
    if len(outputs) == 1:
        return Box("value", outputs[0], (_text(shapes[outputs[0]]),))
    inside = {n for step in own for n in step.inputs}
    outside = {n for step in steps if step.output not in outputs for n in step.inputs}
    leaving = [n for n in outputs if n in outside or n not in inside]
    title = f"{name}: {len(own)} steps"
    if leaving == [name]:
        return Box("value", title, (_text(shapes[name]),))
    lines = [_named(n.removeprefix(f"{name}."), shapes[n]) for n in leaving]
    return Box("value", title, _few(lines))


def _add_sources(
    graph: Any,
    readers: Mapping[str, list[str]],
    shapes: Mapping[str, tuple[Any, ...]],
    given: set[str],
    group: Callable[[str], str],
) -> dict[str, list[Box]]:
    """Add a node for what several boxes read; return what stands beside the only box to read it."""
    together: dict[tuple[Any, ...], list[str]] = {}
    for name, own in readers.items():
        kind = "given" if name in given else "parameter"
        parent = name.rpartition(".")[0] if group(name) == name else group(name)
        place = "" if len(own) == 1 else parent if kind == "parameter" else name
        together.setdefault((tuple(own), kind, place), []).append(name)
    beside: dict[str, list[Box]] = {}
    for (own, kind, place), names in together.items():
        box = _source_box(kind, place, names, shapes)
        if len(own) == 1:
            beside.setdefault(own[0], []).append(box)
            continue
        node = f"{kind}: {place or names[0]}"
        graph.add_node(node, box=box)
        graph.add_edges_from(((node, reader) for reader in own), is_stop=False)
    return beside


def _source_box(
    kind: str, title: str, names: Sequence[str], shapes: Mapping[str, tuple[Any, ...]]
) -> Box:
    """Return a box of parameters or given arrays, named as far as their paths differ."""
    parents = [name.split(".")[:-1] for name in names]
    is_common = [len(set(parts)) == 1 != len(names) for parts in zip(*parents, strict=False)]
    n_common = len(list(takewhile(bool, is_common)))
    lines = _few([_named(".".join(n.split(".")[n_common:]), shapes[n]) for n in names])
    if kind == "parameter" and len(names) > MOST_LINES:
        total = sum(prod(shapes[name]) for name in names)
        lines = (f"{len(names)} arrays,", f"{total:,} numbers")
    return Box(kind, "" if title in names else title, lines)


def _few(lines: list[str]) -> tuple[str, ...]:
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} more"]
    return tuple(lines)


def _named(name: str, shape: tuple[Any, ...]) -> str:
    return f"{name} {_text(shape)}" if shape else f"{name}: {_text(shape)}"


def _text(shape: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "one number"
