"""PLE: levels, counts of experts, who is mixed into the shared stream, and both forms."""

import numpy as np

from midpg_np.layers.candidates import Candidates, own_rows
from midpg_np.layers.expert_gates import EveryGate, OwnGate
from midpg_np.layers.experts import routed_affine, stacked_affine
from midpg_np.layers.extraction import Extraction
from midpg_np.layers.groups import group_rows
from midpg_np.layers.shared_gate import OwnSharedGate, SharedGate
from systems.system import System


def last(model):
    return f"level_{len(model.expert_layers)}"


def single_candidate(model):
    return model.n_specific + model.n_shared == 1


def is_routed(model):
    """Whether scenarios meet in shared experts (and embeddings) only."""
    return model.shared_gate_scope == "own" or model.n_shared == 0


def owned(model):
    """Towers and the last level; gates one level further down, since only own rows read those.

    Where the shared stream mixes own experts only, that holds at every level.
    """
    paths = ["tower."]
    for name, level in model.levels.items():
        n_above = list(model.levels)[::-1].index(name)
        if is_routed(model) or n_above == 0:
            paths.append(f"{name}.specific.")
        if (is_routed(model) or n_above <= 1) and not single_candidate(model):
            paths.append(f"{name}.specific_gate.")
        if is_routed(model) and level.shared_gate != "none":
            paths.append(f"{name}.shared_gate.specific.")
    return tuple(paths)


def structural_zeros(model):
    """The weight of a single candidate is 1, whatever the gate says."""
    if not single_candidate(model):
        return set()
    keys = ("W", "b") if model.gate_bias else ("W",)
    return {f"{name}.specific_gate.{key}" for name in model.levels for key in keys}


def grows(model):
    """All experts for all rows, below a shared gate that mixes the experts of all scenarios."""
    return model.form == "textbook" or (not is_routed(model) and len(model.expert_layers) > 1)


SYSTEM = System(
    "ple",
    # 6 -> 5 -> 7 -> 8 -> 1: experts and towers of distinct widths.
    {"hidden": (5, 7, 8)},
    {
        "activation": ("relu", "tanh"),
        "expert_layers": ((1, 1), (2,), (1,), (1, 1, 1), (2, 1)),
        "n_specific": (1, 2, 3),
        "n_shared": (1, 2, 0),
        "shared_gate_scope": ("all", "own"),
        "gate_bias": (True, False),
        "form": ("grouped", "textbook"),
    },
    combinations={
        "three levels textbook": {"expert_layers": (1, 1, 1), "form": "textbook"},
        "three levels own": {"expert_layers": (1, 1, 1), "shared_gate_scope": "own"},
        "stride": {"n_specific": 2, "n_shared": 3, "expert_layers": (1, 1, 1)},
        "stride own": {"n_specific": 2, "n_shared": 3, "shared_gate_scope": "own"},
        "own textbook": {"shared_gate_scope": "own", "form": "textbook", "n_specific": 2},
        "own without bias": {"shared_gate_scope": "own", "gate_bias": False},
        "separate": {"n_specific": 2, "n_shared": 0, "form": "textbook"},
    },
    owned=owned,
    structural_zeros=structural_zeros,
    grows=grows,
)


# B = 7 rows of M = 3 among D = 5 scenarios, m_k = 2 and m_s = 4: C = 6 own of E = 14 experts.
COUNTS = Candidates(5, 2, 4)


def groups():
    return group_rows(np.array([0, 0, 0, 1, 1, 3, 3]), 5)


def zeros(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def stacked(n_inputs):
    inputs = zeros(H=(n_inputs, 7, 4), W=(8, 4, 6), b=(8, 6))
    return inputs | {"A": stacked_affine(**inputs)[0]}


def routed():
    inputs = zeros(H=(8, 7, 4), W=(3, 8, 4, 6), b=(3, 8, 6))
    return inputs | {"A": routed_affine(**inputs, groups=groups())[0]}


def gate(kind, n_candidates, *streams):
    layer, inputs = kind(COUNTS, 3), zeros(G=(*streams, 7, 3), S=(7, n_candidates, 8))
    params = layer.init(np.random.default_rng(1))
    return inputs | {"g": layer.forward(params, *inputs.values(), groups())[0]}


def extraction():
    layer, inputs = Extraction(COUNTS, (3, 8)), zeros(G=(5, 7, 3), G_s=(7, 3))
    return inputs, layer.forward(layer.init(np.random.default_rng(1)), *inputs.values(), groups())[
        1
    ]


SHAPES = {
    "layers.experts.stacked_affine": lambda: stacked(8),
    "layers.experts.routed_affine": routed,
    "layers.candidates.Candidates.of_scenario": lambda: (
        zeros(S=(7, 14, 8)) | {"S_k": COUNTS.of_scenario(np.zeros((7, 14, 8)), 1)}
    ),
    "layers.candidates.own_rows": lambda: (
        zeros(G=(5, 7, 8)) | {"g": own_rows(np.zeros((5, 7, 8)), groups())}
    ),
    "layers.expert_gates.OwnGate.forward": lambda: gate(OwnGate, 6),
    "layers.expert_gates.EveryGate.forward": lambda: gate(EveryGate, 14, 5),
    "layers.shared_gate.SharedGate.forward": lambda: gate(SharedGate, 14),
    "layers.shared_gate.OwnSharedGate.forward": lambda: gate(OwnSharedGate, 6),
    "layers.extraction.Extraction.forward": lambda: extraction()[0],
    "layers.extraction.ExtractionCache": lambda: extraction()[1]._asdict(),
}
