"""Losses on logits.  No probability is formed, clipped or logged on the differentiable path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.ops import sigmoid, softplus


class CrossEntropyCache(NamedTuple):
    """Inputs of a cross-entropy."""

    z: Array
    y: Array


def cross_entropy(z: Array, y: Array) -> tuple[Array, CrossEntropyCache]:
    """Binary cross-entropy on logits: mean of softplus(z) - y z.

    Backward (equations.md 2.5): dz = (sigmoid(z) - y) / B.

    Shapes
    ------
    z : (B,)
    y : (B,)
    """
    get_xp(z=z, y=y)
    return (softplus(z)[0] - y * z).mean(), CrossEntropyCache(z, y)


def cross_entropy_backward(d_loss: Array, cache: CrossEntropyCache) -> Array:
    """Return ``dz``."""
    z, y = cache
    return d_loss * (sigmoid(z)[0] - y) / z.shape[0]


def positive_cross_entropy(z: Array, y: Array) -> tuple[Array, CrossEntropyCache]:
    """Mean of -y log sigmoid(z): the cross-entropy as printed in the paper, for demonstration.

    It has no term for negatives, so a model that always says "yes" minimises it; see
    equations.md 3.8, row 13.  Backward: dz = -y (1 - sigmoid(z)) / B.

    Shapes
    ------
    z : (B,)
    y : (B,)
    """
    get_xp(z=z, y=y)
    return (y * softplus(-z)[0]).mean(), CrossEntropyCache(z, y)


def positive_cross_entropy_backward(d_loss: Array, cache: CrossEntropyCache) -> Array:
    """Return ``dz``."""
    z, y = cache
    return -d_loss * y * sigmoid(-z)[0] / z.shape[0]


class JensenShannonCache(NamedTuple):
    """Logits of matching and of shuffled pairs."""

    t_pos: Array
    t_neg: Array


def jensen_shannon(t_pos: Array, t_neg: Array) -> tuple[Array, JensenShannonCache]:
    """Regulariser of equation (7): mean of softplus(-t_pos) + softplus(t_neg).

    It equals -mean[log T+ + log(1 - T-)] with T = sigmoid(t), so minimising it raises the
    Jensen-Shannon (f-GAN) lower bound on the dependence of the two sides of a pair.  At t = 0 its
    value is 2 log 2.  The mean is over B pairs of each kind, not over 2B.

    Backward (equations.md 3.4): dt_pos = (sigmoid(t_pos) - 1) / B, dt_neg = sigmoid(t_neg) / B.

    Shapes
    ------
    t_pos : (B,)
    t_neg : (B,)
    """
    get_xp(t_pos=t_pos, t_neg=t_neg)
    loss = (softplus(-t_pos)[0] + softplus(t_neg)[0]).mean()
    return loss, JensenShannonCache(t_pos, t_neg)


def jensen_shannon_backward(d_loss: Array, cache: JensenShannonCache) -> tuple[Array, Array]:
    """Return ``dt_pos, dt_neg``."""
    t_pos, t_neg = cache
    scale = d_loss / t_pos.shape[0]
    return -scale * sigmoid(-t_pos)[0], scale * sigmoid(t_neg)[0]


class Loss(NamedTuple):
    """A classification loss with its backward."""

    forward: Callable[[Array, Array], tuple[Array, CrossEntropyCache]]
    backward: Callable[[Array, CrossEntropyCache], Array]


CROSS_ENTROPIES: dict[str, Loss] = {
    "full": Loss(cross_entropy, cross_entropy_backward),
    "positive_only": Loss(positive_cross_entropy, positive_cross_entropy_backward),
}
