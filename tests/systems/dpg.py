"""DPG: options of derivations 3.8 that concern the weighting."""

from systems.system import System

# 6 -> 12 -> 6 -> 1 with cores (2, 6) and (4, 3): d_m != d_n, f_r = 3, f_c = 2, d_k = 2.
SMALL = {"row_divisor": 3, "col_divisor": 2, "d_k": 2, "generator_hidden": (4,)}
MODULATED = {
    "variant": ("r", "c", "rc", "non"),
    "form": ("grouped", "row", "column", "textbook"),
    "repeat_mode": ("block", "tile"),
    "w_layout": ("in_out", "out_in"),
    "sigmoid_on": ("product", "factors"),
    "gain": (1.0, 2.0),
    "dwm_inputs": ("both", "aw_only"),
    "dedup_first": (False, True),
    "dwm_detach_h": (False, True),
    "modulate_output": (False, True),
    "modulate_bias": (False, True),
}


def repair(options):
    """A modulated output has a single column, so no rank above 1."""
    return options | {"d_k": 1} if options["modulate_output"] else options


SYSTEM = System("dpg", SMALL, MODULATED, repair=repair, stopped=({"dwm_detach_h": True},))
