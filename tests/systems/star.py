"""STAR: options of derivations 6.2."""

import numpy as np

from midpg_np.layers.auxiliary_network import AuxiliaryNetwork
from midpg_np.layers.groups import group_mean, group_rows, group_sum, spread
from midpg_np.layers.partitioned_norm import PartitionedNorm
from midpg_np.layers.star_mlp import star_affine
from systems.system import System

# A default eps of 1e-5 bends the function within 0.003, which differences of width 2e-4 feel; that
# of test_star.py is checked with the complex step alone.
SMALL = {"eps": 0.25, "dim_domain": 3, "aux_hidden": (5,)}
OPTIONS = {
    "activation": ("relu", "tanh"),
    "pn": ("partitioned", "none"),
    "specific_init": ("ones", "glorot"),
    "aux": (True, False),
    "aux_norm": (False, True),
    "eps": (0.25, 0.8),
    "momentum": (0.9, 0.5),
    "dim_domain": (3, 1),
    "aux_hidden": ((5,), (), (5, 4)),
}


def owned(model):
    """First axis the scenario."""
    beginnings = [f"star.{name}.scenario." for name in model.star.layer_names]
    beginnings += ["norm.scenario_"] if model.has_norm else []
    if model.aux:
        beginnings += ["aux.domain."] + (["aux.norm.scenario_"] if model.aux_norm else [])
    return tuple(beginnings)


SYSTEM = System(
    "star",
    SMALL,
    OPTIONS,
    combinations={
        "auxiliary normalisation alone": {"pn": "none", "aux_norm": True},
        "star alone": {"pn": "none", "aux": False},
        "no hidden layer": {"hidden": (), "aux_norm": True},
    },
    owned=owned,
    training_differs=lambda model: bool(model.buffers),
)

# B = 7, M = 3, D = 5
GROUPS = group_rows(np.array([3, 0, 0, 1, 0, 3, 1]), 5)


def zeros(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def reduced(function):
    x = np.zeros((7, 4))
    return {"x": x, "y": function(x, GROUPS)}


def spread_rows():
    y = np.zeros((3, 4))
    return {"x": spread(y, GROUPS), "y": y}


def normalised():
    layer, X = PartitionedNorm(5, 4), np.zeros((7, 4))
    params = layer.init(np.random.default_rng(1))
    V, cache = layer.forward(params, X, GROUPS, is_training=True)
    return {"X": X, "V": V} | cache._asdict()


def star_map():
    inputs = zeros(H=(7, 4), W=(4, 6), b=(6,), W_d=(3, 4, 6), b_d=(3, 6))
    return inputs | {"A": star_affine(**inputs, groups=GROUPS)[0]}


def auxiliary():
    layer, X = AuxiliaryNetwork(5, 4), np.zeros((7, 4))
    params = layer.init(np.random.default_rng(1))
    return {"X": X, "z": layer.forward(params, X, GROUPS, is_training=True)[0]}


SHAPES = {
    "layers.groups.group_sum": lambda: reduced(group_sum),
    "layers.groups.group_mean": lambda: reduced(group_mean),
    "layers.groups.spread": spread_rows,
    "layers.partitioned_norm.PartitionedNormCache": normalised,
    "layers.partitioned_norm.PartitionedNorm.forward": normalised,
    "layers.star_mlp.star_affine": star_map,
    "layers.auxiliary_network.AuxiliaryNetwork.forward": auxiliary,
}
