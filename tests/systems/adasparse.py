"""AdaSparse: every option of derivations 8.2."""

import numpy as np

from midpg_np.layers.pruned_layer import PrunedLayer, prune_last
from midpg_np.layers.pruner import Pruner
from midpg_np.layers.schedule import linear_schedule
from midpg_np.layers.sparsity import Sparsity
from systems.system import System

# Thresholds that some rows pass and others do not, also before biases are shifted; an interval
# whose edges are no multiple of 1 / (rows x neurons), so that counts never sit on one; a schedule
# that moves while a test runs; a regulariser large enough to be seen.
SMALL = {
    "beta": 1.3,
    "epsilon": 0.45,
    "alpha_start": 1.5,
    "alpha_end": 4.0,
    "r_min": 0.13,
    "r_max": 0.37,
    "lambda_start": 0.5,
    "lambda_end": 2.0,
    "schedule_steps": 4,
}


def repair(options):
    """How a threshold passes gradients is a question only for the form that has it."""
    if options["prune"] is None and options["binarize_grad"] is not None:
        return options | {"prune": "binarization"}
    return options


def structural_zeros(model):
    """The true derivative of a threshold: pruners learn from nothing."""
    if model.prune != "binarization" or model.binarize_grad != "zero":
        return set()
    return {f"{name}.pruner.{part}" for name in model.layers for part in ("W", "b")}


SYSTEM = System(
    "adasparse",
    SMALL,
    {
        "prune": ("fusion", "scaling", "binarization"),
        "binarize_grad": ("ste", "soft", "zero"),
        "fusion_grad": ("exact", "ste"),
        "prune_input": ("all", "agnostic_only", "none"),
        "ratio": ("batch", "per_sample"),
        "lambda_detach": (False, True),
        "sparsity_weight": (1.0, 0.0),
        "beta": (1.3, 2.0),
        "r_max": (0.37, 0.13),
    },
    combinations={
        "inside the interval": {"r_min": -1.0, "r_max": 1.0},
        "above the interval": {"r_min": -0.9, "r_max": -0.83},
        "below the interval": {"r_min": 1.1, "r_max": 1.3},
        "binarization, per sample": {"prune": "binarization", "ratio": "per_sample"},
        "scaling, detached, per sample": {
            "prune": "scaling",
            "lambda_detach": True,
            "ratio": "per_sample",
        },
        "ste, agnostic fields": {"fusion_grad": "ste", "prune_input": "agnostic_only"},
        "one layer": {"hidden": ()},
    },
    repair=repair,
    training_differs=lambda model: model.prune == "binarization" and model.binarize_grad == "soft",
    not_additive=lambda model: (
        {"sparsity"} if model.sparsity_weight and model.ratio == "batch" else set()
    ),
    structural_zeros=structural_zeros,
    stopped=(
        {"prune": "binarization"},
        {"fusion_grad": "ste"},
        {"lambda_detach": True},
        {"lambda_detach": True, "ratio": "per_sample"},
    ),
)


def keep(name, x):
    return x


def pruner():
    layer, U = Pruner(5, 3), np.zeros((7, 5))
    pi, _ = layer.forward(layer.init(np.random.default_rng(1)), U, 1.0, keep, training=True)
    return {"U": U, "pi": pi}


def pruned_product():
    layer, U, H = Pruner(5, 3), np.zeros((7, 5)), np.zeros((7, 3))
    layer.times(layer.init(np.random.default_rng(1)), U, H, np.ones(1))
    return {"U": U, "H": H}


def pruned_layer():
    layer = PrunedLayer(2, 5, 4, Pruner(7, 3))
    H, E_aw = np.zeros((8, 5)), np.zeros((8, 2))
    A, cache = layer.forward(
        layer.init(np.random.default_rng(1)), H, E_aw, 1.0, keep, training=True
    )
    return {"H": H, "E_aw": E_aw, "A": A}, cache


def pruned_inputs():
    inputs = {"H": np.zeros((7, 5)), "pi": np.zeros((7, 3))}
    return inputs | {"y": prune_last(**inputs)[0]}


def factors():
    pi = np.ones((7, 3))
    Sparsity().forward(pi, 1.0, keep)
    return {"pi": pi}


SHAPES = {
    "layers.schedule.linear_schedule": lambda: {
        "step": np.ones(3),
        "value": linear_schedule(np.ones(3), 0.0, 1.0, 2),
    },
    "layers.pruner.Pruner.forward": pruner,
    "layers.pruner.Pruner.times": pruned_product,
    "layers.pruned_layer.prune_last": pruned_inputs,
    "layers.pruned_layer.PrunedLayerCache": lambda: pruned_layer()[1]._asdict(),
    "layers.pruned_layer.PrunedLayer.forward": lambda: pruned_layer()[0],
    "layers.sparsity.Sparsity.forward": factors,
}
