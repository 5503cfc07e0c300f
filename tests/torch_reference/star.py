"""STAR in PyTorch, from equations.md 6.1 and 6.2: scenario after scenario, row after row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup, mlp


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
    trace |= {"X": X, "s": batch.scenario}
    s = batch.scenario.tolist()
    V = X
    if options.pn == "partitioned":
        V = normalised(params["norm"], X, s, options, trace, "norm", training)
    trace["V"] = V
    per_row = [star(params["star"], v, d, options) for v, d in zip(V, s, strict=True)]
    for i, layer in enumerate(zip(*per_row, strict=True), start=1):
        trace[f"star.{i}.A"] = torch.stack(layer)
        trace[f"star.{i}.H"] = ACTIVATIONS[options.activation](trace[f"star.{i}.A"])
    z = torch.stack([row[-1][0] for row in per_row])
    for name, layer in params["star"].items():
        W, W_d = layer["shared"]["W"], layer["scenario"]["W"]
        trace[f"{name}.W_star"] = torch.stack([W * W_d[d] for d in sorted(set(s))])
    if options.aux:
        z = z + auxiliary(params["aux"], X, s, options, trace, training)
    return z, {}


def normalised(
    params: Params, X: Tensor, s: list[int], options: Any, trace: Params, name: str, training: bool
) -> Tensor:
    """V_i of 6.1, with the statistics of ``statistics``."""
    used = {d: statistics(params, X, s, d, training) for d in sorted(set(s))}
    X_hat, V = [], []
    for x, d in zip(X, s, strict=True):
        mu, nu = used[d]
        x_hat = (x - mu) / torch.sqrt(nu + options.eps)
        scale = params["gamma"] * params["scenario_gamma"][d]
        X_hat.append(x_hat)
        V.append(scale * x_hat + (params["beta"] + params["scenario_beta"][d]))
    trace[f"{name}.X_hat"] = torch.stack(X_hat)
    trace[f"{name}.mu"] = torch.stack([mu for mu, _ in used.values()])
    trace[f"{name}.nu"] = torch.stack([nu for _, nu in used.values()])
    trace[f"{name}.inverse_std"] = (trace[f"{name}.nu"] + options.eps).rsqrt()
    trace[f"{name}.X"] = X
    return torch.stack(V)


def statistics(
    params: Params, X: Tensor, s: list[int], d: int, training: bool
) -> tuple[Tensor, Tensor]:
    """mu_d and nu_d: of the rows of d in training, if there are at least two; else the moving."""
    rows = torch.stack([x for x, d_i in zip(X, s, strict=True) if d_i == d])
    if not training or len(rows) < 2:
        return params["mean"][d].detach(), params["variance"][d].detach()
    return rows.mean(dim=0), rows.var(dim=0, correction=0)


def star(params: Params, h: Tensor, d: int, options: Any) -> list[Tensor]:
    """Pre-activation of every layer for one row of scenario d; the last is its logit."""
    found: list[Tensor] = []
    for layer in params.values():
        if found:
            h = ACTIVATIONS[options.activation](found[-1])
        shared, own = layer["shared"], layer["scenario"]
        W_star, b_star = shared["W"] * own["W"][d], shared["b"] + own["b"][d]
        found.append((h[:, None] * W_star).sum(dim=0) + b_star)
    return found


def auxiliary(
    params: Params, X: Tensor, s: list[int], options: Any, trace: Params, training: bool
) -> Tensor:
    """Logits of the small network on [e_dom(s), X]."""
    if options.aux_norm:
        X = normalised(params["norm"], X, s, options, trace, "aux.norm", training)
    e_dom = torch.stack([params["domain"]["table"][d] for d in s])
    U, inner = torch.cat([e_dom, X], dim=1), {}
    z = mlp(params["mlp"], U, options.activation, inner).squeeze(1)
    trace |= {"aux.U": U, "aux.z": z}
    for name, A in inner.items():
        trace[f"aux.{name}"] = A
        trace[f"aux.{name}.H"] = ACTIVATIONS[options.activation](A)
    return z


def advance(leaves: Params, trace: Params, options: Any) -> Params:
    """Moving statistics after a step, for the scenarios with two rows or more."""
    rho, moved = options.momentum, {}
    for name in ("norm", "aux.norm"):
        if f"{name}.X" not in trace:
            continue
        X, s = trace[f"{name}.X"].detach(), trace["s"]
        mean, variance = leaves[f"{name}.mean"].clone(), leaves[f"{name}.variance"].clone()
        for d in range(len(mean)):
            rows = X[s == d]
            if len(rows) >= 2:
                mu = rows.sum(dim=0) / len(rows)
                nu = (rows**2).sum(dim=0) / len(rows) - mu**2
                mean[d] = rho * mean[d] + (1 - rho) * mu
                variance[d] = rho * variance[d] + (1 - rho) * nu
        moved |= {f"{name}.mean": mean, f"{name}.variance": variance}
    return moved
