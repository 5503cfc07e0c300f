"""What PLE builds on the way when it is computed otherwise (derivations 5.4): stacks and picks.

All of it is put together from named quantities; nothing is computed from it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import Params


def parts(params: Params, trace: Params, s: Tensor, options: Any) -> Params:
    """Stacks over experts and streams, what each row reads of them, kernels side by side."""
    found: Params = {}
    n_levels = len(options.expert_layers)
    for j in range(1, n_levels + 1):
        name = f"level_{j}"
        streams = [trace["X" if j == 1 else f"level_{j - 1}.G_{k}"] for k in _ids(options)]
        found[f"{name}.G"] = torch.stack(streams)
        for what in ("S", "gate", "w"):
            by_scenario = [trace[_of(name, what, k)] for k in _ids(options)]
            found[f"{name}.{what}.own"] = _own(by_scenario, s)
        found[f"{name}.G.own"] = _own(streams, s)
        found |= _experts(params[name], trace, s, options, name)
        for k, W in enumerate(params[name]["specific_gate"]["W"]):
            found[f"{name}.specific_gate.W.{k}"] = W
        if f"{name}.gate_s.w" in trace:
            found[f"{name}.gate_s.own"] = _own_weights(trace[f"{name}.gate_s.w"], s, options)
    found |= _tower_kernels(params["tower"], s)
    return {f"parts.{name}": value for name, value in found.items()}


def _ids(options: Any) -> range:
    return range(options.n_scenarios)


def _of(name: str, what: str, k: int) -> str:
    return {"S": f"{name}.S_{k}", "gate": f"{name}.gate_{k}.alpha", "w": f"{name}.gate_{k}.w"}[what]


def _own(by_scenario: list[Tensor], s: Tensor) -> Tensor:
    """Rows of their own scenario."""
    return torch.stack([by_scenario[k][i] for i, k in enumerate(s.tolist())])


def _own_weights(w: Tensor, s: Tensor, options: Any) -> Tensor:
    """Weights of a row's own experts and of the shared ones."""
    m_k, n = options.n_specific, options.n_scenarios * options.n_specific
    rows = [[*w[i, k * m_k : (k + 1) * m_k], *w[i, n:]] for i, k in enumerate(s.tolist())]
    return torch.stack([torch.stack(row) for row in rows])


def _experts(layers: Params, trace: Params, s: Tensor, options: Any, name: str) -> Params:
    """Stacks of pre-activations and outputs, layer by layer, and of the kernels."""
    found: Params = {}
    E = range(options.n_specific)
    shared = [f"expert_s_{e}" for e in range(options.n_shared)]
    specific = [[f"expert_{k}_{e}" for e in E] for k in _ids(options)]
    n_layers = len(layers["specific"])
    for i, (layer, leaves) in enumerate(layers["specific"].items(), start=1):
        kernels = [leaves["W"].flatten(0, 1)]
        kernels += [layers["shared"][layer]["W"]] if shared else []
        found[f"{name}.{layer}.W"] = torch.cat(kernels)
        for key in (f"A_{i}", "E" if i == n_layers else f"H_{i}"):

            def stack(experts: list[str], key: str = key) -> Tensor:
                return torch.stack([trace[f"{name}.{expert}.{key}"] for expert in experts])

            flat = [expert for own in specific for expert in own]
            found[f"{name}.specific.{key}"] = stack(flat)
            found[f"{name}.experts.{key}"] = stack(flat + shared)
            if shared:
                found[f"{name}.shared.{key}"] = stack(shared)
            by_scenario = [stack(own).swapaxes(0, 1) for own in specific]
            found[f"{name}.specific.{key}.own"] = _own(by_scenario, s)
    flat_S = [trace[f"{name}.{e}.E"] for own in specific for e in own]
    flat_S += [trace[f"{name}.{e}.E"] for e in shared]
    return found | {f"{name}.S.all": torch.stack(flat_S, dim=1)}


def _tower_kernels(layers: Params, s: Tensor) -> Params:
    """A copy of its tower's kernel for every row."""
    return {f"tower.{name}.W": layer["W"][s] for name, layer in layers.items()}
