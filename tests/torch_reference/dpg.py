"""DPG in PyTorch, from derivations 3.2.

``trace`` receives the named intermediates: "X", "E_aw", "layer_1.U", "layer_1.Q", ...
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, core, lookup, psi, stop


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) of section 3.2 and no auxiliary terms."""
    H = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    E_aw = trace["E_aw"] = H[:, : options.n_aware * options.dim_embedding]
    for i, name in enumerate(modulated_names(options), start=1):
        beside = beside_context(name, H, options, trace)
        U = trace[f"{name}.U"] = generator_input(name, E_aw, beside)
        d_m, d_n = params[name]["W"].shape
        size = core_size(d_m, d_n, options)
        Q = core(params[name]["weighting"], U, *size, options, trace, name)
        S = trace[f"{name}.S"] = psi(Q, d_m, d_n, options.repeat_mode)
        H = trace[f"{name}.A"] = modulated(params[name], H, S, options, trace, name)
        if name != "head":
            H = trace[f"H_{i + 1}"] = activated(H, options)
    if not options.modulate_output:
        H = trace["z"] = H @ params["head"]["W"] + params["head"]["b"]
    return H.squeeze(1), {}


def modulated_names(options: Any) -> list[str]:
    """Names of the modulated layers, in order (3.8 row 10)."""
    names = [f"layer_{i}" for i in range(1, len(options.hidden) + 1)]
    return [*names, "head"] if options.modulate_output else names


def core_size(d_m: int, d_n: int, options: Any) -> tuple[int, int]:
    """d_r and d_c of a layer; an axis of width 1 cannot be divided."""
    if options.variant == "non":
        return d_m, d_n
    d_r = 1 if d_m == 1 else d_m // options.row_divisor
    d_c = 1 if d_n == 1 else d_n // options.col_divisor
    return d_r, d_c


def beside_context(name: str, H: Tensor, options: Any, trace: Params) -> list[Tensor]:
    """What the generators of a layer read beside E_aw (3.8)."""
    if options.dwm_inputs == "aw_only":
        return []
    if options.dedup_first and name == "layer_1":
        H = trace["E_ag"] = H[:, options.n_aware * options.dim_embedding :]
    if options.dwm_detach_h:
        H = trace[f"{name}.sg_H"] = stop(H)
    return [H]


def generator_input(name: str, E_aw: Tensor, beside: list[Tensor]) -> Tensor:
    """U = [E_aw, H] of a layer."""
    return torch.cat([E_aw, *beside], dim=1)


def modulated(
    params: Params, H: Tensor, S: Tensor, options: Any, trace: Params, name: str
) -> Tensor:
    """A_bj = sum_i S_b,ij W_ij H_bi + b_j; with "out_in" W and S have their outputs first."""
    inputs_first, b = options.w_layout == "in_out", params["b"]
    SW = trace[f"{name}.SW"] = weighted(S, params["W"])
    product = torch.einsum("bij,bi->bj" if inputs_first else "bji,bi->bj", SW, H)
    trace[f"{name}.product"] = product
    if options.modulate_bias:
        mean = trace[f"{name}.S_mean"] = S.mean(dim=1 if inputs_first else 2)
        b = trace[f"{name}.weighted_b"] = mean * b
    return product + b


def weighted(S: Tensor, W: Tensor) -> Tensor:
    """S_b * W of every row."""
    return S * W


def activated(A: Tensor, options: Any) -> Tensor:
    """H^{l+1} = act(A^l)."""
    return ACTIVATIONS[options.activation](A)
