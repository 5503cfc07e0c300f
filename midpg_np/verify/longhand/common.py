"""Parts that every model's sheet has: embeddings, MLPs, the loss."""

from __future__ import annotations

from typing import Any

from midpg_np.layers.mlp import MLP
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.rules import (
    AFFINE,
    CROSS_ENTROPY,
    FIRST_COLUMN,
    LOOKUP,
    activation,
    table_rows,
    weighted_sum,
)


def write_embedding(do: Sheet, model: Any) -> str:
    """X: the embeddings of all fields side by side."""
    do("rows", table_rows(model.embedding.offsets), "codes", eq="2.1a")
    return do("X", LOOKUP, "embedding.table", "rows", eq="2.1a")


def write_mlp(do: Sheet, prefix: str, params: str, mlp: MLP, x: str, eq: str = "2.2d") -> str:
    """Write the pre-activations ``prefix.A_1, ...`` and activations ``prefix.H_1, ...``.

    The last affine map has no activation; it is called ``prefix.output``.
    """
    H = x
    for i, name in enumerate(mlp.layer_names, start=1):
        is_last = name == mlp.layer_names[-1]
        A = f"{prefix}.output" if is_last else f"{prefix}.A_{i}"
        do(A, AFFINE, H, f"{params}.{name}.W", f"{params}.{name}.b", eq=eq)
        H = A if is_last else do(f"{prefix}.H_{i}", activation(mlp.activation), A, eq=eq)
    return H


def write_loss(do: Sheet, model: Any, z: str, auxiliary: tuple[str, ...] = ()) -> None:
    """Write the logit (B,), the cross-entropy and the joint loss, from a logit (B, 1).

    ``auxiliary`` names the terms of ``model.auxiliary_weights``, in its order.
    """
    do("logit", FIRST_COLUMN, z)
    do("ce", CROSS_ENTROPY, "logit", "label", eq="2.5a")
    weights = [1.0, *model.auxiliary_weights.values()] if auxiliary else [1.0]
    do("loss", weighted_sum(weights), "ce", *auxiliary, eq="3.3c (8)")


def finish(do: Sheet, model: Any) -> Calculation:
    """Return what was written on the sheet."""
    return Calculation(
        tuple(do.steps), constants=frozenset({"label", *getattr(model, "buffers", ())})
    )
