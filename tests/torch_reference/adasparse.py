"""AdaSparse in PyTorch, from equations.md section 8.1: one example at a time.

``trace`` receives the intermediates of every layer, stacked to (B, .) at the end.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup


def weights(options: Any) -> dict[str, float]:
    """Weight of each auxiliary term in the loss."""
    return {"sparsity": options.sparsity_weight}


def advance(leaves: dict[str, Tensor], trace: Params, options: Any) -> dict[str, Tensor]:
    """One training step more."""
    return {"schedule.step": leaves["schedule.step"] + 1}


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and, in training, the regulariser."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes)
    d_aw = options.n_aware * options.dim_embedding
    trace |= {"X": X, "E_aw": X[:, :d_aw]}
    rows = defaultdict(list)
    alpha = scheduled(params, options, options.alpha_start, options.alpha_end)
    z = torch.stack(
        [example(params, x, x[:d_aw], alpha, options, rows, training=training) for x in X]
    )
    trace |= {key: torch.stack(values) for key, values in rows.items()}
    if not training or options.sparsity_weight == 0:
        return z, {}
    return z, {"sparsity": regulariser(params, options, trace)}


def layer_names(options: Any) -> list[str]:
    """Layers of the backbone, in order."""
    return [*(f"layer_{i}" for i in range(1, len(options.hidden) + 1)), "head"]


def scheduled(params: Params, options: Any, start: float, end: float) -> Tensor:
    """A constant at the current step."""
    step = params["schedule"]["step"].detach()[0]
    if step >= options.schedule_steps:
        return torch.as_tensor(end, dtype=step.dtype)
    return start + (end - start) * step / options.schedule_steps


def example(
    params: Params, x: Tensor, e: Tensor, alpha: Tensor, options: Any, rows: Any, *, training: bool
) -> Tensor:
    """Logit of one example; every vector on the way is appended to ``rows``."""
    h = x
    for name in layer_names(options):
        layer, on_input = params[name], h is x
        if on_input and options.prune_input == "none":
            kept = h
        else:
            u = torch.cat([e, h])
            factors = pruner(layer["pruner"], u, alpha, options, rows, name, training=training)
            n_plain = len(e) if on_input and options.prune_input == "agnostic_only" else 0
            kept = torch.cat([h[:n_plain], h[n_plain:] * factors])
            rows[f"{name}.U"].append(u)
            rows[f"{name}.H_last"].append(h[n_plain:])
        a = kept @ layer["W"] + layer["b"]
        rows[f"{name}.H"].append(h)
        rows[f"{name}.H_pruned"].append(kept)
        rows[f"{name}.A"].append(a)
        h = a if name == "head" else ACTIVATIONS[options.activation](a)
    return h[0]


def pruner(
    params: Params, u: Tensor, alpha: Tensor, options: Any, rows: Any, name: str, *, training: bool
) -> Tensor:
    """Factors of one example's neurons, one neuron at a time."""
    found = defaultdict(list)
    for j in range(params["W"].shape[1]):
        v_in = u @ params["W"][:, j] + params["b"][j]
        if options.prune == "scaling":
            y = torch.sigmoid(v_in)
            v = pi = options.beta * y
        else:
            y = torch.sigmoid(alpha * v_in)
            v = y if options.prune == "binarization" else options.beta * y
            kept = 1.0 if v.item() > options.epsilon else 0.0
            pi = with_threshold(v, kept, options, training=training)
            hard = kept if options.prune == "binarization" else v * kept
            found["hard - v"].append((hard - v).detach())
        for key, value in (("v_in", v_in), ("y", y), ("v", v), ("pi", pi)):
            found[key].append(value)
    for key, values in found.items():
        rows[f"{name}.{key}"].append(torch.stack(values))
    return torch.stack(found["pi"])


def with_threshold(v: Tensor, kept: float, options: Any, *, training: bool) -> Tensor:
    """Factor of one neuron; what is detached is a straight-through gradient's business."""
    if options.prune == "fusion":
        if options.fusion_grad == "ste":
            return v + (v * kept - v).detach()
        return v if kept else torch.zeros_like(v)
    if options.binarize_grad == "zero":
        return torch.full_like(v, kept)
    if options.binarize_grad == "soft":
        return v if training else torch.full_like(v, kept)
    return v + (kept - v).detach()


def regulariser(params: Params, options: Any, trace: Params) -> Tensor:
    """R_s of section 8.1; factors are not negative, so their sum is their 1-norm."""
    lambda_hat = scheduled(params, options, options.lambda_start, options.lambda_end)
    target = (options.r_min + options.r_max) / 2
    names = [name for name in layer_names(options) if f"{name}.pi" in trace]
    total = torch.zeros((), dtype=lambda_hat.dtype)
    for name in names:
        pi = trace[f"{name}.pi"]
        groups = [pi] if options.ratio == "batch" else list(pi)
        found = defaultdict(list)
        for group in groups:
            r = 1 - group.sum() / group.numel()
            distance = torch.abs(r - target)
            inside = options.r_min <= r.item() <= options.r_max
            weight = torch.zeros_like(r) if inside else lambda_hat * distance
            if options.lambda_detach:
                weight = weight.detach()
            for key, value in (("r", r), ("distance", distance), ("weight", weight)):
                found[key].append(value)
            total = total + weight * distance / len(groups) / len(names)
        trace |= {f"{name}.{key}": torch.stack(values) for key, values in found.items()}
    return total
