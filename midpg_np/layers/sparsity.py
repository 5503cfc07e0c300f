"""Sparsity regulariser: pulls the share of pruned neurons into an interval (derivations 8.1, 8.3).

Inside the interval there is no penalty.  The weight of the penalty grows with the distance, so it
is quadratic, unless that weight is held constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.layers.pruner import Stop

RATIOS = ("batch", "per_sample")


class SparsityCache(NamedTuple):
    """Shares r (R,), distances |r - middle| (R,), weights (R,) and where r is above the middle.

    R is 1 for the share of the whole batch, B for that of each sample.
    """

    shape: tuple[int, int]
    r: Array
    distance: Array
    weight: Array
    is_above: Array


@dataclass(frozen=True)
class Sparsity:
    """Mean of weight |r - middle|, with r = 1 - mean(pi) and weight = lambda_hat |r - middle|.

    The weight is 0 for r in [r_min, r_max].  That indicator counts as a constant, as the edge of
    a ReLU does.

    Parameters
    ----------
    r_min, r_max : float
        Interval without penalty; its middle is the target.
    ratio : str
        "batch": one r for all factors of a layer.  "per_sample": one for each example, and the
        mean of their penalties.
    lambda_detach : bool
        Stop the gradient through the weight.

    Raises
    ------
    ValueError
        If ``ratio`` is no known name, or ``r_min`` is above ``r_max``.
    """

    r_min: float = 0.15
    r_max: float = 0.25
    ratio: str = "batch"
    lambda_detach: bool = False

    def __post_init__(self) -> None:
        if self.ratio not in RATIOS:
            raise ValueError(f"ratio must be one of {RATIOS}; got {self.ratio!r}.")
        if not self.r_min <= self.r_max:
            raise ValueError(
                f"r_min must not be above r_max; got r_min = {self.r_min}, r_max = {self.r_max}."
            )

    @property
    def middle(self) -> float:
        """Target of r."""
        return 0.5 * (self.r_min + self.r_max)

    def forward(self, pi: Array, lambda_hat: Any, sg: Stop) -> tuple[Array, SparsityCache]:
        """Return the penalty, a scalar (derivations 8.1d, 8.1e).

        Shapes
        ------
        pi : (B, N)
        """
        mean = pi.mean(axis=1) if self.ratio == "per_sample" else pi.mean().reshape(1)
        r = 1.0 - mean  # pi >= 0, so its mean is the mean of |pi|
        gap = r - self.middle
        is_above = gap.real > 0
        distance = get_xp(pi).where(is_above, gap, -gap)
        is_outside = sg("outside", (r.real < self.r_min) | (r.real > self.r_max))
        weight = lambda_hat * distance * is_outside
        if self.lambda_detach:
            weight = sg("weight", weight)
        return (weight * distance).mean(), SparsityCache(pi.shape, r, distance, weight, is_above)

    def backward(self, d_loss: Any, cache: SparsityCache) -> Array:
        """Return ``d_pi``: the same for every factor of a group, also for factors of 0.

        See derivations 8.3b.

        It is a view that stores one number per group.
        """
        xp = get_xp(cache.r)
        n_groups, n_members = cache.r.shape[0], cache.shape[0] * cache.shape[1] // cache.r.shape[0]
        d_product = d_loss / n_groups
        # d(weight distance): both factors move with the distance, unless the weight is held.
        d_distance = d_product * cache.weight * (1.0 if self.lambda_detach else 2.0)
        dr = xp.where(cache.is_above, d_distance, -d_distance)
        d_mean = -dr / n_members
        return xp.broadcast_to(d_mean[:, None], cache.shape)
