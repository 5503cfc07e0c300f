"""Building blocks of the PyTorch reference, from derivations 2 and 3.

Only forward passes, in the definitional form: every weighting matrix is built, every gradient comes
from autograd.  Nothing here knows the package; parameters are nested dictionaries of tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Params = dict[str, Any]

ACTIVATIONS = {
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: -functional.logsigmoid(-x),  # torch's own is linear beyond 20
    "silu": functional.silu,
    "identity": lambda x: x,
}


def lookup(
    table: Tensor, codes: Tensor, vocab_sizes: tuple[int, ...], trace: Params | None = None
) -> Tensor:
    """E_{i,f} = T_f[x_{i,f}], fields side by side (2.1); ``table`` holds T_0, T_1, ... in turn."""
    tables = torch.split(table, list(vocab_sizes))
    X = torch.cat([T[codes[:, f]] for f, T in enumerate(tables)], dim=1)
    if trace is not None:
        trace |= {"rows": table_rows(codes, vocab_sizes), "X": X}
    return X


def table_rows(codes: Tensor, vocab_sizes: tuple[int, ...]) -> Tensor:
    """Rows (B, F) of the tables, one below the other, that the codes name."""
    return codes + torch.tensor([sum(vocab_sizes[:f]) for f in range(len(vocab_sizes))])


def stop(x: Tensor) -> Tensor:
    """sg(x): a leaf of its own, so that what arrives at it can be read off."""
    return x.detach().requires_grad_()


def mlp(
    params: Params,
    x: Tensor,
    activation: str = "relu",
    trace: Params | None = None,
    prefix: str = "",
) -> Tensor:
    """Affine maps with an activation between them and none after the last (2.2).

    ``trace`` receives ``prefix.A_1``, ``prefix.H_1``, ..., and ``prefix.output``.
    """
    trace = {} if trace is None else trace
    n_layers = len(params)
    for i in range(1, n_layers + 1):
        x = x @ params[f"layer_{i}"]["W"] + params[f"layer_{i}"]["b"]
        trace[f"{prefix}.A_{i}" if i < n_layers else f"{prefix}.output"] = x
        if i < n_layers:
            x = trace[f"{prefix}.H_{i}"] = ACTIVATIONS[activation](x)
    return x


def generator(params: Params, U: Tensor, trace: Params, prefix: str) -> Tensor:
    """Network of a weighting, with ReLU between its layers."""
    return mlp(params, U, "relu", trace, prefix)


def factor(generated: Tensor, rows: int, columns: int) -> Tensor:
    """Fill a factor of every row from what its generator gives, row by row."""
    return generated.reshape(len(generated), rows, columns)


def factor_product(R: Tensor, C: Tensor) -> Tensor:
    """P = S_R S_C; a factor without a batch axis serves all rows."""
    return torch.matmul(R, C)


def core_sigmoid(P: Tensor, gain: float) -> Tensor:
    """Q = gain sigmoid(P)."""
    return gain * torch.sigmoid(P)


def core(
    params: Params, U: Tensor, d_r: int, d_c: int, options: Any, trace: Params, prefix: str
) -> Tensor:
    """Generate Q_b (d_r, d_c) from U_b (3.2, and 3.8 row 5), with all that leads to it."""
    generated = {
        name: generator(params[name], U, trace, f"{prefix}.{name}")
        for name in ("core_generator", "row_generator", "column_generator")
        if name in params
    }
    if options.variant == "non":
        P = generated["core_generator"].reshape(len(U), d_r, d_c)
    else:
        R, C = params.get("R_share"), params.get("C_share")
        if options.variant in ("r", "rc"):
            R = trace[f"{prefix}.S_R"] = factor(generated["row_generator"], d_r, -1)
        if options.variant in ("c", "rc"):
            C = trace[f"{prefix}.S_C"] = factor(generated["column_generator"], -1, d_c)
        if options.sigmoid_on == "factors":
            R = trace[f"{prefix}.sigma_S_R"] = torch.sigmoid(R)
            C = trace[f"{prefix}.sigma_S_C"] = torch.sigmoid(C)
        P = factor_product(R, C)
    if options.variant != "non" and options.sigmoid_on == "factors":
        Q = options.gain * P
    else:
        Q = core_sigmoid(P, options.gain)
    trace |= {f"{prefix}.P": P, f"{prefix}.Q": Q}
    return Q


def psi(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    """Repeat a core (B, d_r, d_c) to the shape of W, (B, d_m, d_n)."""
    f_r, f_c = d_m // Q.shape[1], d_n // Q.shape[2]
    if mode == "block":
        return Q.repeat_interleave(f_r, dim=1).repeat_interleave(f_c, dim=2)
    return Q.tile((1, f_r, f_c))


def jensen_shannon(t_pos: Tensor, t_neg: Tensor) -> Tensor:
    """-mean[log T+ + log(1 - T-)] with T = sigmoid(t): equation (7) as printed."""
    return -(functional.logsigmoid(t_pos) + functional.logsigmoid(-t_neg)).mean()


def cross_entropy(z: Tensor, y: Tensor, kind: str) -> Tensor:
    """Mean over the batch of the whole cross-entropy, or of its positive half (3.8 row 13)."""
    if kind == "positive_only":
        return -(y * functional.logsigmoid(z)).mean()
    return functional.binary_cross_entropy_with_logits(z, y)


def joint_loss(ce: Tensor, auxiliary: Params, weights: dict[str, float]) -> Tensor:
    """L = L_ce + the auxiliary terms, each by its weight (3.3, equation (8))."""
    return ce + sum(weights[name] * term for name, term in auxiliary.items())
