"""One file per model; ``SYSTEMS`` has them all, so that every model runs every common test."""

from importlib import import_module

from midpg_np.models import MODELS

SYSTEMS = {kind: import_module(f"systems.{kind}").SYSTEM for kind in MODELS}
