"""DNN in PyTorch, from derivations 4."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_reference.blocks import Params, lookup, mlp


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    return mlp(params["mlp"], X, options.activation, trace, "mlp").squeeze(1), {}
