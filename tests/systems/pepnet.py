"""PEPNet: the options of derivations 7.2."""

import numpy as np

from midpg_np.batch import Batch
from midpg_np.layers.blocks import BLOCK_FORMS
from midpg_np.layers.fields import pick_fields
from midpg_np.layers.gate import Gate
from midpg_np.layers.gated_tower import GatedTower
from midpg_np.layers.groups import group_rows
from midpg_np.models.pepnet import PEPNet
from systems.system import System


def owned(model):
    """Towers, and the blocks of their gates."""
    if not model.routes_by_scenario:
        return ()
    return ("ppnet.layer_", *(f"ppnet.{gate}.layer_2" for gate in model.ppnet.gates))


SYSTEM = System(
    "pepnet",
    {"gate_hidden": 3},
    {
        "gate_at": ("hidden_output", "layer_input"),
        "towers": ("shared", "per_scenario"),
        "ep_input": ("all", "agnostic"),
        "prior_fields": ((), (2, 0), (1,)),
        "prior_scenario": (False, True),
        "gate_hidden": (3, None),
        "gamma": (2.0, 1.5),
    },
    combinations={
        "tanh": {"activation": "tanh"},
        "towers layer_input": {"towers": "per_scenario", "gate_at": "layer_input"},
        "towers agnostic": {"towers": "per_scenario", "ep_input": "agnostic"},
        "prior with scenario": {"prior_fields": (1, 2), "prior_scenario": True},
        "all agnostic inputs": {"ep_input": "agnostic", "gate_at": "layer_input"},
    },
    owned=owned,
    stopped=(
        {},
        {"gate_at": "layer_input"},
        {"ep_input": "agnostic"},
        {"towers": "per_scenario"},
        {"prior_fields": (0, 2), "prior_scenario": True},
    ),
)


def zeros(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def blocks(form):
    inputs = zeros(H=(7, 4), W=(5, 4, 6), b=(5, 6))
    groups = group_rows(np.array([3, 0, 0, 1, 0, 3, 1]), 5)
    return inputs | {"A": BLOCK_FORMS[form].forward(**inputs, groups=groups)[0]}


def gate():
    layer, U = Gate(5, 4, hidden=3), np.zeros((7, 5))
    delta, cache = layer.forward(layer.init(np.random.default_rng(1)), U)
    return cache._asdict() | {"U": U, "delta": delta}


def gated():
    layer, U, x = Gate(5, 4, hidden=3), np.zeros((7, 5)), np.zeros((7, 4))
    return {"U": U, "x": x, "y": layer.times(layer.init(np.random.default_rng(1)), U, x)[0]}


def tower():
    layer, inputs = GatedTower((6, 3, 2), 5), zeros(O=(7, 6), U=(7, 5))
    return inputs | {"y": layer.forward(layer.init(np.random.default_rng(1)), **inputs)[0]}


def model_cache():
    model = PEPNet((3, 5, 4), 2, 4, 2, (12,), ep_input="agnostic", prior_fields=(1, 2))
    batch = Batch(np.zeros((9, 3), int), np.zeros(9, int), np.zeros(9))
    return model.forward(model.init(np.random.default_rng(1)), batch)[1].network._asdict()


SHAPES = {
    "layers.blocks.own_block": lambda: blocks("grouped"),
    "layers.blocks.all_blocks": lambda: blocks("textbook"),
    "layers.fields.pick_fields": lambda: (
        {"B": 7, "F": 3, "k": 5, "P": 2, "X": np.zeros((7, 15))}
        | {"E_prior": pick_fields(np.zeros((7, 15)), (2, 0), 3)[0]}
    ),
    "layers.gate.GateCache": gate,
    "layers.gate.Gate.forward": gate,
    "layers.gate.Gate.times": gated,
    "layers.gated_tower.GatedTower.forward": tower,
    "models.pepnet.PEPNetCache": model_cache,
}
