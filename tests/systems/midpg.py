"""MI-DPG: the options of DPG and those of the regulariser (derivations 3.8)."""

from systems.dpg import MODULATED, SMALL, repair
from systems.system import System

REGULARISED = {
    "disc": ("mlp", "bilinear"),
    "disc_hidden": ((3,), ()),
    "disc_scope": ("per_layer", "concat"),
    "disc_input": ("core", "full", "factors"),
    "mi_reduce": ("mean", "sum"),
    "mi_grad_to": ("all", "disc+gen", "disc"),
    "mi_detach_context": (False, True),
}

SYSTEM = System(
    "midpg",
    SMALL | {"disc_hidden": (3,)},
    {"variant": MODULATED["variant"]} | REGULARISED,
    inherited=MODULATED,
    combinations={
        "textbook full": {"form": "textbook", "disc_input": "full"},
        "tile full": {"repeat_mode": "tile", "disc_input": "full"},
        "output": {"modulate_output": True, "modulate_bias": True},
    },
    repair=repair,
    stopped=(
        {"mi_grad_to": "disc"},
        {"mi_grad_to": "disc+gen"},
        {"mi_grad_to": "disc+gen", "disc_input": "factors"},
        {"mi_detach_context": True},
    ),
)
