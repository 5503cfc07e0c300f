"""Cases of experts, gates and extraction levels (derivations 5)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, pair_case
from midpg_np.checks.catalogue.scenarios import N_SCENARIOS, groups_like
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.candidates import Candidates, own_rows, own_rows_backward
from midpg_np.layers.expert_gates import EveryGate, OwnGate
from midpg_np.layers.experts import (
    Experts,
    routed_affine,
    routed_affine_backward,
    stacked_affine,
    stacked_affine_backward,
)
from midpg_np.layers.extraction import Extraction
from midpg_np.layers.shared_gate import OwnSharedGate, SharedGate

COUNTS = Candidates(N_SCENARIOS, n_specific=2, n_shared=1)


def _widths(sizes: Sizes) -> tuple[int, int]:
    """Input and output width of an expert: never equal, and small, because experts are many."""
    return sizes.d_c + 1, sizes.d_c


# What a level may evaluate, for which shared gate: (experts, gates, shared gate).
PASSES = [
    *(("all", gates, shared) for gates in ("all", "own") for shared in ("all", "own", "none")),
    *(("own", "own", shared) for shared in ("own", "none")),
]


def extraction_name(experts: str, gates: str, shared_gate: str) -> str:
    """Name of the case of a level."""
    return f"extraction experts {experts} gates {gates} shared {shared_gate}"


def _stacked(n_inputs: int, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "H": rng.normal(size=(n_inputs, sizes.B, sizes.d_m)),
        "W": rng.normal(size=(3, sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=(3, sizes.d_n)),
    }
    name = "stacked_affine" + (" one input" if n_inputs == 1 else "")
    return pair_case(name, inputs, stacked_affine, stacked_affine_backward)


def _routed(n_inputs: int, sizes: Sizes, rng: np.random.Generator) -> Case:
    n_present = len(groups_like(np.zeros(1), sizes.B).present)
    inputs = {
        "H": rng.normal(size=(n_inputs, sizes.B, sizes.d_m)),
        "W": rng.normal(size=(n_present, 3, sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=(n_present, 3, sizes.d_n)),
    }

    def forward(H: Array, W: Array, b: Array) -> tuple[Array, Any]:
        return routed_affine(H, W, b, groups_like(H, sizes.B))

    name = "routed_affine" + (" one input" if n_inputs == 1 else "")
    return pair_case(name, inputs, forward, routed_affine_backward)


def _own_rows(sizes: Sizes, rng: np.random.Generator) -> Case:
    def forward(G: Array) -> tuple[Array, Any]:
        groups = groups_like(G, sizes.B)
        return own_rows(G, groups), groups

    inputs = {"G": rng.normal(size=(N_SCENARIOS, sizes.B, sizes.d_n))}
    return pair_case("own_rows", inputs, forward, own_rows_backward)


def _candidates(sizes: Sizes, rng: np.random.Generator) -> Case:
    def forward(S: Array) -> tuple[Array, Any]:
        groups = groups_like(S, sizes.B)
        return COUNTS.of_own_rows(S, groups), groups

    inputs = {"S": rng.normal(size=(sizes.B, COUNTS.n_all, sizes.d_n))}
    return pair_case("expert_candidates", inputs, forward, COUNTS.of_own_rows_backward)


def _routed_case(
    name: str, layer: Any, inputs: dict[str, np.ndarray], n_rows: int, rng: np.random.Generator
) -> Case:
    """Case of a layer ``forward(params, *inputs, groups)``, with rows sorted by scenario."""

    def run(tree: Any, frozen: object) -> tuple[tuple[Array, ...], Any]:
        arguments = [tree[key] for key in inputs]
        y, cache = layer.forward(tree["params"], *arguments, groups_like(arguments[0], n_rows))
        y = y if isinstance(y, tuple) else (y,)
        return tuple(part for part in y if part is not None), cache

    def adjoint(d_outputs: tuple[Array, ...], cache: Any) -> Any:
        if isinstance(layer, Extraction):
            d_outputs = (*d_outputs, None)[:2]  # there may be no shared stream
        *d_inputs, grads = layer.backward(*d_outputs, cache)
        return dict(zip(inputs, d_inputs, strict=True)) | {"params": dense_gradients(grads)}

    def kinks(cache: Any) -> dict[str, Array]:
        return {f"params.{path}": A for path, A in layer.kinks(cache).items()}

    params = perturbed(layer.init(rng), rng)
    return Case(
        name, inputs | {"params": params}, run, adjoint, kinks if hasattr(layer, "kinks") else None
    )


def _experts(kind: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    n_scenarios, rows = {"shared": (None, "all"), "own": (5, "own"), "all": (5, "all")}[kind]
    dim_in, dim_out = _widths(sizes)
    layer = Experts(2, (dim_in, dim_out, 4), n_scenarios, "relu", rows)
    shape = (N_SCENARIOS, 1, sizes.B, dim_in) if kind == "all" else (1, sizes.B, dim_in)
    return _routed_case(f"experts {kind}", layer, {"H": rng.normal(size=shape)}, sizes.B, rng)


def _gate(kind: str, bias: bool, sizes: Sizes, rng: np.random.Generator) -> Case:
    dim_in, dim_out = _widths(sizes)
    layer = {
        "own": OwnGate(COUNTS, dim_in, bias),
        "every": EveryGate(COUNTS, dim_in, bias),
        "shared all": SharedGate(COUNTS, dim_in, bias),
        "shared own textbook": SharedGate(COUNTS, dim_in, bias, own=True),
        "shared own": OwnSharedGate(COUNTS, dim_in, bias),
    }[kind]
    n_candidates = COUNTS.n_own if kind in ("own", "shared own") else COUNTS.n_all
    n_streams = (N_SCENARIOS,) if kind == "every" else ()
    inputs = {
        "G": rng.normal(size=(*n_streams, sizes.B, dim_in)),
        "S": rng.normal(size=(sizes.B, n_candidates, dim_out)),
    }
    name = f"expert_gate {kind}" + ("" if bias else " without bias")
    return _routed_case(name, layer, inputs, sizes.B, rng)


def _extraction(
    experts: str, gates: str, shared_gate: str, sizes: Sizes, rng: np.random.Generator
) -> Case:
    layer = Extraction(
        COUNTS,
        _widths(sizes),
        shared_gate=shared_gate,
        experts=experts,
        gates=gates,
    )
    streams = (N_SCENARIOS,) if experts == "all" else ()
    inputs = {
        "G": rng.normal(size=(*streams, sizes.B, layer.dims[0])),
        "G_s": rng.normal(size=(sizes.B, layer.dims[0])),
    }
    return _routed_case(extraction_name(experts, gates, shared_gate), layer, inputs, sizes.B, rng)


BUILDERS: list[Builder] = [
    *(partial(build, n_inputs) for build in (_stacked, _routed) for n_inputs in (1, 3)),
    _own_rows,
    _candidates,
    *(partial(_experts, kind) for kind in ("shared", "own", "all")),
    *(
        partial(_gate, kind, bias)
        for kind in ("own", "every", "shared all", "shared own textbook", "shared own")
        for bias in (True, False)
    ),
    *(partial(_extraction, *passes) for passes in PASSES),
]
