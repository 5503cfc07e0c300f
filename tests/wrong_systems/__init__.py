"""Mistakes by model, one file each; every check must reject every one of them.

``WRONG`` holds layers with a wrong backward, ``WRONG_MODELS`` whole models with a wrong backward,
``WRONG_FORWARDS`` models whose wrong forward has a backward that fits it: no gradient check can
see those, only values from elsewhere can.
"""

import pkgutil
from importlib import import_module

_FILES = [import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]

WRONG = {key: value for file in _FILES for key, value in getattr(file, "WRONG", {}).items()}
WRONG_MODELS = {
    key: value for file in _FILES for key, value in getattr(file, "WRONG_MODELS", {}).items()
}
WRONG_FORWARDS = {
    key: value for file in _FILES for key, value in getattr(file, "WRONG_FORWARDS", {}).items()
}
