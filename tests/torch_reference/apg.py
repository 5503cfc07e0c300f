"""APG in PyTorch, from derivations 9: one row after the other, by column vectors.

``trace`` receives every quantity of the definition under its name, and of each layer what its other
form builds on the way: "layer_1.US" and "layer_1.T", the product of all three factors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    E_aw = X[:, : options.n_aware * options.dim_embedding]
    trace["E_aw"] = E_aw
    H = X
    for i in range(1, len(options.hidden) + 1):
        z = condition(E_aw, H, options)
        A = layer(params[f"layer_{i}"], H, z, options, trace, f"layer_{i}")
        H = trace[f"H_{i + 1}"] = ACTIVATIONS[options.activation](A)
    out = trace["head.output"] = H @ params["head"]["W"] + params["head"]["b"]
    trace["logit"] = out[:, 0]
    return trace["logit"], {}


def each_row(function: Callable[..., Tensor], *stacks: Tensor) -> Tensor:
    """Apply a function to one row after the other."""
    return torch.stack([function(*rows) for rows in zip(*stacks, strict=True)])


def condition(E_aw: Tensor, H: Tensor, options: Any) -> Tensor:
    """What the generators of a layer read (9.1)."""
    parts = {"group": [E_aw], "self": [H], "mix": [E_aw, H]}[options.condition]
    return torch.cat(parts, dim=1)


def layer(params: Params, H: Tensor, z: Tensor, options: Any, trace: Any, name: str) -> Tensor:
    """a = U S V h + b of every row, with U, S, V matrices and h a column (9.1)."""
    U, V = matrix(params, "U"), matrix(params, "V")
    S = core(generate(params["generator"], z, trace, f"{name}.generator"), options.rank)
    Q = before_core(H, V)
    R = through_core(S, Q)
    product = behind_core(R, U)
    if options.generate_bias:
        b = generate(params["bias_generator"], z, trace, f"{name}.bias_generator")
    else:
        b = params["b"]
    values = {"z": z, "U": U, "V": V, "S": S, "Q": Q, "R": R, "product": product}
    values |= {"A": with_bias(product, b), "US": U @ S, "T": U @ S @ V}
    trace |= {f"{name}.{key}": value for key, value in values.items()}
    return values["A"]


def matrix(params: Params, name: str) -> Tensor:
    """U (d_out, K) or V (K, d_in), multiplied out if it is over-parameterised."""
    if name in params:
        return params[name]
    return multiplied_out(params[f"{name}_left"], params[f"{name}_right"])


def multiplied_out(left: Tensor, right: Tensor) -> Tensor:
    """Product of the two wide factors."""
    return left @ right


def generate(network: Params, z: Tensor, trace: Any, name: str) -> Tensor:
    """Run a network with ReLU between its layers."""
    y = z
    for i in range(1, len(network) + 1):
        W, b = network[f"layer_{i}"]["W"], network[f"layer_{i}"]["b"]
        y = affine(y, W, b)
        trace[f"{name}.output" if i == len(network) else f"{name}.A_{i}"] = y
        if i < len(network):
            y = trace[f"{name}.H_{i}"] = between(y)
    return y


def affine(y: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """W^T y + b for every row y."""
    return each_row(lambda row: torch.mv(W.T, row) + b, y)


def between(a: Tensor) -> Tensor:
    """What stands between the layers of a generator, whatever the backbone has."""
    return torch.relu(a)


def core(s: Tensor, rank: int) -> Tensor:
    """S: the entries s of each row cut into rows of the matrix."""
    return each_row(lambda row: torch.stack(torch.split(row, rank)), s)


def before_core(H: Tensor, V: Tensor) -> Tensor:
    """q = V h."""
    return each_row(lambda h: torch.mv(V, h), H)


def through_core(S: Tensor, Q: Tensor) -> Tensor:
    """r = S q."""
    return each_row(torch.mv, S, Q)


def behind_core(R: Tensor, U: Tensor) -> Tensor:
    """U r."""
    return each_row(lambda r: torch.mv(U, r), R)


def with_bias(product: Tensor, b: Tensor) -> Tensor:
    """Add a bias (d_out,) that all rows share, or one for each row."""
    return product + b
