"""MI-DPG in PyTorch, from equations.md sections 3.2 and 3.3: DPG and a regulariser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference import dpg
from torch_reference.blocks import Params, core, jensen_shannon, psi, score
from torch_reference.dpg import core_size, modulated_names


def weights(options: Any) -> dict[str, float]:
    """Weight of each auxiliary term in the loss."""
    return {"mi": options.mi_weight}


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and, in training, the regulariser."""
    z, _ = dpg.forward(params, batch, options, trace, training=training)
    if not training:
        return z, {}
    return z, {"mi": mutual_information(params, batch.partner, options, trace)}


def mutual_information(params: Params, partner: Tensor, options: Any, trace: Params) -> Tensor:
    """Return the regulariser of section 3.3, before its weight; ``trace`` is that of ``dpg``."""
    names = modulated_names(options)
    groups = {"all": names} if options.disc_scope == "concat" else {name: [name] for name in names}
    e = trace["E_aw"]
    if options.mi_detach_context or options.mi_grad_to != "all":
        e = e.detach()
    total = torch.zeros((), dtype=e.dtype)
    for group, members in groups.items():
        q = torch.cat([signal(params[name], name, options, trace) for name in members], dim=1)
        disc = params["discriminators"][group]
        t_pos = score(disc, e, q, options.disc)
        t_neg = score(disc, e[partner], q, options.disc)
        trace |= {f"{group}.t_pos": t_pos, f"{group}.t_neg": t_neg}
        total = total + jensen_shannon(t_pos, t_neg)
    return total / len(groups) if options.mi_reduce == "mean" else total


def signal(params: Params, name: str, options: Any, trace: Params) -> Tensor:
    """Return what a discriminator reads of one layer, (B, width) (3.8 rows 17 and 18)."""
    U = trace[f"{name}.U"]
    if options.mi_grad_to == "disc+gen":  # the generator learns, what it reads does not
        U = U.detach()
    d_m, d_n = params["W"].shape
    c = core(params["weighting"], U, *core_size(d_m, d_n, options), options)
    if options.disc_input == "factors":
        q = c.generated
    elif options.disc_input == "full":
        q = psi(c.Q, d_m, d_n, options.repeat_mode).flatten(1)
    else:
        q = c.Q.flatten(1)
    return q.detach() if options.mi_grad_to == "disc" else q
