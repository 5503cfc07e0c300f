"""Mistakes in the weighting of a layer, in PyTorch: core, repeat, generators, product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import factor, factor_product, mlp, psi, stop
from torch_reference.dpg import generator_input, modulated, weighted

from torch_mistakes.carrier import Carrier, Tensors, changed, differentiated_as

# --- repeat ---------------------------------------------------------------------------------------


def other_psi(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    return psi(Q, d_m, d_n, "tile" if mode == "block" else "block")


def averaged_copies(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    n_copies = d_m // Q.shape[1] * (d_n // Q.shape[2])
    return psi(changed(Q, lambda dQ: dQ / n_copies), d_m, d_n, mode)


def one_copy(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    """Copies of a detached core, but for those that open their block."""
    S, live = psi(Q.detach(), d_m, d_n, mode), psi(Q, d_m, d_n, mode)
    is_first = torch.zeros_like(S, dtype=torch.bool)
    is_first[:, :: d_m // Q.shape[1], :: d_n // Q.shape[2]] = True
    return torch.where(is_first, live, S)


def other_adjoint(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    return differentiated_as(psi(Q, d_m, d_n, mode), other_psi(Q, d_m, d_n, mode))


# --- core and factors -----------------------------------------------------------------------------


def no_sigmoid(P: Tensor, gain: float) -> Tensor:
    return gain * P


def tanh(P: Tensor, gain: float) -> Tensor:
    return gain * torch.tanh(P)


def gain_inside(P: Tensor, gain: float) -> Tensor:
    return torch.sigmoid(gain * P)


class _DerivativeWithoutGain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, P: Tensor, gain: float) -> Tensor:
        Q = gain * torch.sigmoid(P)
        ctx.save_for_backward(Q)
        return Q

    @staticmethod
    def backward(ctx: Any, dQ: Tensor) -> tuple[Tensor, None]:
        (Q,) = ctx.saved_tensors
        return dQ * Q * (1 - Q), None


def no_derivative(P: Tensor, gain: float) -> Tensor:
    return differentiated_as(gain * torch.sigmoid(P), P)


def sigmoids_of_factors(R: Tensor, C: Tensor) -> Tensor:
    return factor_product(torch.sigmoid(R), torch.sigmoid(C))


def averaged_columns(R: Tensor, C: Tensor) -> Tensor:
    return factor_product(R, changed(C, lambda dC: dC / len(R)))


def averaged_rows(R: Tensor, C: Tensor) -> Tensor:
    return factor_product(changed(R, lambda dR: dR / len(C)), C)


def filled_by_columns(generated: Tensor, rows: int, columns: int) -> Tensor:
    return generated.reshape(len(generated), columns, rows).mT


# --- generators and their input -------------------------------------------------------------------


def context_detached(name: str, E_aw: Tensor, beside: list[Tensor]) -> Tensor:
    return generator_input(name, stop(E_aw), beside)


def second_copy_forgotten(name: str, E_aw: Tensor, beside: list[Tensor]) -> Tensor:
    if name == "layer_1":
        beside = [_first_columns_detached(x, E_aw.shape[1]) for x in beside]
    return generator_input(name, E_aw, beside)


def _first_columns_detached(x: Tensor, n: int) -> Tensor:
    return torch.cat([x[:, :n].detach(), x[:, n:]], dim=1)


def backbone_context_detached(
    params: Any, H: Tensor, S: Tensor, options: Any, trace: Tensors, name: str
) -> Tensor:
    if name == "layer_1":
        H = _first_columns_detached(H, options.n_aware * options.dim_embedding)
    return modulated(params, H, S, options, trace, name)


def linear_generator(params: Any, U: Tensor, trace: Tensors, prefix: str) -> Tensor:
    return mlp(params, U, "identity", trace, prefix)


def rectified(generated: Tensor, rows: int, columns: int) -> Tensor:
    return factor(torch.relu(generated), rows, columns)


# --- product --------------------------------------------------------------------------------------


def added(S: Tensor, W: Tensor) -> Tensor:
    return S + W


def one_matrix(S: Tensor, W: Tensor) -> Tensor:
    return weighted(S.mean(dim=0), W).expand_as(S)


def mean_for_the_gradient(S: Tensor, W: Tensor) -> Tensor:
    return weighted(S, W.detach()) + S.detach().mean(dim=0) * (W - W.detach())


def plain_gradient(S: Tensor, W: Tensor) -> Tensor:
    return weighted(S, W.detach()) + (W - W.detach())


def matrix_detached(S: Tensor, W: Tensor) -> Tensor:
    return weighted(S.detach(), W)


def _blocks(**wrong: Any) -> Carrier:
    return Carrier({f"torch_reference.blocks.{name}": f for name, f in wrong.items()})


def _dpg(**wrong: Any) -> Carrier:
    return Carrier({f"torch_reference.dpg.{name}": f for name, f in wrong.items()})


MISTAKES: dict[str, Carrier] = {
    "core tiled in place of repeated": _blocks(psi=other_psi),
    "adjoint of repeat averaged": _blocks(psi=averaged_copies),
    "adjoint of repeat reads one copy": _blocks(psi=one_copy),
    "adjoint of repeat in the other layout": _blocks(psi=other_adjoint),
    "sigmoid missing on the core": _blocks(core_sigmoid=no_sigmoid),
    "tanh in place of the sigmoid on the core": _blocks(core_sigmoid=tanh),
    "sigmoid on the factors in place of their product": _blocks(
        factor_product=sigmoids_of_factors, core_sigmoid=no_sigmoid
    ),
    "gain forgotten": Carrier(options={"gain": 1.0}),
    "gain inside the core's sigmoid": _blocks(core_sigmoid=gain_inside),
    "sigmoid's derivative without the gain": _blocks(core_sigmoid=_DerivativeWithoutGain.apply),
    "sigmoid's derivative forgotten": _blocks(core_sigmoid=no_derivative),
    "gradient of C_share averaged over the batch": _blocks(factor_product=averaged_columns),
    "gradient of R_share averaged over the batch": _blocks(factor_product=averaged_rows),
    "generated factor filled by columns": _blocks(factor=filled_by_columns),
    "hidden state detached in front of the generators": Carrier(options={"dwm_detach_h": True}),
    "context detached in front of the generators": _dpg(generator_input=context_detached),
    "second copy of the context forgotten": _dpg(generator_input=second_copy_forgotten),
    "context detached in the backbone's input": _dpg(modulated=backbone_context_detached),
    "detach in front of the generators missing": Carrier(options={"dwm_detach_h": False}),
    "generator without its hidden ReLU": _blocks(generator=linear_generator),
    "ReLU behind the generator": _blocks(factor=rectified),
    "weighting matrix added to the weights": _dpg(weighted=added),
    "one weighting matrix for the whole batch": _dpg(weighted=one_matrix),
    "gradient of W with the mean of S": _dpg(weighted=mean_for_the_gradient),
    "gradient of W without S": _dpg(weighted=plain_gradient),
    "weighting matrix detached in the product": _dpg(weighted=matrix_detached),
    "bias weighted though it should not be": Carrier(options={"modulate_bias": True}),
}
