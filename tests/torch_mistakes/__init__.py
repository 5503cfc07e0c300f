"""How the PyTorch reference carries the mistakes of the catalogue: name -> ``Carrier``."""

from torch_mistakes import (
    adasparse,
    apg,
    common,
    network,
    optmsm,
    pepnet,
    ple,
    regulariser,
    star,
    weighting,
)
from torch_mistakes.carrier import Carrier

MODULES = (common, network, weighting, regulariser, apg, optmsm, pepnet, adasparse, ple, star)

CARRIERS: dict[str, Carrier] = {
    name: carrier for module in MODULES for name, carrier in module.MISTAKES.items()
}
