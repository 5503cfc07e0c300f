"""STAR in PyTorch, from derivations 6.1 and 6.2: scenario after scenario, row after row.

``trace`` receives every quantity of the definition under its name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup, mlp, stop
from torch_reference.by_scenario import logits, own_affine, route


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    s = batch.scenario
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    trace["scenario"] = s
    V = X
    if options.pn == "partitioned":
        V = normalised(params["norm"], X, s, options, trace, "norm", training=training)
    z = star(params["star"], V, route(s, training=training), options, trace)
    if options.aux:
        U_x = auxiliary_input(X, V)
        z_aux = auxiliary(params["aux"], U_x, s, options, trace, training=training)
        z = trace["z"] = joint(z, z_aux, training=training)
    trace |= of_present(trace, s)
    return logits(z, s), {}


# --- normalisation --------------------------------------------------------------------------------


def normalised(
    params: Params, X: Tensor, s: Tensor, options: Any, trace: Params, name: str, *, training: bool
) -> Tensor:
    """V of 6.1."""
    mu = means(X, params["mean"], s, training=training)
    deviation = X - mu[s]
    nu = variances(deviation, params["variance"], s, training=training)
    r = inverse_std(nu, options.eps)
    X_hat = deviation * r[s]
    gamma = scale(params["gamma"], params["scenario_gamma"])
    beta = shift(params["beta"], params["scenario_beta"])
    scaled = X_hat * gamma[s]
    V = scaled + beta[s]
    found = {"mu": mu, "deviation": deviation, "nu": nu, "inverse_std": r, "X_hat": X_hat}
    found |= {"scale": gamma, "shift": beta, "scaled_X_hat": scaled, "V": V, "X": X}
    trace |= {f"{name}.{key}": value for key, value in found.items()}
    if training:
        for key in ("mean", "variance"):
            trace[f"next.{name}.{key}"] = moved(params[key], key, name, trace, options)
    return V


def means(X: Tensor, moving: Tensor, s: Tensor, *, training: bool) -> Tensor:
    """mu (D, I)."""
    return statistic(X, moving, s, training=training)


def variances(deviation: Tensor, moving: Tensor, s: Tensor, *, training: bool) -> Tensor:
    """nu (D, I), biased."""
    return statistic(deviation**2, moving, s, training=training)


def statistic(
    x: Tensor, moving: Tensor, s: Tensor, *, training: bool, least: int = 2, n_fewer: int = 0
) -> Tensor:
    """Mean over the rows of d in training, if there are at least two; else the moving statistic."""
    found = []
    for d, old in enumerate(moving.detach()):
        rows = x[s == d]
        own = training and len(rows) >= least
        found.append(rows.sum(dim=0) / max(len(rows) - n_fewer, 1) if own else old)
    y = torch.stack(found)
    return y if y.requires_grad else stop(y)


def inverse_std(nu: Tensor, eps: float) -> Tensor:
    """r = 1 / sqrt(nu + eps)."""
    return torch.rsqrt(nu + eps)


def scale(gamma: Tensor, gamma_d: Tensor) -> Tensor:
    """Scales (D, I) multiply."""
    return gamma * gamma_d


def shift(beta: Tensor, beta_d: Tensor) -> Tensor:
    """Shifts (D, I) add."""
    return beta + beta_d


def moved(moving: Tensor, key: str, name: str, trace: Params, options: Any) -> Tensor:
    """Moving statistic after a step, for the scenarios with two rows or more."""
    now = trace[f"{name}.{'mu' if key == 'mean' else 'nu'}"].detach()
    new = moving.detach().clone()
    for d in range(len(moving)):
        if (trace["scenario"] == d).sum() >= 2:
            new[d] = options.momentum * new[d] + (1 - options.momentum) * now[d]
    return new


def advance(leaves: Params, trace: Params, options: Any) -> Params:
    """Moving statistics after a step."""
    return {
        f"{name}.{key}": moved(leaves[f"{name}.{key}"], key, name, trace, options)
        for name in ("norm", "aux.norm")
        if f"{name}.X" in trace
        for key in ("mean", "variance")
    }


# --- star -----------------------------------------------------------------------------------------


def star(params: Params, H: Tensor, s: Tensor, options: Any, trace: Params) -> Tensor:
    """Logits (B, 1) of the main network."""
    for i, (name, layer) in enumerate(params.items(), start=1):
        shared, own = layer["shared"], layer["scenario"]
        W = trace[f"star.{name}.W_star"] = star_weights(shared["W"], own["W"], s)
        b = trace[f"star.{name}.b_star"] = star_biases(shared["b"], own["b"])
        A = own_affine(H, W, b, s)
        if i == len(params):
            return trace.setdefault("z_main", main_logit(A, options))
        trace[f"star.A_{i}"] = A
        H = trace[f"star.H_{i}"] = ACTIVATIONS[options.activation](A)
    raise ValueError("the star has no layer")


def star_weights(W: Tensor, W_d: Tensor, s: Tensor) -> Tensor:
    """W_star (D, I, O): kernels multiply."""
    return W * W_d


def star_biases(b: Tensor, b_d: Tensor) -> Tensor:
    """b_star (D, O): biases add."""
    return b + b_d


def main_logit(A: Tensor, options: Any) -> Tensor:
    """The last layer has no activation."""
    return A


# --- auxiliary network ----------------------------------------------------------------------------


def auxiliary_input(X: Tensor, V: Tensor) -> Tensor:
    """It reads X."""
    return X


def auxiliary(
    params: Params, X: Tensor, s: Tensor, options: Any, trace: Params, *, training: bool
) -> Tensor:
    """Logits (B, 1) of the small network on [e_dom(s), X]."""
    if options.aux_norm:
        X = normalised(params["norm"], X, s, options, trace, "aux.norm", training=training)
    e_dom = trace["aux.e_dom"] = torch.stack([params["domain"]["table"][d] for d in s.tolist()])
    U = trace["aux.U"] = side_by_side(e_dom, X)
    return mlp(params["mlp"], U, options.activation, trace, "aux")


def side_by_side(e_dom: Tensor, X: Tensor) -> Tensor:
    """[e_dom, X]."""
    return torch.cat([e_dom, X], dim=1)


def joint(z_main: Tensor, z_aux: Tensor, *, training: bool) -> Tensor:
    """Logits add, in training and in prediction."""
    return z_main + z_aux


def of_present(trace: Params, s: Tensor) -> Params:
    """What there is by scenario, for those of the batch only: a part of it is what others keep."""
    present = sorted(set(s.tolist()))
    ends = (".mu", ".nu", ".inverse_std", ".W_star", ".b_star")
    return {f"{key}.present": x[present] for key, x in trace.items() if key.endswith(ends)}
