"""Mistakes in plain layers and in what a prediction returns, in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, lookup, mlp
from torch_reference.dpg import activated

from torch_mistakes import carrier
from torch_mistakes.carrier import Carrier, Tensors, changed, differentiated_as

predict = carrier.predict  # the right one, while another stands in its place


def not_activated(A: Tensor, options: Any) -> Tensor:
    return A.clone()


def activated_without_derivative(A: Tensor, options: Any) -> Tensor:
    return differentiated_as(activated(A, options), A)


def linear_mlp(params: Any, x: Tensor, activation: str, trace: Tensors, prefix: str) -> Tensor:
    return mlp(params, x, "identity", trace, prefix)


def mlp_without_derivatives(
    params: Any, x: Tensor, activation: str, trace: Tensors, prefix: str
) -> Tensor:
    *hidden, last = params.values()
    for i, layer in enumerate(hidden, start=1):
        A = trace[f"{prefix}.A_{i}"] = x @ layer["W"] + layer["b"]
        x = trace[f"{prefix}.H_{i}"] = differentiated_as(ACTIVATIONS[activation](A), A)
    trace[f"{prefix}.output"] = x @ last["W"] + last["b"]
    return trace[f"{prefix}.output"]


def activated_logit(
    reference: Any, params: Any, rows: Any, options: Any, trace: Tensors, *, training: bool
) -> tuple[Tensor, Tensors]:
    z, auxiliary = predict(reference, params, rows, options, trace, training=training)
    return ACTIVATIONS[options.activation](z), auxiliary


def probability(*args: Any, training: bool) -> tuple[Tensor, Tensors]:
    z, auxiliary = predict(*args, training=training)
    return z if training else torch.sigmoid(z), auxiliary


def averaged_biases(
    reference: Any, params: Any, rows: Any, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensors]:
    """Run with biases of the backbone that receive the mean over the rows."""

    def averaged(layer: Any) -> Any:
        b = changed(layer["b"], lambda db: db / len(rows.label))
        return {**layer, "b": b}

    params = {name: averaged(x) if "b" in x else x for name, x in params.items()}
    if "mlp" in params:
        params["mlp"] = {name: averaged(layer) for name, layer in params["mlp"].items()}
    return predict(reference, params, rows, *args, **kwargs)


def without_context(
    reference: Any, params: Any, rows: Any, options: Any, trace: Tensors, *, training: bool
) -> tuple[Tensor, Tensors]:
    X = lookup(params["embedding"]["table"], rows.codes, options.vocab_sizes, trace)
    n = options.n_aware * options.dim_embedding
    cleared = torch.cat([torch.zeros_like(X[:, :n]), X[:, n:]], dim=1)
    return mlp(params["mlp"], cleared, options.activation, trace, "mlp").squeeze(1), {}


def _predict(wrong: Any) -> Carrier:
    return Carrier({"torch_mistakes.carrier.predict": wrong})


MISTAKES: dict[str, Carrier] = {
    "backbone without activations": Carrier(
        {"torch_reference.dpg.activated": not_activated, "torch_reference.dnn.mlp": linear_mlp}
    ),
    "activation's derivative forgotten": Carrier(
        {
            "torch_reference.dpg.activated": activated_without_derivative,
            "torch_reference.dnn.mlp": mlp_without_derivatives,
        }
    ),
    "activation behind the logit": _predict(activated_logit),
    "gradient of the biases averaged over the batch": _predict(averaged_biases),
    "scenario-aware fields left out of the input": _predict(without_context),
    "prediction returns a probability": _predict(probability),
}
