"""Mistakes that every model can have, in PyTorch: embeddings, the loss, the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import cross_entropy, lookup, table_rows

from torch_mistakes import carrier
from torch_mistakes.carrier import Carrier, Tensors, changed

LEARNING_RATE = 1e-3
predict, step = carrier.predict, carrier.step  # the right ones, while others stand in their place


# --- embeddings -----------------------------------------------------------------------------------


class _LastWins(torch.autograd.Function):
    """Rows of a table; of several places that read one, the last sets its gradient."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows)
        return table[rows].flatten(1)

    @staticmethod
    def backward(ctx: Any, dX: Tensor) -> tuple[Tensor, None]:
        table, rows = ctx.saved_tensors
        d_table = torch.zeros_like(table)
        for row, grads in zip(rows, dX.reshape(*rows.shape, -1), strict=True):
            d_table[row] = grads  # the fields of one example read different rows
        return d_table, None


def overwritten(
    table: Tensor, codes: Tensor, vocab_sizes: tuple[int, ...], trace: Tensors | None = None
) -> Tensor:
    rows = table_rows(codes, vocab_sizes)
    X = _LastWins.apply(table, rows)
    if trace is not None:
        trace |= {"rows": rows, "X": X}
    return X


def without_last_table(
    table: Tensor, codes: Tensor, vocab_sizes: tuple[int, ...], trace: Tensors | None = None
) -> Tensor:
    n = vocab_sizes[-1]
    return lookup(torch.cat([table[:-n], table[-n:].detach()]), codes, vocab_sizes, trace)


# --- loss -----------------------------------------------------------------------------------------


def summed(z: Tensor, y: Tensor, kind: str) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")


def positives_only(z: Tensor, y: Tensor, kind: str) -> Tensor:
    return cross_entropy(z, y, "positive_only")


def labels_exchanged(z: Tensor, y: Tensor, kind: str) -> Tensor:
    return cross_entropy(z, 1 - y, kind)


def of_probabilities(z: Tensor, y: Tensor, kind: str) -> Tensor:
    return cross_entropy(torch.sigmoid(z), y, kind)


def undivided(z: Tensor, y: Tensor, kind: str) -> Tensor:
    return cross_entropy(changed(z, lambda dz: dz * len(z)), y, kind)


def squeezed(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensors]:
    z, auxiliary = predict(*args, **kwargs)
    return z[:, None].squeeze(), auxiliary


def of_one_number(z: Tensor, y: Tensor, kind: str) -> Tensor:
    return cross_entropy(z.reshape(y.shape), y, kind)


# --- optimiser ------------------------------------------------------------------------------------


def without_tables(leaves: Tensors) -> None:
    step({name: leaf for name, leaf in leaves.items() if name != "embedding.table"})


def uphill(leaves: Tensors) -> None:
    torch.optim.Adam(leaves.values(), lr=LEARNING_RATE, maximize=True, foreach=False).step()


def uncorrected_moment(leaves: Tensors) -> None:
    """Adam's first step by hand, with m = (1 - beta_1) g as it is."""
    for leaf in leaves.values():
        if leaf.grad is not None:
            leaf.data -= LEARNING_RATE * 0.1 * leaf.grad / (leaf.grad.abs() + 1e-8)


def uncorrected_epsilon(leaves: Tensors) -> None:
    """Adam's first step by hand; v = (1 - beta_2) g^2 meets epsilon before it is corrected."""
    for leaf in leaves.values():
        if leaf.grad is not None:
            v = 0.001 * leaf.grad**2
            leaf.data -= LEARNING_RATE * 0.001**0.5 * leaf.grad / (v.sqrt() + 1e-8)


def _loss(wrong: Any) -> Carrier:
    return Carrier({"torch_reference.blocks.cross_entropy": wrong})


def _step(wrong: Any) -> Carrier:
    return Carrier({"torch_mistakes.carrier.step": wrong})


MISTAKES: dict[str, Carrier] = {
    "repeated ids overwrite": Carrier({"torch_reference.blocks.lookup": overwritten}),
    "last field's table gets no gradient": Carrier(
        {"torch_reference.blocks.lookup": without_last_table}
    ),
    "loss summed over the batch": _loss(summed),
    "loss of positives only": _loss(positives_only),
    "labels exchanged": _loss(labels_exchanged),
    "sigmoid before a loss on logits": _loss(of_probabilities),
    "gradient of the loss not divided by the batch": _loss(undivided),
    "squeeze without an axis": Carrier(
        {
            "torch_mistakes.carrier.predict": squeezed,
            "torch_reference.blocks.cross_entropy": of_one_number,
        }
    ),
    "embedding not registered with the optimiser": _step(without_tables),
    "step goes uphill": _step(uphill),
    "first moment not corrected for its start": _step(uncorrected_moment),
    "epsilon beside the uncorrected moment": _step(uncorrected_epsilon),
}
