"""How AdaSparse's reference carries the mistakes of the catalogue."""

import torch
from torch_reference import adasparse as reference
from torch_reference.blocks import stop

from torch_mistakes.carrier import Carrier, changed, differentiated_as

MODULE = "torch_reference.adasparse"
has_threshold, share = reference.has_threshold, reference.share  # as they were
pruned_inputs, layer_map = reference.pruned_inputs, reference.layer_map


def carrier(**patches):
    """Exchange functions of the reference by name."""
    return Carrier({f"{MODULE}.{name}": function for name, function in patches.items()})


# --- temperature ----------------------------------------------------------------------------------


def one_step_ahead(step, training):
    return step + 1 if training else step


def forgotten_in_prediction(step, training):
    return step if training else torch.zeros_like(step)


def once_per_pruner(step, options):
    names = reference.layer_names(options)
    return step + sum(reference.is_pruned(name, options) for name in names)


def adjoint_without_gain(a, gain):
    return gain * torch.sigmoid(changed(a, lambda da: da / gain))


def adjoint_with_gain_one(a, gain):
    v = gain * torch.sigmoid(a.detach())
    return gain * torch.sigmoid(changed(a, lambda da: da * (1 - v) / (1 - v / gain)))


TEMPERATURE = {
    "pruner without its temperature": carrier(tempered=lambda v_in, alpha: v_in * 1.0),
    "divided by the temperature": carrier(tempered=lambda v_in, alpha: v_in / alpha),
    "schedule one step ahead": carrier(steps_done=one_step_ahead),
    "prediction starts the schedule again": carrier(steps_done=forgotten_in_prediction),
    "schedule never advances": carrier(counted=lambda step, options: step * 1.0),
    "schedule advances once per pruner": carrier(counted=once_per_pruner),
    "temperature left out of the adjoint": carrier(
        tempered=lambda v_in, alpha: alpha * changed(v_in, lambda d: d / alpha)
    ),
    "gain left out of the soft value's adjoint": carrier(soft_value=adjoint_without_gain),
    "soft value's adjoint takes the gain for 1": carrier(soft_value=adjoint_with_gain_one),
}

# --- threshold ------------------------------------------------------------------------------------


def signed(v, kept, options):
    sign = (2 * kept - 1).to(v.dtype)
    return sign if options.prune == "binarization" else v * sign


def true_derivative(v, sg_gap, hard):
    """``changed`` keeps every quantity readable; plain code would return ``hard``."""
    is_binary = not hard.requires_grad
    return changed(v, lambda d: d * 0 if is_binary else d * (hard != 0)) + sg_gap


def straight_through(v, kept, options):
    hard = kept.to(v.dtype) if options.prune == "binarization" else v * kept
    return v + (hard - v).detach()


THRESHOLD = {
    "epsilon compared before the gain": carrier(
        mask=lambda v, gain, options: (v / gain > options.epsilon).long()
    ),
    "threshold gives a negative factor": carrier(hard_value=signed),
    "soft factors in prediction": carrier(
        has_threshold=lambda options, training: has_threshold(options, True)
    ),
    "true derivative of the threshold where straight-through is meant": carrier(
        straight_through=true_derivative
    ),
    "straight-through where the true derivative is meant": carrier(hard_value=straight_through),
}

# --- factors --------------------------------------------------------------------------------------


def input_not_pruned(H, pi, name):
    return H * 1.0 if name == "layer_1" else H * pi


def pruned_from_the_start(H, n_plain):
    n_pruned = H.shape[1] - n_plain
    return H[:, n_pruned:], H[:, :n_pruned]


def remembering(H, *others):
    """Keep what a layer was given beside what is left of it."""
    kept = pruned_inputs(H, *others)
    kept.before_pruning = H.detach()
    return kept


def kernel_from_unpruned(kept, W, b):
    A = layer_map(kept, W, b)
    if not hasattr(kept, "before_pruning"):
        return A
    return differentiated_as(A, layer_map(kept, W.detach(), b) + kept.before_pruning @ W)


FACTORS = {
    "input not pruned": carrier(product=input_not_pruned),
    "aware fields pruned in place of the agnostic ones": carrier(
        divided=pruned_from_the_start,
        joined=lambda plain, pruned: torch.cat([pruned, plain], dim=1),
    ),
    "hidden vector in front of the context": carrier(
        pruner_input=lambda E_aw, H: torch.cat([H, E_aw], dim=1)
    ),
    "hidden vector detached in the pruner's input": carrier(
        pruner_input=lambda E_aw, H: torch.cat([E_aw, H.detach()], dim=1)
    ),
    "context detached in the pruner's input": carrier(
        pruner_input=lambda E_aw, H: torch.cat([E_aw.detach(), H], dim=1)
    ),
    "product's share of the hidden vector forgotten": carrier(
        product=lambda H, pi, name: H.detach() * pi
    ),
    "factors detached in the product": carrier(product=lambda H, pi, name: H * pi.detach()),
    "kernel's adjoint from the input before pruning": carrier(
        pruned_inputs=remembering, layer_map=kernel_from_unpruned
    ),
}

# --- regulariser ----------------------------------------------------------------------------------


def kept_share(pi, options):
    return 1 - share(pi, options)


def summed_norm(pi, options):
    norms = pi.sum(dim=1)
    return 1 - norms if options.ratio == "per_sample" else 1 - norms.mean().reshape(1)


def other_ratio(pi, options):
    means = pi.mean(dim=1)
    return 1 - (means if options.ratio == "batch" else means.mean().expand_as(means))


def share_by_abs(pi, options):
    """``abs`` has derivative 0 at 0."""
    return share(torch.abs(pi), options)


def linear_weight(distance, outside, lambda_hat):
    return stop(lambda_hat * outside)


def loss_with(sign):
    """Exchange the joint loss, which is every model's."""

    def joint_loss(ce, auxiliary, weights):
        return ce + sign * sum(weights[name] * term for name, term in auxiliary.items())

    return Carrier({"torch_reference.blocks.joint_loss": joint_loss})


SPARSITY = {
    "r is the share that is kept": carrier(share=kept_share),
    "norm of the factors not divided by the neurons": carrier(share=summed_norm),
    "share pruned per row in place of per batch": carrier(share=other_ratio),
    "penalty linear in the distance": carrier(penalty_weight=linear_weight),
    "penalty inside the interval too": carrier(
        penalty_weight=lambda distance, outside, lambda_hat: lambda_hat * distance
    ),
    "sparsity summed over the layers": carrier(
        over_layers=lambda penalties: torch.stack(penalties).sum()
    ),
    "sparsity left out of the loss": loss_with(0.0),
    "sparsity subtracted from the loss": loss_with(-1.0),
    "weight of the penalty held constant": carrier(
        penalty=lambda weight, distance: (weight.detach() * distance).mean()
    ),
    "detach of the penalty's weight missing": carrier(held=lambda weight: weight * 1.0),
    "regulariser does not reach pruned factors": carrier(share=share_by_abs),
}

MISTAKES = TEMPERATURE | THRESHOLD | FACTORS | SPARSITY
