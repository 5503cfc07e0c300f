"""OptMSM (the reconstruction) in PyTorch, from equations.md section 10: row by row, map by map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,), and in training the orthogonality loss."""
    act = ACTIVATIONS[options.activation]
    d_aw = options.n_aware * options.dim_embedding
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
    E_sp, E_sh = X[:, :d_aw], X[:, d_aw:]
    A_c = E_sp @ params["encoder"]["W"] + params["encoder"]["b"]
    c = act(A_c)
    shared = params["shared"]
    g = [E_sh @ shared["A"][k] + shared["a"][k] for k in range(options.n_scenarios)]
    G = torch.stack(g, dim=1)
    w = weights_of_the_set(shared, c, batch.scenario, options, trace)
    m = sum(w[:, k, None] * g[k] for k in range(options.n_scenarios))
    rho = torch.cat([c, m], dim=1)
    trace |= {"X": X, "E_sp": E_sp, "E_sh": E_sh, "A_c": A_c, "c": c, "G": G, "rho": rho}
    thetas = generated(params, E_sp, batch.scenario, options, trace)
    rows = [tower(thetas[b], rho[b], options, act) for b in range(len(rho))]
    trace |= {"a": torch.stack([row[0] for row in rows])}
    trace |= {"H_1": torch.stack([row[1] for row in rows])}
    if options.hyper_input == "aware":
        trace |= basis_towers(params["hypernetwork"], rho, trace["H_1"], options)
    logit = torch.stack([row[2] for row in rows])
    has_loss = training and options.orth_weight != 0.0
    return logit, {"orthogonality": orthogonality(G, options, trace)} if has_loss else {}


def weights(options: Any) -> dict[str, float]:
    """Weight mu of the auxiliary term."""
    return {"orthogonality": options.orth_weight}


def weights_of_the_set(
    shared: Params, c: Tensor, scenario: Tensor, options: Any, trace: Params
) -> Tensor:
    """w (B, D): softmax of the attention logits, or one-hot of the scenario."""
    if options.combine == "select":
        return torch.nn.functional.one_hot(scenario, options.n_scenarios).to(c.dtype)
    alpha = c @ shared["attention"]["W"] + shared["attention"]["b"]
    trace["w"] = torch.exp(alpha) / torch.exp(alpha).sum(dim=1, keepdim=True)
    return trace["w"]


def cut(theta: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_1, b_1, w_2, b_2: where each stands in theta (10.1)."""
    i, h = options.dim_specific + options.dim_shared, options.tower_hidden
    W_1 = torch.stack([theta[row * h : (row + 1) * h] for row in range(i)])
    rest = theta[i * h :]
    return W_1, rest[:h], rest[h : 2 * h], rest[2 * h]


def omega(hyper: Params, options: Any) -> Tensor:
    """Omega (d_z, n_theta), as a product with "low_rank"."""
    if options.hyper == "low_rank":
        return hyper["Omega_in"] @ hyper["Omega_out"]
    return hyper["Omega"]


def omega_0(hyper: Params) -> Tensor:
    """omega_0 (n_theta,), from the parts in which it is stored."""
    first, second = hyper["omega_0"]["layer_1"], hyper["omega_0"]["layer_2"]
    parts = [first["W"], first["b"], second["W"], second["b"]]
    return torch.cat([part.flatten() for part in parts])


def generated(
    params: Params, E_sp: Tensor, scenario: Tensor, options: Any, trace: Params
) -> list[Tensor]:
    """theta of each row: that of its scenario, or its own."""
    hyper = params["hypernetwork"]
    Omega, start = omega(hyper, options), omega_0(hyper)
    if options.hyper_input == "aware":
        u = E_sp @ hyper["Omega_in"] if options.hyper == "low_rank" else E_sp
        trace |= {"u": u, "u, 1": torch.cat([u, torch.ones(len(u), 1, dtype=u.dtype)], dim=1)}
        return [E_sp[b] @ Omega + start for b in range(len(E_sp))]
    Z = params["code"]["Z"]
    theta = {int(d): Z[d] @ Omega + start for d in torch.unique(scenario)}
    present = torch.stack([theta[d] for d in sorted(theta)])
    trace["theta"] = present
    parts = zip(*(cut(row, options) for row in present), strict=True)
    trace |= {f"part {i}": torch.stack(part) for i, part in enumerate(parts)}
    if options.hyper == "low_rank":
        trace["u"] = Z[torch.unique(scenario)] @ hyper["Omega_in"]
    return [theta[int(d)] for d in scenario]


def tower(theta: Tensor, rho: Tensor, options: Any, act: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Pre-activation, hidden units and logit of one row."""
    W_1, b_1, w_2, b_2 = cut(theta, options)
    a = rho @ W_1 + b_1
    return a, act(a), act(a) @ w_2 + b_2


def basis_towers(hyper: Params, rho: Tensor, H_1: Tensor, options: Any) -> Params:
    """What the rows of Omega and omega_0, each taken as a tower, make of each layer's input."""
    rows = hyper["Omega_out"] if options.hyper == "low_rank" else hyper["Omega"]
    towers = [cut(row, options) for row in [*rows, omega_0(hyper)]]
    W_1, b_1, w_2, b_2 = (torch.stack(part) for part in zip(*towers, strict=True))
    first = [rho @ W_1[r] + b_1[r] for r in range(len(W_1))]
    second = [H_1 @ w_2[r] + b_2[r] for r in range(len(W_1))]
    found = {"W_1": W_1, "b_1": b_1, "w_2": w_2, "b_2": b_2}
    return found | {"T_1": torch.stack(first, dim=1), "T_2": torch.stack(second, dim=1)}


def orthogonality(G: Tensor, options: Any, trace: Params) -> Tensor:
    """Mean over rows and ordered pairs j != k of the squared products (10.1)."""
    n_rows, n, _ = G.shape
    G_hat = G
    if options.orth_on == "cosine":
        trace["norm"] = torch.sqrt((G**2).sum(dim=2, keepdim=True) + options.eps)
        G_hat = G / trace["norm"]
    O = torch.zeros(n_rows, n, n, dtype=G.dtype)  # noqa: E741
    for j in range(n):
        for k in range(n):
            if j != k:
                O[:, j, k] = (G_hat[:, j] * G_hat[:, k]).sum(dim=1)
    trace |= {"G_hat": G_hat, "O": O}
    pairs = n * (n - 1)
    return (O**2).sum() / (n_rows * pairs) if pairs else 0.0 * G.sum()
