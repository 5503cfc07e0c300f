"""PEPNet in PyTorch, from equations.md section 7: one row after the other, all towers' gates.

With towers per scenario a gate puts out T blocks side by side and the row's own is cut out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    rows: list[Params] = []
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
    for x, s in zip(X, batch.scenario.tolist(), strict=True):
        row: Params = {"X": x}
        tower = s if options.towers == "per_scenario" else None
        row["O"] = scaled_embeddings(params["epnet"], x, options, row)
        row["E_prior"] = prior(x, options)
        row["U"] = torch.cat([row["E_prior"], row["O"].detach()])
        row["z"] = personalised(params["ppnet"], row["O"], row["U"], tower, options, row)
        rows.append(row)
    trace |= {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    return trace["z"][:, 0], {}


def scaled_embeddings(params: Params, x: Tensor, options: Any, row: Params) -> Tensor:
    """EPNet: delta_dom times what is gated, the rest as it is."""
    d_aw = options.n_aware * options.dim_embedding
    E_aw, E_ag = x[:d_aw], x[d_aw:]
    row["E"] = x if options.ep_input == "all" else E_ag
    row["U_dom"] = torch.cat([E_aw, row["E"].detach()])
    delta = gate_nu(params, row["U_dom"], None, options, row, "dom")
    if options.ep_input == "all":
        return delta * x
    return torch.cat([E_aw, delta * E_ag])


def prior(x: Tensor, options: Any) -> Tensor:
    """E_prior: the fields named, else all agnostic ones; the aware ones behind them on request."""
    fields = list(options.prior_fields)
    if not fields:
        fields = list(range(options.n_aware, len(options.vocab_sizes)))
    if options.prior_scenario:
        fields += [f for f in range(options.n_aware) if f not in fields]
    k = options.dim_embedding
    return torch.cat([x[f * k : (f + 1) * k] for f in fields])


def gate_nu(
    params: Params, U: Tensor, tower: int | None, options: Any, row: Params, name: str
) -> Tensor:
    """Gamma times the sigmoid of a network with one hidden layer; block ``tower`` of its output."""
    W_1, b_1 = params["layer_1"]["W"], params["layer_1"]["b"]
    W_2, b_2 = params["layer_2"]["W"], params["layer_2"]["b"]
    n = W_2.shape[-1]
    if tower is not None:
        W_2, b_2 = torch.cat(list(W_2), dim=1), torch.cat(list(b_2))
    row[f"{name}.A"] = U @ W_1 + b_1
    row[f"{name}.R"] = torch.relu(row[f"{name}.A"])
    delta = options.gamma * torch.sigmoid(row[f"{name}.R"] @ W_2 + b_2)
    if tower is not None:
        delta = delta[tower * n : (tower + 1) * n]
    row[f"{name}.delta"] = delta
    return delta


def personalised(
    params: Params,
    O: Tensor,  # noqa: E741
    U: Tensor,
    tower: int | None,
    options: Any,
    row: Params,
) -> Tensor:
    """PPNet: the tower of one row, every hidden vector (and maybe O) times its gate."""
    H = O
    if options.gate_at == "layer_input":
        H = gate_nu(params["gate_0"], U, tower, options, row, "gate_0") * H
    n_hidden = len(options.hidden)
    for i in range(1, n_hidden + 2):
        W, b = params[f"layer_{i}"]["W"], params[f"layer_{i}"]["b"]
        if tower is not None:
            W, b = W[tower], b[tower]
        row[f"H_{i}"] = H
        A = row[f"A_{i}"] = H @ W + b
        if i <= n_hidden:
            R = row[f"R_{i}"] = ACTIVATIONS[options.activation](A)
            H = gate_nu(params[f"gate_{i}"], U, tower, options, row, f"gate_{i}") * R
    return A
