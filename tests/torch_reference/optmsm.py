"""OptMSM (the reconstruction) in PyTorch, from derivations 10: row by row, map by map.

``trace`` receives every quantity of the definition under its name, and what other ways to compute
it build: weights of the scenarios present, or what each row of Omega makes of a layer's input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup

TOWER = ("W_1", "b_1", "W_2", "b_2")


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,), and in training the orthogonality loss."""
    d_aw = options.n_aware * options.dim_embedding
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    E_sp, E_sh = X[:, :d_aw], X[:, d_aw:]
    A_c = E_sp @ params["encoder"]["W"] + params["encoder"]["b"]
    c = ACTIVATIONS[options.activation](A_c)
    G = set_of_embeddings(E_sh, params["shared"]["A"], params["shared"]["a"])
    w = weights_of_the_set(params["shared"], c, batch.scenario, options, trace)
    m = mixed(w, G)
    rho = joined(c, m)
    trace |= {"E_sp": E_sp, "E_sh": E_sh, "A_c": A_c, "c": c, "G": G, "w": w, "m": m}
    trace["rho"] = rho
    auxiliary = {}
    if training and options.orth_weight != 0.0:
        auxiliary["orthogonality"] = orthogonality(G, options, trace)
    thetas = thetas_of_rows(params, E_sp, batch.scenario, options, trace)
    out = tower(thetas, rho, options, trace)
    if options.hyper_input == "aware":
        trace |= basis_towers(params["hypernetwork"], rho, trace["tower.H"], options)
    trace["logit"] = logits(out, batch.scenario)
    return trace["logit"], auxiliary


def weights(options: Any) -> dict[str, float]:
    """Weight mu of the auxiliary term."""
    return {"orthogonality": options.orth_weight}


def joined(c: Tensor, m: Tensor) -> Tensor:
    """Input of the tower."""
    return torch.cat([c, m], dim=1)


def logits(out: Tensor, scenario: Tensor) -> Tensor:
    """(B, 1) -> (B,), in the order of the batch as everything here."""
    return out[:, 0]


# --- shared set and its mixture -------------------------------------------------------------------


def set_of_embeddings(E_sh: Tensor, A: Tensor, a: Tensor) -> Tensor:
    """G (B, D, q): the maps one after the other."""
    return torch.stack([E_sh @ A[k] + a[k] for k in range(len(A))], dim=1)


def weights_of_the_set(
    shared: Params, c: Tensor, scenario: Tensor, options: Any, trace: Params
) -> Tensor:
    """w (B, D): softmax of the attention logits, or one-hot of the scenario."""
    if options.combine == "select":
        return torch.nn.functional.one_hot(scenario, options.n_scenarios).to(c.dtype)
    trace["alpha"] = attention(c, shared["attention"]["W"], shared["attention"]["b"])
    return softmax(trace["alpha"])


def attention(c: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """alpha (B, D)."""
    return c @ W + b


def softmax(alpha: Tensor) -> Tensor:
    """The definition; the logits of the tests are small."""
    return torch.exp(alpha) / torch.exp(alpha).sum(dim=1, keepdim=True)


def mixed(w: Tensor, G: Tensor) -> Tensor:
    """m = sum_k w_k g_k."""
    return sum(w[:, k, None] * G[:, k] for k in range(G.shape[1]))


# --- orthogonality loss ---------------------------------------------------------------------------


def orthogonality(G: Tensor, options: Any, trace: Params) -> Tensor:
    """Mean over rows and ordered pairs j != k of the squared products (10.1)."""
    G_hat = G
    if options.orth_on == "cosine":
        trace["nu"] = length(G, options.eps)
        G_hat = trace["G_hat"] = normalised(G, trace["nu"])
    trace["O"] = products_of_pairs(G_hat)
    trace["orthogonality"] = mean_over_pairs(trace["O"])
    return trace["orthogonality"]


def length(G: Tensor, eps: float) -> Tensor:
    """nu (B, D, 1)."""
    return torch.sqrt((G**2).sum(dim=2, keepdim=True) + eps)


def normalised(G: Tensor, nu: Tensor) -> Tensor:
    """Embeddings of length 1, or nearly."""
    return G / nu


def products_of_pairs(G: Tensor) -> Tensor:
    """O (B, D, D), pair by pair; an embedding is no pair with itself."""
    n_rows, n, _ = G.shape
    O = torch.zeros(n_rows, n, n, dtype=G.dtype)  # noqa: E741
    for j in range(n):
        for k in range(n):
            O[:, j, k] = (G[:, j] * G[:, k]).sum(dim=1) * float(j != k)
    return O


def mean_over_pairs(O: Tensor) -> Tensor:  # noqa: E741
    """Sum of squares over B D (D - 1); without a pair it is 0."""
    n_rows, n, _ = O.shape
    return (O**2).sum() / (n_rows * max(n * (n - 1), 1))


# --- hypernetwork and tower -----------------------------------------------------------------------


def thetas_of_rows(
    params: Params, E_sp: Tensor, scenario: Tensor, options: Any, trace: Params
) -> Tensor:
    """theta (B, n_theta) of each row: that of its scenario, or its own."""
    hyper, is_own = params["hypernetwork"], options.hyper_input == "aware"
    start = trace["omega_0"] = omega_0(hyper)
    u = trace["u"] = coefficients(E_sp if is_own else params["code"]["Z"], hyper, options)
    theta = trace["theta"] = generated(u, omega(hyper, options), start)
    if is_own:
        trace["u, 1"] = torch.cat([u, torch.ones(len(u), 1, dtype=u.dtype)], dim=1)
        trace["theta_of_rows"] = torch.cat([theta])
    else:
        trace["theta_of_rows"] = chosen(theta, scenario)
        present = torch.unique(scenario)
        trace |= {"present u": u[present], "present theta": theta[present]}
        parts = cut(theta[present], options)
        trace |= {f"present {name}": part for name, part in zip(TOWER, parts, strict=True)}
    return trace["theta_of_rows"]


def omega_0(hyper: Params) -> Tensor:
    """omega_0 (n_theta,), from the parts in which it is stored."""
    first, second = hyper["omega_0"]["layer_1"], hyper["omega_0"]["layer_2"]
    parts = [first["W"], first["b"], second["W"], second["b"]]
    return torch.cat([part.flatten() for part in parts])


def omega(hyper: Params, options: Any) -> Tensor:
    """The matrix whose rows are towers."""
    return hyper["Omega_out"] if options.hyper == "low_rank" else hyper["Omega"]


def coefficients(code: Tensor, hyper: Params, options: Any) -> Tensor:
    """u: the code itself, or reduced to the rank."""
    return reduced(code, hyper["Omega_in"]) if options.hyper == "low_rank" else torch.cat([code])


def reduced(code: Tensor, Omega_in: Tensor) -> Tensor:
    """u = Z Omega_in."""
    return code @ Omega_in


def generated(u: Tensor, Omega: Tensor, start: Tensor) -> Tensor:
    """theta = u Omega + omega_0, code by code."""
    return torch.stack([row @ Omega + start for row in u])


def chosen(theta: Tensor, scenario: Tensor) -> Tensor:
    """theta of the scenario of each row."""
    return torch.stack([theta[int(d)] for d in scenario])


def cut(theta: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_1, b_1, W_2, b_2 of every theta: where each stands in it (10.1)."""
    i, h = options.dim_specific + options.dim_shared, options.tower_hidden
    W_1 = torch.stack([theta[:, row * h : (row + 1) * h] for row in range(i)], dim=1)
    rest = theta[:, i * h :]
    return W_1, rest[:, :h], rest[:, h : 2 * h, None], rest[:, 2 * h :]


def tower(thetas: Tensor, rho: Tensor, options: Any, trace: Params) -> Tensor:
    """Output (B, 1): every row through the tower of its theta."""
    W_1, b_1, W_2, b_2 = parts = cut(thetas, options)
    A = torch.stack([rho[b] @ W_1[b] + b_1[b] for b in range(len(rho))])
    H = inside_the_tower(A, options)
    out = torch.stack([H[b] @ W_2[b] + b_2[b] for b in range(len(rho))])
    trace |= {f"tower.{name}": part for name, part in zip(TOWER, parts, strict=True)}
    trace |= {"tower.A": A, "tower.H": H, "tower.output": out}
    return out


def inside_the_tower(A: Tensor, options: Any) -> Tensor:
    """Activation between the two maps of a tower."""
    return ACTIVATIONS[options.activation](A)


def basis_towers(hyper: Params, rho: Tensor, H: Tensor, options: Any) -> Params:
    """What the rows of Omega and omega_0, each taken as a tower, make of each layer's input."""
    W_1, b_1, W_2, b_2 = cut(torch.cat([omega(hyper, options), omega_0(hyper)[None]]), options)
    first = torch.stack([rho @ W_1[r] + b_1[r] for r in range(len(W_1))], dim=1)
    second = torch.stack([H @ W_2[r] + b_2[r] for r in range(len(W_2))], dim=1)
    return {f"basis {k}": x for k, x in zip(TOWER, (W_1, b_1, W_2, b_2), strict=True)} | {
        "basis T_1": first,
        "basis T_2": second,
    }
