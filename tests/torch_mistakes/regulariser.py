"""Mistakes in the mutual-information regulariser, in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch_reference.blocks import jensen_shannon, joint_loss, mlp, psi, stop
from torch_reference.midpg import pair, read, score, shuffled

from midpg_np.tree import tree_flatten, tree_unflatten
from torch_mistakes.carrier import Carrier, Tensors, changed, differentiated_as

# --- pairs ----------------------------------------------------------------------------------------


def gathered(e: Tensor, partner: Tensor) -> Tensor:
    """What the gradient of row b takes from row partner[b], a scatter by the inverse has."""
    return differentiated_as(shuffled(e, partner), shuffled(e, torch.argsort(partner)))


def own_row(e: Tensor, partner: Tensor) -> Tensor:
    return differentiated_as(shuffled(e, partner), e)


def negatives_detached(e: Tensor, partner: Tensor) -> Tensor:
    return stop(shuffled(e, partner))


def by_the_inverse(e: Tensor, partner: Tensor) -> Tensor:
    negative = torch.empty_like(e)
    negative[partner] = e
    return negative


def features_shuffled(e: Tensor, partner: Tensor) -> Tensor:
    return torch.roll(e, 1, dims=1)


class BothSidesShuffled:
    """Negative pairs whose core comes from the same row as their context."""

    def shuffled(self, e: Tensor, partner: Tensor) -> Tensor:
        self.partner = partner
        return shuffled(e, partner)

    def pair(self, e: Tensor, q: Tensor, at: str) -> Tensor:
        return pair(e, q[self.partner] if at.endswith("neg") else q, at)


def positive_context_detached(e: Tensor, q: Tensor, at: str) -> Tensor:
    return pair(stop(e) if at.endswith("pos") else e, q, at)


# --- what the discriminator reads -----------------------------------------------------------------


def core_detached(*args: Any) -> Tensor:
    return stop(read(*args))


def reversed_gradient(*args: Any) -> Tensor:
    return changed(read(*args), torch.neg)


def before_sigmoid(params: Any, name: str, source: str, options: Any, trace: Tensors) -> Tensor:
    return trace[f"{source}.P"].flatten(1)


def detached_in_the_backbone(Q: Tensor, d_m: int, d_n: int, mode: str) -> Tensor:
    return psi(stop(Q), d_m, d_n, mode)


# --- discriminator and loss -----------------------------------------------------------------------


def over_both_kinds(t_pos: Tensor, t_neg: Tensor) -> Tensor:
    t = torch.cat([t_pos, t_neg])
    is_matching = torch.cat([torch.ones_like(t_pos), torch.zeros_like(t_neg)])
    return functional.binary_cross_entropy_with_logits(t, is_matching)


def summed(t_pos: Tensor, t_neg: Tensor) -> Tensor:
    return -(functional.logsigmoid(t_pos) + functional.logsigmoid(-t_neg)).sum()


def labels_exchanged(t_pos: Tensor, t_neg: Tensor) -> Tensor:
    return jensen_shannon(t_neg, t_pos)


def matching_only(t_pos: Tensor, t_neg: Tensor) -> Tensor:
    return -functional.logsigmoid(t_pos).mean()


def first_layer_only(losses: list[Tensor], options: Any) -> Tensor:
    return losses[0].clone()


def subtracted(ce: Tensor, auxiliary: Tensors, weights: dict[str, float]) -> Tensor:
    return joint_loss(ce, auxiliary, {name: -weight for name, weight in weights.items()})


def unweighted(ce: Tensor, auxiliary: Tensors, weights: dict[str, float]) -> Tensor:
    return joint_loss(ce, auxiliary, dict.fromkeys(weights, 1.0))


def linear_discriminator(params: Any, pairs: Tensor, trace: Tensors, at: str) -> Tensor:
    return mlp(params, pairs, "identity", trace, at)


def learns_from_matching_only(
    params: Any, e: Tensor, q: Tensor, options: Any, trace: Tensors, at: str
) -> Tensor:
    if at.endswith("neg"):
        params = tree_unflatten({k: x.detach() for k, x in tree_flatten(params).items()})
    return score(params, e, q, options, trace, at)


def _midpg(**wrong: Any) -> Carrier:
    return Carrier({f"torch_reference.midpg.{name}": f for name, f in wrong.items()})


def _blocks(**wrong: Any) -> Carrier:
    return Carrier({f"torch_reference.blocks.{name}": f for name, f in wrong.items()})


BOTH = BothSidesShuffled()

MISTAKES: dict[str, Carrier] = {
    "negatives gathered in place of scattered": _midpg(shuffled=gathered),
    "negatives' gradient at their own row": _midpg(shuffled=own_row),
    "negatives detached": _midpg(shuffled=negatives_detached),
    "shuffled by the inverse permutation": _midpg(shuffled=by_the_inverse),
    "features shuffled in place of rows": _midpg(shuffled=features_shuffled),
    "both sides of a negative pair shuffled": _midpg(shuffled=BOTH.shuffled, pair=BOTH.pair),
    "positive pairs' context detached": _midpg(pair=positive_context_detached),
    "context detached in the regulariser": Carrier(options={"mi_detach_context": True}),
    "detach of the context missing in the regulariser": Carrier(
        options={"mi_detach_context": False}
    ),
    "core detached in the regulariser": _midpg(read=core_detached),
    "generator plays against the discriminator": _midpg(read=reversed_gradient),
    "regulariser's share overwrites the core's gradient": Carrier(
        {"torch_reference.dpg.psi": detached_in_the_backbone}
    ),
    "discriminator reads the core before its sigmoid": _midpg(read=before_sigmoid),
    # mi_grad_to="disc" detaches the context too, which stays as it is
    "detach of the core missing in the regulariser": Carrier(
        options={"mi_grad_to": "all", "mi_detach_context": True}
    ),
    "regulariser averaged over 2B": _blocks(jensen_shannon=over_both_kinds),
    "regulariser summed over the batch": _blocks(jensen_shannon=summed),
    "labels of the pairs exchanged": _blocks(jensen_shannon=labels_exchanged),
    "negative pairs missing from the loss": _blocks(jensen_shannon=matching_only),
    "regulariser summed over the layers": Carrier(options={"mi_reduce": "sum"}),
    "regulariser of the first layer only": _midpg(reduced=first_layer_only),
    "regulariser subtracted from the loss": _blocks(joint_loss=subtracted),
    "lambda forgotten": _blocks(joint_loss=unweighted),
    "discriminator without its hidden ReLU": _midpg(discriminator=linear_discriminator),
    "discriminator learns from matching pairs only": _midpg(score=learns_from_matching_only),
}
