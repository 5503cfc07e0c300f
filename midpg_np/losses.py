"""Losses on logits.  No probability is formed, clipped or logged on the differentiable path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.ops import sigmoid, softplus


class CrossEntropyCache(NamedTuple):
    """Inputs of a cross-entropy; ``dz`` for d_loss = 1 where a kernel left it."""

    z: Array
    y: Array
    weight: Array | None
    dz: Array | None = None


def cross_entropy(
    z: Array, y: Array, weight: Array | None = None
) -> tuple[Array, CrossEntropyCache]:
    """Binary cross-entropy on logits, in nats: mean of softplus(z) - y z, or a sum with weights.

    See derivations 2.5a.

    Backward (derivations 2.5b): dz = (sigmoid(z) - y) / B, or (sigmoid(z) - y) weight.

    Shapes
    ------
    z : (B,)
    y : (B,)
    weight : (B,)
        Weights of the rows, summing to 1; None means 1 / B for each.
    """
    given = (z, y) if weight is None else (z, y, weight)
    if y.dtype == z.dtype and kernels.fuses(*given):
        loss, dz = kernels.cross_entropy(*given)
        return loss, CrossEntropyCache(z, y, weight, dz)
    return _reduced(softplus(z)[0] - y * z, z, y, weight)


def cross_entropy_backward(d_loss: Array, cache: CrossEntropyCache) -> Array:
    """Return ``dz``, given the adjoint ``d_loss`` of the loss, a scalar (derivations 2.5b)."""
    z, y, weight, dz = cache
    if dz is not None:
        return d_loss * dz
    return _weighted(d_loss * (sigmoid(z)[0] - y), weight)


def positive_cross_entropy(
    z: Array, y: Array, weight: Array | None = None
) -> tuple[Array, CrossEntropyCache]:
    """Mean of -y log sigmoid(z): the cross-entropy as printed in the paper, for demonstration.

    See derivations 2.5c.

    It has no term for negatives, so a model that always says "yes" minimises it; see
    derivations 3.8, row 13.

    Backward (derivations 2.5d): dz = -y (1 - sigmoid(z)) / B, or with weights.

    Shapes
    ------
    z : (B,)
    y : (B,)
    weight : (B,)
        As in ``cross_entropy``.
    """
    return _reduced(y * softplus(-z)[0], z, y, weight)


def positive_cross_entropy_backward(d_loss: Array, cache: CrossEntropyCache) -> Array:
    """Return ``dz`` (derivations 2.5d)."""
    z, y, weight, _ = cache
    return _weighted(-d_loss * y * sigmoid(-z)[0], weight)


def _reduced(
    terms: Array, z: Array, y: Array, weight: Array | None
) -> tuple[Array, CrossEntropyCache]:
    get_xp(z=z, y=y)
    loss = terms.mean() if weight is None else (weight * terms).sum()
    return loss, CrossEntropyCache(z, y, weight)


def _weighted(d_terms: Array, weight: Array | None) -> Array:
    return d_terms / d_terms.shape[0] if weight is None else d_terms * weight


def scenario_mean_weights(scenario: Array, dtype: Any) -> Array:
    """Weights under which a sum over rows is the mean over scenarios of their means.

    With M scenarios in the batch, n_d rows of scenario d: weight_i = 1 / (M n_(s_i)), so that a
    large scenario does not drown the others (derivations 2.5e).

    Shapes
    ------
    scenario : (B,)
    """
    xp = get_xp(scenario=scenario)
    present, group, counts = xp.unique(scenario, return_inverse=True, return_counts=True)
    return (1.0 / (present.shape[0] * counts)).astype(dtype)[group]


# How a loss weighs the rows of a batch: None for 1 / B each.
LOSS_REDUCTIONS: dict[str, Callable[[Array, Any], Array] | None] = {
    "mean": None,
    "scenario_mean": scenario_mean_weights,
}


class JensenShannonCache(NamedTuple):
    """Logits of matching and of shuffled pairs."""

    t_pos: Array
    t_neg: Array


def jensen_shannon(t_pos: Array, t_neg: Array) -> tuple[Array, JensenShannonCache]:
    """Regulariser of equation (7): mean of softplus(-t_pos) + softplus(t_neg) (derivations 3.3b).

    In nats.  It equals -mean[log T+ + log(1 - T-)] with T = sigmoid(t), so minimising it raises the
    Jensen-Shannon (f-GAN) lower bound on the dependence of the two sides of a pair.  At t = 0 its
    value is 2 log 2.  The mean is over B pairs of each kind, not over 2B.

    Backward (derivations 3.4p): dt_pos = (sigmoid(t_pos) - 1) / B, dt_neg = sigmoid(t_neg) / B.

    Shapes
    ------
    t_pos : (B,)
    t_neg : (B,)
    """
    if kernels.fuses(t_pos, t_neg):
        return kernels.jensen_shannon(t_pos, t_neg), JensenShannonCache(t_pos, t_neg)
    get_xp(t_pos=t_pos, t_neg=t_neg)
    loss = (softplus(-t_pos)[0] + softplus(t_neg)[0]).mean()
    return loss, JensenShannonCache(t_pos, t_neg)


def jensen_shannon_backward(d_loss: Array, cache: JensenShannonCache) -> tuple[Array, Array]:
    """Return ``dt_pos, dt_neg`` (derivations 3.4p)."""
    t_pos, t_neg = cache
    if kernels.fuses(t_pos, t_neg):
        dt_pos, dt_neg = kernels.jensen_shannon_backward(d_loss, t_pos, t_neg)
        return dt_pos, dt_neg
    scale = d_loss / t_pos.shape[0]
    return -scale * sigmoid(-t_pos)[0], scale * sigmoid(t_neg)[0]


class Loss(NamedTuple):
    """A classification loss ``forward(z, y, weight=None)`` with its backward."""

    forward: Callable[..., tuple[Array, CrossEntropyCache]]
    backward: Callable[[Array, CrossEntropyCache], Array]


CROSS_ENTROPIES: dict[str, Loss] = {
    "full": Loss(cross_entropy, cross_entropy_backward),
    "positive_only": Loss(positive_cross_entropy, positive_cross_entropy_backward),
}
