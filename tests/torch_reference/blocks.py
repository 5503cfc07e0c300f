"""Building blocks of the PyTorch reference, from equations.md sections 2 and 3.

Only forward passes, in the definitional form: every weighting matrix is built, every gradient comes
from autograd.  Nothing here knows the package; parameters are nested dictionaries of tensors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Core(NamedTuple):
    """Factors, what the gain or the sigmoid is applied to, the core, generator outputs (B, .)."""

    R: Tensor | None
    C: Tensor | None
    P: Tensor
    Q: Tensor
    generated: Tensor


def core(params: Params, U: Tensor, d_r: int, d_c: int, options: Any) -> Core:
    """Generate Q_b (d_r, d_c) from U_b (3.2, and 3.8 row 5)."""
    n_rows, gain = U.shape[0], options.gain
    if options.variant == "non":
        generated = mlp(params["core_generator"], U)
        P = generated.reshape(n_rows, d_r, d_c)
        return Core(None, None, P, gain * torch.sigmoid(P), generated)
    generated = []
    if options.variant in ("r", "rc"):
        generated.append(mlp(params["row_generator"], U))
        R = generated[-1].reshape(n_rows, d_r, -1)
    else:
        R = params["R_share"]
    if options.variant in ("c", "rc"):
        generated.append(mlp(params["column_generator"], U))
        C = generated[-1].reshape(n_rows, -1, d_c)
    else:
        C = params["C_share"]
    if options.sigmoid_on == "factors":
        P = torch.matmul(torch.sigmoid(R), torch.sigmoid(C))
        Q = gain * P
    else:
        P = torch.matmul(R, C)
        Q = gain * torch.sigmoid(P)
    return Core(R, C, P, Q, torch.cat(generated, dim=1))


def psi(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    """Repeat a core (B, d_r, d_c) to the shape of W, (B, d_m, d_n)."""
    f_r, f_c = d_m // Q.shape[1], d_n // Q.shape[2]
    if mode == "block":
        return Q.repeat_interleave(f_r, dim=1).repeat_interleave(f_c, dim=2)
    return Q.tile((1, f_r, f_c))


def modulated(params: Params, H: Tensor, S: Tensor, options: Any) -> Tensor:
    """A_bj = sum_i S_b,ij W_ij H_bi + b_j; with "out_in" W and S have their outputs first."""
    W, b = params["W"], params["b"]
    inputs_first = options.w_layout == "in_out"
    product = "bij,ij,bi->bj" if inputs_first else "bji,ji,bi->bj"
    if options.modulate_bias:
        b = b * S.mean(dim=1 if inputs_first else 2)
    return torch.einsum(product, S, W, H) + b


def score(params: Params, e: Tensor, q: Tensor, disc: str) -> Tensor:
    """Logit t (B,) of the pairs (e_b, q_b)."""
    if disc == "bilinear":
        return torch.einsum("bi,ij,bj->b", e, params["M"], q) + params["b"]
    return mlp(params, torch.cat([e, q], dim=1)).squeeze(1)


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
