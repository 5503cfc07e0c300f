"""AdaSparse in PyTorch, from derivations 8.1.

``trace`` receives every quantity of the definition under its name, and "layer_1.y", ...: the soft
values without their gain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup, stop


def weights(options: Any) -> dict[str, float]:
    """Weight of each auxiliary term in the loss."""
    return {"sparsity": options.sparsity_weight}


def advance(leaves: dict[str, Tensor], trace: Params, options: Any) -> dict[str, Tensor]:
    """State after a step."""
    return {"schedule.step": trace["next.schedule.step"]}


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and, in training, the regulariser."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    E_aw = trace["E_aw"] = X[:, : options.n_aware * options.dim_embedding]
    t = steps_done(params["schedule"]["step"].detach(), training)
    trace["alpha"] = scheduled(t, options.alpha_start, options.alpha_end, options)
    H = X
    for i, name in enumerate(layer_names(options), start=1):
        kept = H
        if is_pruned(name, options):
            U = trace[f"{name}.U"] = pruner_input(E_aw, H)
            pi = factors(params[name]["pruner"], U, options, trace, name, training=training)
            kept = trace[f"{name}.H_pruned"] = pruned_inputs(H, pi, options, trace, name)
        H = trace[f"{name}.A"] = layer_map(kept, params[name]["W"], params[name]["b"])
        if name != "head":
            H = trace[f"H_{i + 1}"] = ACTIVATIONS[options.activation](H)
    if training:
        trace["next.schedule.step"] = counted(params["schedule"]["step"], options)
    if not training or options.sparsity_weight == 0:
        return H[:, 0], {}
    lambda_hat = scheduled(t, options.lambda_start, options.lambda_end, options)
    trace["lambda_hat"] = lambda_hat
    return H[:, 0], {"sparsity": regulariser(lambda_hat, options, trace)}


# --- layers and schedule --------------------------------------------------------------------------


def layer_names(options: Any) -> list[str]:
    """Layers of the backbone, in order."""
    return [*(f"layer_{i}" for i in range(1, len(options.hidden) + 1)), "head"]


def is_pruned(name: str, options: Any) -> bool:
    """Whether a layer has a pruner."""
    return options.prune_input != "none" or name != layer_names(options)[0]


def steps_done(step: Tensor, training: bool) -> Tensor:
    """The count that the schedule follows, (1,)."""
    return step


def scheduled(t: Tensor, start: float, end: float, options: Any) -> Tensor:
    """A constant after t steps, (1,)."""
    if t.item() >= options.schedule_steps:
        return torch.full_like(t, end)
    return start + (end - start) * t / options.schedule_steps


def counted(step: Tensor, options: Any) -> Tensor:
    """One training step more."""
    return step + 1


def layer_map(kept: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """A of a layer, from inputs that are pruned already."""
    return kept @ W + b


# --- factors --------------------------------------------------------------------------------------


def pruner_input(E_aw: Tensor, H: Tensor) -> Tensor:
    """[E_aw, H]."""
    return torch.cat([E_aw, H], dim=1)


def factors(
    params: Params, U: Tensor, options: Any, trace: Params, name: str, *, training: bool
) -> Tensor:
    """The factors pi (B, N) of one layer."""
    a = trace[f"{name}.v_in"] = U @ params["W"] + params["b"]
    if options.prune != "scaling":
        a = trace[f"{name}.alpha_v_in"] = tempered(a, trace["alpha"])
    gain = 1.0 if options.prune == "binarization" else options.beta
    v = trace[f"{name}.v"] = soft_value(a, gain)
    trace[f"{name}.y"] = v.detach() / gain
    if not has_threshold(options, training):
        pi = v * 1.0
    else:
        kept = trace[f"{name}.kept"] = mask(v, gain, options)
        pi = with_threshold(v, kept, options, trace, name)
    trace[f"{name}.pi"] = pi
    return pi


def tempered(v_in: Tensor, alpha: Tensor) -> Tensor:
    """Input of the sigmoid."""
    return alpha * v_in


def soft_value(a: Tensor, gain: float) -> Tensor:
    """v in (0, gain)."""
    return gain * torch.sigmoid(a)


def has_threshold(options: Any, training: bool) -> bool:
    """Whether small soft values become 0."""
    is_soft = options.prune == "binarization" and options.binarize_grad == "soft" and training
    return options.prune != "scaling" and not is_soft


def mask(v: Tensor, gain: float, options: Any) -> Tensor:
    """1 where the soft value, its gain included, passes the threshold, else 0."""
    return (v > options.epsilon).long()


def with_threshold(v: Tensor, kept: Tensor, options: Any, trace: Params, name: str) -> Tensor:
    """Factors, with the gradient that the options choose."""
    hard = hard_value(v, kept, options)
    is_binary = options.prune == "binarization"
    if (options.binarize_grad if is_binary else options.fusion_grad) == "ste":
        trace |= {f"{name}.hard": hard, f"{name}.gap": hard - v}
        trace[f"{name}.sg_gap"] = stop(trace[f"{name}.gap"])
        return straight_through(v, trace[f"{name}.sg_gap"], hard)
    return hard if hard.requires_grad else stop(hard)


def hard_value(v: Tensor, kept: Tensor, options: Any) -> Tensor:
    """1 or 0, or the soft value or 0."""
    return kept.to(v.dtype) if options.prune == "binarization" else v * kept


def straight_through(v: Tensor, sg_gap: Tensor, hard: Tensor) -> Tensor:
    """The hard value, with the gradient of the soft one."""
    return v + sg_gap


def pruned_inputs(H: Tensor, pi: Tensor, options: Any, trace: Params, name: str) -> Tensor:
    """H pi; of the input perhaps its last columns only."""
    n_plain = H.shape[1] - pi.shape[1]
    if n_plain == 0:
        return product(H, pi, name)
    plain, last = divided(H, n_plain)
    pruned = product(last, pi, name)
    trace |= {f"{name}.H_plain": plain, f"{name}.H_last": last, f"{name}.H_last_pruned": pruned}
    return joined(plain, pruned)


def product(H: Tensor, pi: Tensor, name: str) -> Tensor:
    """Scale or remove neurons."""
    return H * pi


def divided(H: Tensor, n_plain: int) -> tuple[Tensor, Tensor]:
    """Columns that are left alone, and those that have factors."""
    return H[:, :n_plain], H[:, n_plain:]


def joined(plain: Tensor, pruned: Tensor) -> Tensor:
    """Put the columns back in their places."""
    return torch.cat([plain, pruned], dim=1)


# --- regulariser ----------------------------------------------------------------------------------


def regulariser(lambda_hat: Tensor, options: Any, trace: Params) -> Tensor:
    """R_s of section 8.1; factors are not negative, so their sum is their 1-norm."""
    target = (options.r_min + options.r_max) / 2
    penalties = []
    for name in filter(lambda name: is_pruned(name, options), layer_names(options)):
        r = share(trace[f"{name}.pi"], options)
        distance = torch.abs(r - target)
        outside = ((r < options.r_min) | (r > options.r_max)).long()
        weight = penalty_weight(distance, outside, lambda_hat)
        trace |= {f"{name}.r": r, f"{name}.distance": distance}
        trace |= {f"{name}.outside": outside, f"{name}.lambda": weight}
        if options.lambda_detach:
            weight = trace[f"{name}.sg_lambda"] = held(weight)
        penalties.append(penalty(weight, distance))
        trace[f"{name}.penalty"] = penalties[-1]
    return over_layers(penalties)


def share(pi: Tensor, options: Any) -> Tensor:
    """Share of what is pruned, (1,), or (B,) if each example has its own."""
    if options.ratio == "batch":
        return (1 - pi.sum() / pi.numel()).reshape(1)
    return 1 - pi.sum(dim=1) / pi.shape[1]


def penalty_weight(distance: Tensor, outside: Tensor, lambda_hat: Tensor) -> Tensor:
    """Lambda of section 8.1: zero inside the interval."""
    return lambda_hat * distance * outside


def held(weight: Tensor) -> Tensor:
    """sg(lambda)."""
    return stop(weight)


def penalty(weight: Tensor, distance: Tensor) -> Tensor:
    """Penalty of one layer, a scalar."""
    return (weight * distance).mean()


def over_layers(penalties: list[Tensor]) -> Tensor:
    """Mean of the penalties of all pruned layers."""
    return torch.stack(penalties).mean()
