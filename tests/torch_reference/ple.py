"""PLE in PyTorch, from equations.md section 5: row by row, every stream of every scenario.

``trace`` receives every intermediate of every row and scenario, and beside them what concerns a
row's own scenario only (names that end in ".own"), which is all that the grouped form computes.
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
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
    rows = [row(params, X[i], int(batch.scenario[i]), options) for i in range(len(batch.codes))]
    for name in rows[0]:
        trace[name] = torch.stack([intermediate[name] for intermediate in rows])
    split_by_scenario(trace, options.n_scenarios)
    trace["X"] = X
    for name in [name for name in params if "shared_gate" in params[name]]:
        trace[f"{name}.shared_gate.W"] = joined(params[name]["shared_gate"], options.n_scenarios)
    for j in range(1, len(options.expert_layers) + 1):
        for name, W in joined_experts(params[f"level_{j}"]).items():
            trace[f"level_{j}.experts.{name}.W"] = W
        for k, W in enumerate(params[f"level_{j}"]["specific_gate"]["W"]):
            trace[f"level_{j}.specific_gate.W.{k}"] = W
    return trace["z"].reshape(-1), {}


def row(params: Params, x: Tensor, s: int, options: Any) -> Params:
    """Every intermediate of one row x (d_0,) of scenario s."""
    D, trace = options.n_scenarios, {}
    n_levels = len(options.expert_layers)
    G, G_s = [x] * D, x
    for j in range(1, n_levels + 1):
        inner: Params = {}
        G, G_s = level(params[f"level_{j}"], G, G_s, s, j < n_levels, options, inner)
        trace |= {f"level_{j}.{name}": value for name, value in inner.items()}
    h = G[s]
    trace["tower.H"] = h
    towers, n_layers = params["tower"], len(params["tower"])
    for i in range(1, n_layers + 1):
        a = h @ towers[f"layer_{i}"]["W"][s] + towers[f"layer_{i}"]["b"][s]
        trace[f"tower.layer_{i}.A"] = a
        trace[f"tower.layer_{i}.W"] = towers[f"layer_{i}"]["W"][s]  # each row its own copy
        h = ACTIVATIONS[options.activation](a) if i < n_layers else a
        trace[f"tower.layer_{i}.H"] = h
    return trace | {"z": h}


def level(
    params: Params, G: list, G_s: Tensor, s: int, has_shared_gate: bool, options: Any, trace: Params
) -> tuple[list, Tensor | None]:
    """One extraction level for one row: the next streams of all scenarios, and the shared one."""
    D, m_k, m_s = options.n_scenarios, options.n_specific, options.n_shared
    act = options.activation
    trace |= {"G": torch.stack(G), "G.own": G[s]}
    E = [
        [
            expert(params["specific"], (k, e), G[k], act, trace, f"specific.{k}.{e}")
            for e in range(m_k)
        ]
        for k in range(D)
    ]
    stack_experts(trace, params["specific"], D, m_k, s)
    E_s = []
    if m_s:
        trace["G_s"] = G_s
        E_s = [expert(params["shared"], (e,), G_s, act, trace, f"shared.{e}") for e in range(m_s)]
        for name in params["shared"]:
            for key in ("A", "H"):
                parts = [trace[f"shared.{e}.{name}.{key}"] for e in range(m_s)]
                trace[f"shared.{name}.{key}"] = torch.stack(parts)
    for name in params["specific"]:
        places = [f"specific.{k}.{e}" for k in range(D) for e in range(m_k)]
        places += [f"shared.{e}" for e in range(m_s)]
        for key in ("A", "H"):
            parts = [trace[f"{place}.{name}.{key}"] for place in places]
            trace[f"experts.{name}.{key}"] = torch.stack(parts)
    everything = torch.stack([e for own in E for e in own] + E_s)
    candidates = [torch.stack(E[k] + E_s) for k in range(D)]
    trace |= {"S": everything, "S.by_scenario": torch.stack(candidates), "S.own": candidates[s]}
    weights, G_next = [], []
    for k in range(D):
        w = torch.softmax(logits(params["specific_gate"], k, G[k]), dim=0)
        weights.append(w)
        G_next.append(sum(w[e] * candidates[k][e] for e in range(m_k + m_s)))
    trace |= {"w.by_scenario": torch.stack(weights), "w.own": weights[s]}
    if not (has_shared_gate and m_s):
        return G_next, None
    gate = params["shared_gate"]
    alpha = torch.cat(
        [logits(gate["specific"], k, G_s) for k in range(D)] + [logits(gate["shared"], None, G_s)]
    )
    allowed = torch.tensor(
        [options.shared_gate_scope == "all" or k == s for k in range(D) for _ in range(m_k)]
        + [True] * m_s
    )
    exponential = torch.exp(alpha - alpha.detach()[allowed].max())
    w = torch.where(allowed, exponential, torch.zeros_like(alpha))
    w = w / w.sum()
    own = torch.tensor([k == s for k in range(D) for _ in range(m_k)] + [True] * m_s)
    trace |= {"w_s": w, "w_s.own": w[own]}
    return G_next, sum(w[e] * everything[e] for e in range(D * m_k + m_s))


def logits(gate: Params, k: int | None, g: Tensor) -> Tensor:
    """A single affine map of a stream; the bias may be missing."""
    pick = (lambda leaf: leaf) if k is None else (lambda leaf: leaf[k])
    alpha = g @ pick(gate["W"])
    return alpha + pick(gate["b"]) if "b" in gate else alpha


def joined(gate: Params, n_scenarios: int) -> Tensor:
    """Kernel of the shared gate, a column for every expert."""
    return torch.cat(
        [*(gate["specific"]["W"][k] for k in range(n_scenarios)), gate["shared"]["W"]], dim=1
    )


def joined_experts(level: Params) -> Params:
    """Kernels of all experts by layer, those of the scenarios first."""
    return {
        name: torch.cat(
            [layer["W"].flatten(0, 1), *(level[p][name]["W"] for p in ("shared",) if p in level)]
        )
        for name, layer in level["specific"].items()
    }


def expert(
    params: Params, place: tuple, h: Tensor, activation: str, trace: Params, path: str
) -> Tensor:
    """An MLP with an activation after every layer, the last one included."""
    for name, layer in params.items():
        a = h @ layer["W"][place] + layer["b"][place]
        h = ACTIVATIONS[activation](a)
        trace |= {f"{path}.{name}.A": a, f"{path}.{name}.H": h}
    return h


def stack_experts(trace: Params, layers: Params, D: int, m_k: int, s: int) -> None:
    """Trace the specific experts' values side by side, all of them and those of one scenario."""
    for name in layers:
        for key in ("A", "H"):
            parts = [
                torch.stack([trace[f"specific.{k}.{e}.{name}.{key}"] for e in range(m_k)])
                for k in range(D)
            ]
            trace[f"specific.{name}.{key}"] = torch.stack(parts)
            trace[f"specific.{name}.{key}.own"] = parts[s]


def split_by_scenario(trace: Params, n_scenarios: int) -> None:
    """Trace what each scenario's gate reads and weighs by itself, too."""
    for name in [name for name in trace if name.endswith((".by_scenario", ".G"))]:
        for k in range(n_scenarios):
            trace[f"{name}.{k}"] = trace[name][:, k]
