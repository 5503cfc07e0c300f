"""APG in full: the factors U and V multiplied out, a core per row (derivations 9.1)."""

from __future__ import annotations

from midpg_np.layers.low_rank_layer import LowRankLayer
from midpg_np.models.apg import APG
from midpg_np.verify.longhand.apg_rules import CORE_PRODUCT, PRODUCT_WITH_TRANSPOSE
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss, write_mlp
from midpg_np.verify.longhand.rules import (
    ADD,
    AFFINE,
    CONCAT,
    MATMUL,
    activation,
    columns,
    reshape,
)


def apg(model: APG, *, training: bool = True) -> Calculation:
    """Write out a step of APG; a prediction is the same calculation."""
    do = Sheet()
    H = write_embedding(do, model)
    if model.condition != "self":
        do("E_aw", columns(0, model.dim_aware), H, eq="9.1b")
    for i, (name, layer) in enumerate(model.layers.items(), start=1):
        z = do(f"{name}.z", CONCAT, *_read_by_generators(model, H), eq="9.1b")
        A = _write_layer(do, name, layer, H, z)
        H = do(f"H_{i + 1}", activation(model.activation), A, eq="9.1b")
    out = do("head.output", AFFINE, H, "head.W", "head.b", eq="9.1b")
    write_loss(do, model, out)
    return finish(do, model)


def _read_by_generators(model: APG, H: str) -> tuple[str, ...]:
    """Return the parts of the condition of a layer with input H."""
    return {"group": ("E_aw",), "self": (H,), "mix": ("E_aw", H)}[model.condition]


def _write_layer(do: Sheet, name: str, layer: LowRankLayer, H: str, z: str) -> str:
    """Write A = U S V H + b of every row, and return its name.

    ``name.Q`` (B, K) is V H, ``name.R`` (B, K) is S Q, and ``name.product`` (B, O) is U R.
    """
    if layer.over_rank is not None:
        for factor in ("U", "V"):
            path = f"{name}.{factor}"
            do(path, MATMUL, f"{path}_left", f"{path}_right", eq="9.1c")
    s = write_mlp(do, f"{name}.generator", f"{name}.generator", layer.generator, z, eq="9.1b")
    do(f"{name}.S", reshape(layer.rank, layer.rank), s, eq="9.1b")
    do(f"{name}.Q", PRODUCT_WITH_TRANSPOSE, H, f"{name}.V", eq="9.1b")
    do(f"{name}.R", CORE_PRODUCT, f"{name}.S", f"{name}.Q", eq="9.1b")
    do(f"{name}.product", PRODUCT_WITH_TRANSPOSE, f"{name}.R", f"{name}.U", eq="9.1b")
    b = f"{name}.b"
    if layer.generate_bias:
        network = f"{name}.bias_generator"
        b = write_mlp(do, network, network, layer.bias_generator, z, eq="9.1d")
    return do(f"{name}.A", ADD, f"{name}.product", b, eq="9.1b")
