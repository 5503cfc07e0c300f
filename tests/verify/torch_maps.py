"""Name maps of the modules in ``torch_modules``, and the check of one of them."""

import torch
from sizes import small_case

from midpg_np.verify.torch import check


def found(kind, make, names, *, sizes=None, **options):
    """Return the report of a fresh module on a small case."""
    torch.manual_seed(1)
    return check(make(), small_case(kind, **(sizes or {})), names, **options)


def linear(case, module):
    """Map an affine map of the case to an nn.Linear, which keeps its weight out x in."""
    return {
        f"{case}.W": {"name": f"{module}.weight", "transpose": True},
        f"{case}.b": f"{module}.bias",
    }


FIELDS = {"embedding.table": {"concat": [f"fields.tables.{f}.weight" for f in range(3)]}}
PACKED = {"embedding.table": "fields.table.weight"}
DNN = FIELDS | {
    key: value
    for i in range(3)
    for key, value in linear(f"mlp.layer_{i + 1}", f"layers.{2 * i}").items()
}
NETWORK = linear("head", "head")
for i in range(2):
    layer = f"layer_{i + 1}"
    NETWORK |= linear(layer, f"layers.{i}.linear")
    NETWORK |= {f"{layer}.weighting.C_share": f"layers.{i}.share"}
    for j in range(2):
        generator = f"{layer}.weighting.row_generator.layer_{j + 1}"
        NETWORK |= linear(generator, f"layers.{i}.generator.{2 * j}")
        NETWORK |= linear(f"discriminators.{layer}.layer_{j + 1}", f"critics.{i}.{2 * j}")
MIDPG = FIELDS | NETWORK
STAR = FIELDS | {
    "norm.gamma": "norm.gamma",
    "norm.beta": "norm.beta",
    "norm.scenario_gamma": "norm.gammas",
    "norm.scenario_beta": "norm.betas",
    "aux.domain.table": "domain.weight",
    **linear("aux.mlp.layer_1", "small.0"),
    **linear("aux.mlp.layer_2", "small.2"),
}
for i in range(3):
    layer = f"star.layer_{i + 1}"
    STAR |= linear(f"{layer}.shared", f"layers.{i}.shared")
    STAR |= {f"{layer}.scenario.W": f"layers.{i}.weight", f"{layer}.scenario.b": f"layers.{i}.bias"}

HOOKS = {
    "X": "fields",
    "layer_1.row_generator.A_1": "layers.0.generator.0",
    "layer_1.row_generator.output": "layers.0.generator",
    "layer_2.row_generator.output": "layers.1.generator",
    "layer_1.A": "layers.0",
    "layer_2.A": "layers.1",
    "z": "head",
    "mi.layer_1.pos.output": "critics.0[0]",
    "mi.layer_1.neg.output": "critics.0[1]",
    "mi.layer_1.neg.A_1": "critics.0.0[1]",
}
