"""Mistakes in the forward of STAR and in its moving statistics (derivations 6.5 and 14)."""

from dataclasses import fields
from functools import cached_property
from unittest.mock import patch

import numpy as np
from wrong_kinds import WrongForward

from midpg_np.layers.groups import group_mean, spread
from midpg_np.layers.partitioned_norm import PartitionedNorm
from midpg_np.layers.scenario_mlp import grouped_affine
from midpg_np.layers.star_mlp import StarAffineCache, StarMLP
from midpg_np.models import STAR


def as_kind(kind, layer):
    """The same layer as another class."""
    return kind(**{field.name: getattr(layer, field.name) for field in fields(layer)})


def with_norm(wrong):
    """STAR with the normalisation of class ``wrong``."""

    class WrongNorm(STAR):
        @cached_property
        def norm(self):
            return as_kind(wrong, super().norm)

    return WrongNorm


def with_star(wrong):
    """STAR with the main network of class ``wrong``."""

    class WrongStar(STAR):
        @cached_property
        def star(self):
            return as_kind(wrong, super().star)

    return WrongStar


class SpoiltNorm(PartitionedNorm):
    """V from other statistics, another scale or another shift; the cache stays the right one."""

    def forward(self, params, X, groups, *, is_training):
        _, c = super().forward(params, X, groups, is_training=is_training)
        own = {key: params[f"scenario_{key}"][groups.ids] for key in ("gamma", "beta")}
        mu, nu = (spread(x, groups) for x in self.statistics(X, c, is_training))
        scale = self.scale(params["gamma"], own["gamma"])
        shift = self.shift(params["beta"], own["beta"])
        V = spread(scale, groups) * (X - mu) / self.root(nu) + spread(shift, groups)
        return V, c

    def statistics(self, X, c, is_training):
        return c.mu, c.nu

    def scale(self, gamma, gamma_d):
        return gamma * gamma_d

    def shift(self, beta, beta_d):
        return beta + beta_d

    def root(self, nu):
        return np.sqrt(nu + self.eps)


class OverAllScenarios(SpoiltNorm):
    def statistics(self, X, c, is_training):
        return 0.0 * c.mu + X.mean(axis=0), 0.0 * c.nu + X.var(axis=0)


class OfTheOwnBatch(SpoiltNorm):
    """Inference normalises with the rows it was given."""

    def statistics(self, X, c, is_training):
        mu = group_mean(X, c.groups)
        return mu, group_mean((X - spread(mu, c.groups)) ** 2, c.groups)


class Unbiased(SpoiltNorm):
    def statistics(self, X, c, is_training):
        n_d = c.groups.counts[:, None]
        return c.mu, np.where(n_d > 1, c.nu * n_d / np.maximum(n_d - 1, 1), c.nu)


class ScaleAdded(SpoiltNorm):
    def scale(self, gamma, gamma_d):
        return gamma + gamma_d


class ShiftMultiplied(SpoiltNorm):
    def shift(self, beta, beta_d):
        return beta * beta_d


class SharedScaleOnly(SpoiltNorm):
    def scale(self, gamma, gamma_d):
        return gamma + 0.0 * gamma_d


class EpsilonBesideTheRoot(SpoiltNorm):
    def root(self, nu):
        return np.sqrt(nu) + self.eps


class AlwaysMoving(PartitionedNorm):
    """Training normalises by the moving statistics."""

    def forward(self, params, X, groups, *, is_training):
        return super().forward(params, X, groups, is_training=False)


class Spoilt(StarMLP):
    """Other weights; the backward is that of the right ones, for it does not matter here."""

    def combine(self, W, W_d):
        return W * W_d

    def combine_bias(self, b, b_d):
        return b + b_d

    def forward(self, params, H, groups):
        def affine(H, W, b, W_d, b_d, groups, form):
            A, c = grouped_affine(H, self.combine(W, W_d), self.combine_bias(b, b_d), groups)
            return A, StarAffineCache(W, W_d, c, form)

        with patch("midpg_np.layers.star_mlp.star_affine", affine):
            return super().forward(params, H, groups)


class WeightsAdded(Spoilt):
    def combine(self, W, W_d):
        return W + W_d


class BiasesMultiplied(Spoilt):
    def combine_bias(self, b, b_d):
        return b * b_d


class BySharedWeights(Spoilt):
    def combine(self, W, W_d):
        return W + 0.0 * W_d


class GroupNumberAsScenario(StarMLP):
    """Reads the weights of scenarios 0 ... M - 1 for the M scenarios present."""

    def forward(self, params, H, groups):
        return super().forward(params, H, groups._replace(ids=np.arange(len(groups.ids))))


class ActivationOnTheLogit(STAR):
    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        z = np.tanh(cache.network.z_main) + cache.network.z_aux
        return output._replace(logit=z[cache.network.groups.place, 0]), cache


class ProbabilitiesSummed(STAR):
    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        p = sum(0.5 / (1.0 + np.exp(-z)) for z in (cache.network.z_main, cache.network.z_aux))
        z = np.log(p / (1.0 - p))
        return output._replace(logit=z[cache.network.groups.place, 0]), cache


class RowsLeftSorted(STAR):
    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        return output._replace(logit=output.logit[cache.network.groups.order]), cache


class AuxiliaryReadsV(STAR):
    """The auxiliary network gets the normalised input, though nobody asked."""

    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        z_aux, _ = self.auxiliary_network.forward(
            params["aux"], cache.network.V, cache.network.groups, is_training=True
        )
        z = cache.network.z_main + z_aux
        return output._replace(logit=z[cache.network.groups.place, 0]), cache


WRONG_FORWARDS = {
    "star: statistics over all scenarios": WrongForward(with_norm(OverAllScenarios)),
    "star: a single row normalised by itself": WrongForward(
        with_norm(OfTheOwnBatch),
        {"activation": "tanh"},  # no unit of that row is off
    ),
    "star: inference with statistics of its own batch": WrongForward(
        with_norm(OfTheOwnBatch), training=False
    ),
    "star: training by the moving statistics": WrongForward(with_norm(AlwaysMoving)),
    "star: unbiased variance": WrongForward(with_norm(Unbiased)),
    "star: scales added": WrongForward(with_norm(ScaleAdded)),
    "star: shifts multiplied": WrongForward(with_norm(ShiftMultiplied)),
    "star: scenario's scale forgotten": WrongForward(with_norm(SharedScaleOnly)),
    "star: eps beside the root": WrongForward(with_norm(EpsilonBesideTheRoot), training=False),
    "star: weights added": WrongForward(with_star(WeightsAdded)),
    "star: biases multiplied": WrongForward(with_star(BiasesMultiplied)),
    "star: scenario's weights forgotten": WrongForward(with_star(BySharedWeights), training=False),
    "star: group number taken for the scenario": WrongForward(with_star(GroupNumberAsScenario)),
    "star: activation on the logit": WrongForward(ActivationOnTheLogit, {"activation": "tanh"}),
    "star: probabilities summed": WrongForward(ProbabilitiesSummed),
    "star: rows left in the order of the scenarios": WrongForward(RowsLeftSorted),
    "star: auxiliary network reads V": WrongForward(AuxiliaryReadsV),
}


# --- moving statistics ---------------------------------------------------------------------------


class AllMoved(PartitionedNorm):
    """Absent scenarios decay too."""

    def advance(self, params, cache):
        moved = super().advance(params, cache)
        absent = np.setdiff1d(np.arange(self.n_scenarios), cache.groups.ids)
        for key in ("mean", "variance"):
            moved[key][absent] *= self.momentum
        return moved


class SingleRowsMoved(PartitionedNorm):
    """A scenario with one row has no variance to learn from."""

    def advance(self, params, cache):
        is_own = cache.from_batch
        deviation = group_mean(cache.X_hat, cache.groups) / cache.inverse_std
        mu, nu = cache.mu + deviation, np.where(is_own[:, None], cache.nu, 0.0)
        return super().advance(
            params, cache._replace(mu=mu, nu=nu, from_batch=np.ones_like(is_own))
        )


class MomentumTakenForItsRest(PartitionedNorm):
    """The other library's convention."""

    def advance(self, params, cache):
        layer = PartitionedNorm(self.n_scenarios, self.dim, self.eps, 1.0 - self.momentum)
        return layer.advance(params, cache)


class UnbiasedMoved(PartitionedNorm):
    """Normalises by the biased variance and keeps the unbiased one, as PyTorch does."""

    def advance(self, params, cache):
        n_d = cache.groups.counts[:, None]
        return super().advance(params, cache._replace(nu=cache.nu * n_d / np.maximum(n_d - 1, 1)))


class DeviationMoved(PartitionedNorm):
    """Keeps standard deviations."""

    def advance(self, params, cache):
        return super().advance(params, cache._replace(nu=np.sqrt(cache.nu)))


class GroupNumberMoved(PartitionedNorm):
    """Writes to scenarios 0 ... M - 1."""

    def advance(self, params, cache):
        ids = np.arange(len(cache.groups.ids))
        return super().advance(params, cache._replace(groups=cache.groups._replace(ids=ids)))


class NothingMoved(PartitionedNorm):
    """No moving statistics at all."""

    def advance(self, params, cache):
        return params


# Rejected by test_star_statistics.py.
WRONG_ADVANCES = {
    kind.__name__: with_norm(kind)
    for kind in (
        AllMoved,
        SingleRowsMoved,
        MomentumTakenForItsRest,
        UnbiasedMoved,
        DeviationMoved,
        GroupNumberMoved,
        NothingMoved,
    )
}
