"""Weights by scenario in PyTorch: the ways to send each row through the map of its scenario.

*dense* multiplies all rows with the maps of all scenarios and picks; it wins where maps are small.
*grouped* sorts the rows by scenario once and multiplies slices.  Written with split and cat
("split"), much of its time goes into autograd's bookkeeping.  ``functional.grouped_mm`` does it in
one call, but only in float32 and for widths that are multiples of four, and ``torch.compile``
refuses it in float32: here it is an operator of its own, with slices where it cannot be used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Routing(NamedTuple):
    """Rows sorted by scenario.

    Shapes
    ------
    order : (B,)
    scenario : (B,)
        Sorted.
    counts : (D,)
    is_of : (D, B)
        1 where a sorted row belongs to a scenario.
    """

    order: Tensor
    scenario: Tensor
    counts: Tensor
    is_of: Tensor

    def restore(self, z: Tensor) -> Tensor:
        """Put sorted values (B,) back in the order of the batch."""
        return torch.zeros_like(z).scatter(0, self.order, z)


def route(scenario: Tensor, n_scenarios: int, dtype: torch.dtype) -> Routing:
    """Sort rows by scenario."""
    ordered, order = torch.sort(scenario, stable=True)
    is_of = torch.arange(n_scenarios, device=scenario.device)[:, None] == ordered
    return Routing(order, ordered, is_of.sum(1), is_of.to(dtype))


def _has_grouped_mm(H: Tensor, W: Tensor) -> bool:
    """Whether ``grouped_mm`` takes these: float32, and rows of multiples of 16 bytes."""
    return H.dtype == torch.float32 and W.shape[1] % 4 == 0 and W.shape[2] % 4 == 0


def multiply(H: Tensor, W: Tensor, counts: Tensor) -> Tensor:
    """A_(d) = H_(d) W_d."""
    if _has_grouped_mm(H, W):
        return functional.grouped_mm(H, W, offs=counts.cumsum(0).to(torch.int32))
    A = H.new_empty(H.shape[0], W.shape[2])
    sizes = counts.tolist()
    for a_d, h_d, W_d in zip(A.split(sizes), H.split(sizes), W.unbind(), strict=True):
        torch.mm(h_d, W_d, out=a_d)
    return A


def multiply_backward(dA: Tensor, H: Tensor, W: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """dH_(d) = dA_(d) W_d^T, dW_d = H_(d)^T dA_(d)."""
    if _has_grouped_mm(H, W):
        offs = counts.cumsum(0).to(torch.int32)
        dA = dA.contiguous()
        return functional.grouped_mm(dA, W.mT, offs=offs), functional.grouped_mm(
            H.t(), dA, offs=offs
        )
    dH, dW = H.new_empty(H.shape), W.new_empty(W.shape)
    sizes = counts.tolist()
    rows = zip(dH.split(sizes), dA.split(sizes), H.split(sizes), strict=True)
    for (dh_d, da_d, h_d), W_d, dW_d in zip(rows, W.unbind(), dW.unbind(), strict=True):
        torch.mm(da_d, W_d.t(), out=dh_d)
        torch.mm(h_d.t(), da_d, out=dW_d)
    return dH, dW


multiply_op = torch.library.custom_op("relatives::multiply", multiply, mutates_args=())
multiply_backward_op = torch.library.custom_op(
    "relatives::multiply_backward", multiply_backward, mutates_args=()
)


@multiply_op.register_fake
def _(H: Tensor, W: Tensor, counts: Tensor) -> Tensor:
    return H.new_empty(H.shape[0], W.shape[2])


@multiply_backward_op.register_fake
def _(dA: Tensor, H: Tensor, W: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    return H.new_empty(H.shape), W.new_empty(W.shape)


class GroupedProduct(torch.autograd.Function):
    """``multiply`` with its adjoint, under ``torch.compile`` as an operator that is not opened."""

    @staticmethod
    def forward(ctx: Any, H: Tensor, W: Tensor, counts: Tensor) -> Tensor:
        """Return A (B, O)."""
        ctx.save_for_backward(H, W, counts)
        return (multiply_op if torch.compiler.is_compiling() else multiply)(H, W, counts)

    @staticmethod
    def backward(ctx: Any, dA: Tensor) -> Any:
        """Return the adjoints."""
        backward = multiply_backward_op if torch.compiler.is_compiling() else multiply_backward
        return *backward(dA, *ctx.saved_tensors), None


def grouped_affine(H: Tensor, W: Tensor, b: Tensor, routing: Routing) -> Tensor:
    """Affine map with weights by scenario, rows sorted.

    Shapes
    ------
    H : (B, I)
    W : (D, I, O)
    b : (D, O)
    A : (B, O)
    """
    return torch.addmm(GroupedProduct.apply(H, W, routing.counts), routing.is_of.t(), b)


def dense_affine(H: Tensor, W: Tensor, b: Tensor, routing: Routing) -> Tensor:
    """As ``grouped_affine``: all rows through all maps, then each row's own."""
    n_maps, dim_in, dim_out = W.shape
    A = torch.addmm(b.flatten(), H, W.transpose(0, 1).reshape(dim_in, -1))
    own = routing.scenario[:, None, None].expand(-1, 1, dim_out)
    return A.view(-1, n_maps, dim_out).gather(1, own)[:, 0]


def own_dot(H: Tensor, W: Tensor, b: Tensor, routing: Routing) -> Tensor:
    """As ``grouped_affine`` for maps to one number, (B,): all of them, then each row's own."""
    z = torch.addmm(b[:, 0], H, W[:, :, 0].t())
    return z.gather(1, routing.scenario[:, None])[:, 0]


def split_affine(H: Tensor, W: Tensor, b: Tensor, routing: Routing) -> Tensor:
    """As ``grouped_affine``, as one would first write it."""
    parts = zip(H.split(routing.counts.tolist()), W.unbind(), b.unbind(), strict=True)
    return torch.cat([torch.addmm(b_d, h_d, W_d) for h_d, W_d, b_d in parts])


AFFINE_FORMS = {"grouped": grouped_affine, "dense": dense_affine, "split": split_affine}
