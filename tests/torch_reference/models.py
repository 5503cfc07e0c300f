"""DNN, DPG and MI-DPG in PyTorch, from equations.md sections 3 and 4.

``options`` has the options of the package's models as attributes.  Each function records the named
intermediates in ``trace``: "X", "E_aw", "layer_1.U", "layer_1.Q", ..., "layer_1.t_pos".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import (
    ACTIVATIONS,
    Params,
    core,
    jensen_shannon,
    lookup,
    mlp,
    modulated,
    psi,
    score,
)

Trace = dict[str, Tensor]


def dnn(params: Params, codes: Tensor, options: Any, trace: Trace) -> Tensor:
    """Return the logits (B,) of section 4."""
    X = lookup(params["embedding"]["table"], codes, options.vocab_sizes)
    trace["X"] = X
    return mlp(params["mlp"], X, options.activation, trace).squeeze(1)


def dpg(params: Params, codes: Tensor, options: Any, trace: Trace) -> Tensor:
    """Return the logits (B,) of section 3.2."""
    d_aw = options.n_aware * options.dim_embedding
    X = lookup(params["embedding"]["table"], codes, options.vocab_sizes)
    E_aw, E_ag = X[:, :d_aw], X[:, d_aw:]
    trace |= {"X": X, "E_aw": E_aw}
    H = X
    for name in modulated_names(options):
        h_part = E_ag if options.dedup_first and name == "layer_1" else H
        if options.dwm_detach_h:
            h_part = h_part.detach()
        U = E_aw if options.dwm_inputs == "aw_only" else torch.cat([E_aw, h_part], dim=1)
        d_m, d_n = params[name]["W"].shape
        c = core(params[name]["weighting"], U, *core_size(d_m, d_n, options), options)
        S = psi(c.Q, d_m, d_n, options.repeat_mode)
        A = modulated(params[name], H, S, options)
        trace |= {f"{name}.{key}": x for key, x in c._asdict().items() if x is not None}
        trace |= {f"{name}.U": U, f"{name}.H": H, f"{name}.S": S, f"{name}.A": A}
        H = A if name == "head" else ACTIVATIONS[options.activation](A)
    trace["H"] = H
    if not options.modulate_output:
        H = H @ params["head"]["W"] + params["head"]["b"]
    return H.squeeze(1)


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


def mutual_information(params: Params, partner: Tensor, options: Any, trace: Trace) -> Tensor:
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


def signal(params: Params, name: str, options: Any, trace: Trace) -> Tensor:
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
