"""APG in PyTorch, from equations.md section 9: one row after the other, by column vectors.

``trace`` receives "X", "E_aw", and of each layer "U", "V", the rows' "h", "z", "S", "q", "r", "US",
"T", "a" and what the generators compute on the way.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    d_aw = options.n_aware * options.dim_embedding
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
    trace |= {"X": X, "E_aw": X[:, :d_aw]}
    names = [f"layer_{i}" for i in range(1, len(options.hidden) + 1)]
    for name in names:
        trace |= {f"{name}.{key}": matrix(params[name], key) for key in ("U", "V")}
    rows: dict[str, list[Tensor]] = defaultdict(list)
    logits = []
    for x in X:
        e_aw, h = x[:d_aw], x
        for name in names:
            rows[f"{name}.h"].append(h)
            a = layer(params[name], h, condition(e_aw, h, options), options, rows, name)
            h = ACTIVATIONS[options.activation](a)
        rows["h"].append(h)
        logits.append(params["head"]["W"][:, 0] @ h + params["head"]["b"][0])
    trace |= {key: torch.stack(values) for key, values in rows.items()}
    return torch.stack(logits), {}


def condition(e_aw: Tensor, h: Tensor, options: Any) -> Tensor:
    """What the generators of a layer read of one row (9.1)."""
    return {"group": e_aw, "self": h, "mix": torch.cat([e_aw, h])}[options.condition]


def matrix(params: Params, name: str) -> Tensor:
    """U (d_out, K) or V (K, d_in), multiplied out if it is over-parameterised."""
    if name in params:
        return params[name]
    return params[f"{name}_left"] @ params[f"{name}_right"]


def generate(network: Params, z: Tensor, rows: Any, name: str) -> Tensor:
    """Run a network with ReLU between its layers on one row."""
    y = z
    for i in range(1, len(network) + 1):
        if i > 1:
            y = torch.relu(y)
            rows[f"{name}.{i}.y"].append(y)
        y = network[f"layer_{i}"]["W"].T @ y + network[f"layer_{i}"]["b"]
        rows[f"{name}.{i}.a"].append(y)
    return y


def layer(params: Params, h: Tensor, z: Tensor, options: Any, rows: Any, name: str) -> Tensor:
    """a = U S V h + b for one row, with U, S, V matrices and h a column (9.1)."""
    U, V = matrix(params, "U"), matrix(params, "V")
    s = generate(params["generator"], z, rows, f"{name}.generator")
    S = torch.stack([s[i * options.rank : (i + 1) * options.rank] for i in range(options.rank)])
    q = torch.mv(V, h)
    r = torch.mv(S, q)
    if options.generate_bias:
        b = generate(params["bias_generator"], z, rows, f"{name}.bias_generator")
    else:
        b = params["b"]
    a = torch.mv(U, r) + b
    values = {"z": z, "S": S, "q": q, "r": r, "US": U @ S, "T": U @ S @ V, "a": a}
    for key, value in values.items():
        rows[f"{name}.{key}"].append(value)
    return a
