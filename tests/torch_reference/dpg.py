"""DPG in PyTorch, from equations.md section 3.2.

``trace`` receives the named intermediates: "X", "E_aw", "layer_1.U", "layer_1.Q", ...
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, core, lookup, modulated, psi


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) of section 3.2 and no auxiliary terms."""
    d_aw = options.n_aware * options.dim_embedding
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
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
