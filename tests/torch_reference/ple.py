"""PLE in PyTorch, from derivations 5: every stream of every scenario for all rows.

``trace`` receives every quantity of the definition under its name, and beside them what other ways
to compute it build (``ple_parts.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup
from torch_reference.by_scenario import logits, own_affine, route
from torch_reference.ple_parts import parts


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    G, G_s = [X] * options.n_scenarios, X
    for j in range(1, len(options.expert_layers) + 1):
        G, G_s = level(params, j, G, G_s, batch.scenario, options, trace)
    s = route(batch.scenario, training=training)
    trace["G_own"] = own_rows(G, s)
    z = tower(params["tower"], trace["G_own"], s, options, trace)
    trace |= parts(params, trace, batch.scenario, options)
    return logits(z, batch.scenario), {}


def level(
    params: Params, j: int, G: list, G_s: Tensor, s: Tensor, options: Any, trace: Params
) -> tuple[list, Tensor]:
    """One extraction level: the next streams of all scenarios, and the shared one."""
    name, D = f"level_{j}", options.n_scenarios
    layers, inputs = params[name], shared_input(G_s, j)
    E = [
        [
            expert(layers["specific"], place(k, e), H, options, trace, f"{name}.expert_{k}_{e}")
            for e in range(options.n_specific)
        ]
        for k in range(D)
        for H in [expert_input(G[k], G_s, options)]
    ]
    E_s = [
        expert(layers["shared"], (e,), inputs, options, trace, f"{name}.expert_s_{e}")
        for e in range(options.n_shared)
    ]
    G_next = []
    for k in range(D):
        S = candidates(E, E_s, k)
        kernel = [layers["specific_gate"][leaf][k] for leaf in layers["specific_gate"]]
        alpha = gate_logits(gate_input(G[k], G_s, options), *kernel)
        G_next.append(mixed(alpha, None, S, trace, name, str(k)))
    if j < len(options.expert_layers) and options.n_shared:
        G_s = shared_stream(layers["shared_gate"], inputs, everyone(E, E_s), s, options, trace, j)
    return G_next, G_s


def shared_stream(
    gate: Params, G_s: Tensor, S: Tensor, s: Tensor, options: Any, trace: Params, j: int
) -> Tensor:
    """Next shared stream: one kernel with a column for every expert of the list."""
    kernel = []
    for leaf in gate["shared"]:
        kernel.append(joined(gate["specific"][leaf], gate["shared"][leaf]))
        trace[f"level_{j}.gate_s.{leaf}"] = kernel[-1]
    alpha, counts = gate_logits(G_s, *kernel), who_counts(s, options)
    return mixed(alpha, counts, S, trace, f"level_{j}", "s")


def mixed(
    alpha: Tensor, counts: Tensor | None, S: Tensor, trace: Params, name: str, k: str
) -> Tensor:
    """Weigh candidates by the softmax of alpha."""
    w = softmax(alpha, counts)
    G = mixture(w, S)
    S_name = f"{name}.S" if k == "s" else f"{name}.S_{k}"
    gate = f"{name}.gate_{k}"
    trace |= {f"{gate}.alpha": alpha, f"{gate}.w": w, S_name: S, f"{name}.G_{k}": G}
    return G


# --- experts --------------------------------------------------------------------------------------


def expert_input(G_k: Tensor, G_s: Tensor, options: Any) -> Tensor:
    """Stream that the experts of a scenario read."""
    return G_k


def shared_input(G_s: Tensor, j: int) -> Tensor:
    """Stream that the shared experts and the shared gate of level j read."""
    return G_s


def place(k: int, e: int) -> tuple[int, ...]:
    """Place of expert e of scenario k in its stack."""
    return k, e


def expert(
    layers: Params, at: tuple[int, ...], H: Tensor, options: Any, trace: Params, name: str
) -> Tensor:
    """An MLP with an activation after every layer, the last one included."""
    for i, layer in enumerate(layers.values(), start=1):
        A = trace[f"{name}.A_{i}"] = H @ layer["W"][at] + layer["b"][at]
        if i == len(layers):
            H = trace[f"{name}.E"] = output(A, options.activation)
        else:
            H = trace[f"{name}.H_{i}"] = ACTIVATIONS[options.activation](A)
    return H


def output(A: Tensor, activation: str) -> Tensor:
    """What an expert says."""
    return ACTIVATIONS[activation](A)


def candidates(E: list, E_s: list, k: int) -> Tensor:
    """S^k (B, m_k + m_s)."""
    return torch.stack([*E[k], *E_s], dim=1)


def everyone(E: list, E_s: list) -> Tensor:
    """S (B, D m_k + m_s): scenario by scenario, the shared experts at the end."""
    return torch.stack([*(e for own in E for e in own), *E_s], dim=1)


# --- gates ----------------------------------------------------------------------------------------


def gate_input(G_k: Tensor, G_s: Tensor, options: Any) -> Tensor:
    """Stream that the gate of a scenario reads."""
    return G_k


def gate_logits(G: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """A single affine map of a stream; the bias may be missing."""
    return G @ W if b is None else G @ W + b


def joined(of_scenarios: Tensor, shared: Tensor) -> Tensor:
    """Columns (D, ..., m_k) of the scenarios' experts and the shared ones', side by side."""
    return torch.cat([*of_scenarios, shared], dim=-1)


def who_counts(s: Tensor, options: Any) -> Tensor | None:
    """Which experts of the list (B, D m_k + m_s) the shared stream of a row may mix; None: all."""
    if options.shared_gate_scope == "all":
        return None
    owners = [k for k in range(options.n_scenarios) for _ in range(options.n_specific)]
    own = [[k == d for k in owners] + [True] * options.n_shared for d in s.tolist()]
    return torch.tensor(own)


def softmax(alpha: Tensor, counts: Tensor | None = None) -> Tensor:
    """Softmax over the candidates of each row that count; the others' weight is zero."""
    if counts is None:
        return torch.softmax(alpha, dim=1)
    top = alpha.detach().masked_fill(~counts, -torch.inf).max(dim=1, keepdim=True).values
    exponential = torch.where(counts, torch.exp(alpha - top), torch.zeros_like(alpha))
    return exponential / exponential.sum(dim=1, keepdim=True)


def mixture(w: Tensor, S: Tensor) -> Tensor:
    """G_b = sum_e w_be S_be."""
    return (w[:, :, None] * S).sum(dim=1)


# --- towers ---------------------------------------------------------------------------------------


def own_rows(G: list, s: Tensor) -> Tensor:
    """Row i of the stream of its own scenario."""
    return torch.stack([G[k][i] for i, k in enumerate(s.tolist())])


def tower(layers: Params, H: Tensor, s: Tensor, options: Any, trace: Params) -> Tensor:
    """Logits (B, 1) of each row's own tower."""
    for i, layer in enumerate(layers.values(), start=1):
        A = own_affine(H, layer["W"], layer["b"], s)
        if i == len(layers):
            H = trace["tower.output"] = tower_output(A, options)
        else:
            trace[f"tower.A_{i}"] = A
            H = trace[f"tower.H_{i}"] = ACTIVATIONS[options.activation](A)
    return H


def tower_output(A: Tensor, options: Any) -> Tensor:
    """A tower ends without an activation."""
    return A
