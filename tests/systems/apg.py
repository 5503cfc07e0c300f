"""APG: the options of derivations 9.2, and the shapes of its layers."""

import numpy as np

from midpg_np.layers.low_rank import LOW_RANK_FORMS, multiply_out
from midpg_np.layers.low_rank_layer import LowRankLayer
from systems.system import System

# 6 -> 12 -> 6 -> 1, K = 3, P = 5, d_aw = 4: widths that meet in a product are distinct.
SYSTEM = System(
    "apg",
    {"rank": 3, "over_rank": 5},
    {
        "condition": ("group", "self", "mix"),
        "rank": (3, 1, 2),
        "over_rank": (5, 3, None),
        "generator_hidden": ((), (7,)),
        "generate_bias": (False, True),
        "form": ("grouped", "textbook"),
    },
    combinations={
        "mix textbook": {"condition": "mix", "form": "textbook", "over_rank": None},
        "self, all generated": {
            "condition": "self",
            "generate_bias": True,
            "generator_hidden": (7,),
        },
    },
)


def product(form):
    shapes = {"H": (7, 5), "U": (6, 3), "V": (3, 5), "S": (7, 3, 3)}
    inputs = {name: np.zeros(shape) for name, shape in shapes.items()}
    return inputs | {"A": LOW_RANK_FORMS[form].forward(**inputs)[0]}


def over_parameterised():
    left, right = np.zeros((6, 4)), np.zeros((4, 3))
    return {"left": left, "right": right, "U": multiply_out(left, right)[0]}


def layer():
    layer, inputs = LowRankLayer(5, 6, 4, rank=3), {"H": np.zeros((7, 5)), "z": np.zeros((7, 4))}
    A, cache = layer.forward(layer.init(np.random.default_rng(0)), **inputs)
    return inputs | cache._asdict() | {"A": A}


SHAPES = {
    "layers.low_rank.low_rank": lambda: product("grouped"),
    "layers.low_rank.row_weights": lambda: product("textbook"),
    "layers.low_rank.multiply_out": over_parameterised,
    "layers.low_rank_layer.LowRankLayerCache": layer,
    "layers.low_rank_layer.LowRankLayer.forward": layer,
}
