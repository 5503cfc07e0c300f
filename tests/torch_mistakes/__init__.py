"""How the PyTorch reference carries the mistakes of the catalogue: name -> ``Carrier``."""

from importlib import import_module
from importlib.util import find_spec

from torch_mistakes.carrier import Carrier

FILES = (
    "common",
    "weighting",
    "regulariser",
    "ple",
    "star",
    "pepnet",
    "adasparse",
    "apg",
    "optmsm",
)

CARRIERS: dict[str, Carrier] = {}
for name in FILES:
    if find_spec(f"torch_mistakes.{name}"):
        CARRIERS |= import_module(f"torch_mistakes.{name}").MISTAKES
