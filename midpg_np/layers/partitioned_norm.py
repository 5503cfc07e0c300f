"""Partitioned normalisation: each scenario by statistics of its own rows (derivations 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.layers.groups import Groups, group_mean, group_share, group_sum, of_present, spread
from midpg_np.layers.initial import EMBEDDING_STD
from midpg_np.layers.scenario_mlp import rows_of
from midpg_np.ops import add_to
from midpg_np.tree import Tree

STATISTICS = ("mean", "variance")  # keys of the moving statistics; they have no gradient


class PartitionedNormCache(NamedTuple):
    """Intermediates of a forward pass.

    ``from_batch`` says of each present scenario whether mu and nu are those of its rows; where they
    are not, they are the moving statistics, and constants.

    Shapes
    ------
    mu : (M, I)
    nu : (M, I)
    from_batch : (M,)
    inverse_std : (M, I)
    X_hat : (B, I)
    gamma : (I,)
    gamma_d : (M, I)
    """

    mu: Array
    nu: Array
    from_batch: Array
    inverse_std: Array
    X_hat: Array
    gamma: Array
    gamma_d: Array
    groups: Groups


@dataclass(frozen=True)
class PartitionedNorm:
    """V_i = (gamma gamma_d) (X_i - mu_d) / sqrt(nu_d + eps) + (beta + beta_d), with d = s_i.

    Parameters
    ----------
    n_scenarios : int
        Number of scenarios D.
    dim : int
        Width of X.
    eps : float
        Added to the variance, under the root; positive.
    momentum : float
        Weight rho_m of the old value in the moving statistics, in [0, 1].
    initial_variance : float
        Moving variance at the start: that of the inputs as they are drawn.  From a start far away
        it takes some hundred batches until prediction normalises as training does.

    Raises
    ------
    ValueError
        If ``eps`` is not above 0, ``momentum`` lies outside [0, 1], or ``initial_variance`` is
        negative.
    """

    n_scenarios: int
    dim: int
    eps: float = 1e-5
    momentum: float = 0.9
    initial_variance: float = EMBEDDING_STD**2

    def __post_init__(self) -> None:
        if not self.eps > 0.0:
            raise ValueError(f"eps must be positive; got {self.eps}.")
        if not 0.0 <= self.momentum <= 1.0:
            raise ValueError(f"momentum must lie in [0, 1]; got {self.momentum}.")
        if not self.initial_variance >= 0.0:
            raise ValueError(f"initial_variance must not be negative; got {self.initial_variance}.")

    def init(self, rng: np.random.Generator) -> Tree:
        """Scales 1, shifts 0; moving mean 0 and the variance of fresh embeddings."""
        shape = (self.n_scenarios, self.dim)
        return {
            "gamma": np.ones(self.dim),
            "beta": np.zeros(self.dim),
            "scenario_gamma": np.ones(shape),
            "scenario_beta": np.zeros(shape),
            "mean": np.zeros(shape),
            "variance": np.ones(shape) * self.initial_variance,
        }

    def forward(
        self, params: Tree, X: Array, groups: Groups, *, is_training: bool
    ) -> tuple[Array, PartitionedNormCache]:
        """Normalise rows that are sorted by scenario (derivations 6.1a, 6.1b).

        In training a scenario is normalised by the mean and the biased variance of its rows; one
        with a single row, and every one at inference, by its moving statistics.

        Shapes
        ------
        X : (B, I)
        V : (B, I)
        """
        xp = get_xp(X=X, gamma=params["gamma"])
        gamma, beta = params["gamma"], params["beta"]
        gamma_d, beta_d = (
            of_present(params[f"scenario_{key}"], groups) for key in ("gamma", "beta")
        )
        mu, nu = (of_present(params[key], groups) for key in STATISTICS)
        from_batch = (groups.counts >= 2) & is_training
        is_own = from_batch[:, None]
        if is_training:
            mu = xp.where(is_own, group_mean(X, groups), mu)
        deviation = X - spread(mu, groups)
        if is_training:
            nu = xp.where(is_own, group_mean(deviation * deviation, groups), nu)
        inverse_std = 1.0 / xp.sqrt(nu + self.eps)
        X_hat = deviation * spread(inverse_std, groups)
        V = add_to(X_hat * spread(gamma * gamma_d, groups), spread(beta + beta_d, groups))
        cache = PartitionedNormCache(mu, nu, from_batch, inverse_std, X_hat, gamma, gamma_d, groups)
        return V, cache

    def backward(self, dV: Array, cache: PartitionedNormCache) -> tuple[Array, Tree]:
        """Return ``dX`` and the gradients; moving statistics have none.

        See derivations 6.3c, 6.3d, 6.3e, 6.3f, 6.3g.
        """
        groups, X_hat, gamma_d = cache.groups, cache.X_hat, cache.gamma_d
        d_scale = group_sum(dV * X_hat, groups)  # of gamma gamma_d
        d_shift = group_sum(dV, groups)  # of beta + beta_d
        # dX_hat = dV gamma gamma_d; each row also gets the mean of what went through mu and nu.
        slope = cache.inverse_std * cache.gamma * gamma_d
        share = slope * group_share(groups, like=slope) * cache.from_batch[:, None]
        dX = dV * spread(slope, groups)
        dX -= spread(share * d_shift, groups)
        dX -= X_hat * spread(share * d_scale, groups)
        grads = {
            "gamma": (d_scale * gamma_d).sum(axis=0),
            "beta": d_shift.sum(axis=0),
            "scenario_gamma": rows_of(d_scale * cache.gamma, groups),
            "scenario_beta": rows_of(d_shift, groups),
        }
        return dX, grads

    def read_by_advance(self, cache: PartitionedNormCache) -> PartitionedNormCache:
        """Return the cache with what ``advance`` reads of it, and nothing else."""
        return cache._replace(inverse_std=None, X_hat=None, gamma=None, gamma_d=None)

    def advance(self, params: Tree, cache: PartitionedNormCache) -> Tree:
        """Move the statistics of the scenarios that were normalised by their own rows.

        See derivations 6.1c.

        M_d <- rho_m M_d + (1 - rho_m) mu_d, and the same for the variance.
        """
        ids, is_own = cache.groups.ids, cache.from_batch[:, None]
        moved = {}
        for key, now in zip(STATISTICS, (cache.mu, cache.nu), strict=True):
            moved[key], old = params[key].copy(), params[key][ids]
            new = self.momentum * old + (1.0 - self.momentum) * now
            moved[key][ids] = get_xp(old).where(is_own, new, old)
        return params | moved
