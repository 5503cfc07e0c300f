"""MI-DPG in PyTorch, from derivations 3.2 and 3.3: DPG and a regulariser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference import dpg
from torch_reference.blocks import Params, core, jensen_shannon, mlp, psi, stop
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
        e = trace["mi.sg_E_aw"] = stop(e)
    e_neg = trace["mi.E_neg"] = shuffled(e, partner)
    losses = []
    for group, members in groups.items():
        signals = [signal(params[name], name, options, trace) for name in members]
        q = trace[f"mi.{group}.q"] = torch.cat(signals, dim=1)
        t = {}
        for kind, context in (("pos", e), ("neg", e_neg)):
            at, disc = f"mi.{group}.{kind}", params["discriminators"][group]
            trace[f"{at}.output"] = score(disc, context, q, options, trace, at)
            t[kind] = trace[f"mi.{group}.t_{kind}"] = trace[f"{at}.output"].squeeze(1)
        losses.append(jensen_shannon(t["pos"], t["neg"]))
        trace[f"mi.{group}.loss"] = losses[-1]
    return reduced(losses, options)


def shuffled(e: Tensor, partner: Tensor) -> Tensor:
    """Context of the negative pairs: row b has that of row partner[b]."""
    return e[partner]


def signal(params: Params, name: str, options: Any, trace: Params) -> Tensor:
    """Return what a discriminator reads of one layer, (B, width) (3.8 row 18)."""
    at, source = f"mi.{name}", name
    if options.mi_grad_to == "disc+gen":  # the generator learns, what it reads does not
        source = at
        U = trace[f"{at}.sg_U"] = stop(trace[f"{name}.U"])
        size = core_size(*params["W"].shape, options)
        core(params["weighting"], U, *size, options, trace, source)
    q = trace[f"{at}.signal"] = read(params, name, source, options, trace)
    if options.mi_grad_to == "disc":
        q = trace[f"{at}.sg_signal"] = stop(q)
    return q


def read(params: Params, name: str, source: str, options: Any, trace: Params) -> Tensor:
    """Return the core whose trace begins with ``source``, in one of three forms (3.8 row 17)."""
    if options.disc_input == "factors":
        generators = ("core_generator", "row_generator", "column_generator")
        found = [trace[f"{source}.{g}.output"] for g in generators if g in params["weighting"]]
        return torch.cat(found, dim=1)
    Q = trace[f"{source}.Q"]
    if options.disc_input == "full":
        Q = trace[f"mi.{name}.S"] = psi(Q, *params["W"].shape, options.repeat_mode)
    return Q.flatten(1)


def score(params: Params, e: Tensor, q: Tensor, options: Any, trace: Params, at: str) -> Tensor:
    """Logit t (B, 1) of the pairs (e_b, q_b), matching ones or not."""
    if options.disc == "bilinear":
        return torch.einsum("bi,ij,bj->b", e, params["M"], q)[:, None] + params["b"]
    trace[f"{at}.pair"] = pair(e, q, at)
    return discriminator(params, trace[f"{at}.pair"], trace, at)


def pair(e: Tensor, q: Tensor, at: str) -> Tensor:
    """[e_b, q_b]; ``at`` ends in "pos" or "neg"."""
    return torch.cat([e, q], dim=1)


def discriminator(params: Params, pairs: Tensor, trace: Params, at: str) -> Tensor:
    """Network of a discriminator, with ReLU between its layers."""
    return mlp(params, pairs, "relu", trace, at)


def reduced(losses: list[Tensor], options: Any) -> Tensor:
    """L_mi: the mean of the discriminators' losses, or their sum (3.8)."""
    total = torch.stack(losses).sum()
    return total / len(losses) if options.mi_reduce == "mean" else total
