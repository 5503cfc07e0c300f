"""Mistakes with STAR: statistics, products of weights, two logits (equations.md 6 and 14)."""

from dataclasses import fields
from functools import cached_property
from unittest.mock import patch

import numpy as np
from spoiling import inside, op, result
from wrong_backwards import first_of_each
from wrong_kinds import WrongClass, WrongForward, WrongOption

from midpg_np.layers.auxiliary_network import AuxiliaryNetwork
from midpg_np.layers.groups import group_mean, group_sum, spread
from midpg_np.layers.partitioned_norm import PartitionedNorm
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.layers.scenario_mlp import grouped_affine
from midpg_np.layers.star_mlp import StarAffineCache, StarMLP
from midpg_np.models import STAR
from midpg_np.models.protocol import ModelOutput
from midpg_np.tree import tree_map

# --- a layer's backward --------------------------------------------------------------------------


def norm(case, *paths, **cache):
    """Let the right backward see another cache: ``name=change(right value)``.

    ``paths`` are the gradients that are taken from it; the others stay right.
    """

    def change(grads, dV, c):
        wrong = c._replace(**{name: f(getattr(c, name)) for name, f in cache.items()})
        dX, params = PartitionedNorm(5, dV.shape[1]).backward(dV, wrong)
        params = {key: g.dense() if hasattr(g, "dense") else g for key, g in params.items()}
        taken = {key: params[key] for key in paths if key != "X"}
        X = {"X": dX} if "X" in paths else {}
        return grads | {"params": grads["params"] | taken} | X

    return result(case, change)


def means_over_the_batch(x, groups):
    """Divide by B in place of n_d."""
    return group_sum(x, groups) / len(x)


def without(part):
    """Adjoint of X with the path through the mean or through the variance left out."""

    def change(grads, dV, c):
        dX_hat = dV * spread(c.gamma * c.gamma_d, c.groups)
        path = {
            "mean": spread(group_mean(dX_hat, c.groups), c.groups),
            "variance": c.X_hat * spread(group_mean(dX_hat * c.X_hat, c.groups), c.groups),
        }[part]
        is_own = spread(c.from_batch[:, None] * c.inverse_std, c.groups)
        return grads | {"X": grads["X"] + is_own * path}

    return result("star_norm training", change)


def gamma_of_input(grads, dV, c):
    params = grads["params"]
    return grads | {"params": params | {"gamma": (dV * spread(c.gamma_d, c.groups)).sum(axis=0)}}


def product(g, x):
    """Gamma_d, the gradient of W * W_d."""
    return g["W_d"] / x["W"]


GROUPED = "star_affine grouped"
WRONG = {
    "star: statistics detached": norm("star_norm training", "X", from_batch=np.zeros_like),
    "star: statistics of a single row differentiated": norm(
        "star_norm training", "X", from_batch=np.ones_like
    ),
    "star: moving statistics differentiated": norm(
        "star_norm inference", "X", from_batch=np.ones_like
    ),
    "star: mean detached": without("mean"),
    "star: variance detached": without("variance"),
    "star: means divided by B": inside(
        "star_norm training", "layers.partitioned_norm.group_mean", means_over_the_batch
    ),
    "star: dX without the shared scale": norm("star_norm training", "X", gamma=np.ones_like),
    "star: dX without the scenario's scale": norm("star_norm training", "X", gamma_d=np.ones_like),
    "star: dX times the deviation": norm("star_norm training", "X", inverse_std=lambda r: 1.0 / r),
    "star: shared scale without the scenario's": norm(
        "star_norm training", "gamma", gamma_d=np.ones_like
    ),
    "star: scenario's scale without the shared one": norm(
        "star_norm inference", "scenario_gamma", gamma=np.ones_like
    ),
    "star: scale learns like a shift": result("star_norm training", gamma_of_input),
    "star: shared shift of the last scenario": result(
        "star_norm training",
        lambda g, dV, c: (
            g | {"params": g["params"] | {"beta": dV[c.groups.slices[-1]].sum(axis=0)}}
        ),
    ),
    "star: sum of a group sent back as a mean": op(
        "star_group_sum", x=lambda g, dy, x: g["x"] / len(g["x"])
    ),
    "star: dW without the scenario's factor": op(
        GROUPED, W=lambda g, dy, x: product(g, x).sum(axis=0)
    ),
    "star: dW_d without the shared factor": op(GROUPED, W_d=lambda g, dy, x: product(g, x)),
    "star: dW overwritten by the last scenario": op(
        GROUPED, W=lambda g, dy, x: (product(g, x) * x["W_d"])[-1]
    ),
    "star: dW averaged over the scenarios": op(
        "star_affine textbook", W=lambda g, dy, x: g["W"] / len(x["W_d"])
    ),
    "star: dH through the shared weights only": op(GROUPED, H=lambda g, dy, x: dy @ x["W"].T),
    "star: shared bias of the last scenario": op(GROUPED, b=lambda g, dy, x: g["b_d"][-1]),
    "star: every scenario's bias gets the whole sum": op(
        GROUPED, b_d=lambda g, dy, x: g["b"] + 0.0 * g["b_d"]
    ),
    "star: rows of a scenario overwrite in e_dom": inside(
        "star_auxiliary", "layers.embedding.segment_sum_rows", first_of_each
    ),
    "star: [e_dom, X] cut as [X, e_dom]": inside(
        "star_auxiliary",
        "layers.auxiliary_network.concat_backward",
        lambda dU, widths: [dU[:, -widths[0] :], dU[:, : widths[1]]],
    ),
    "star: normalisation of the auxiliary input passed over": inside(
        "star_auxiliary normalised",
        "layers.auxiliary_network.PartitionedNorm.backward",
        lambda self, dV, c, right=PartitionedNorm.backward: (dV.copy(), right(self, dV, c)[1]),
    ),
}


# --- a model's backward --------------------------------------------------------------------------


class AuxiliaryInputForgotten(STAR):
    """X is read by the star and by the auxiliary network."""

    def backward(self, d_output, cache):
        right = AuxiliaryNetwork.backward

        def wrong(self, dz, c):
            dX, grads = right(self, dz, c)
            return 0.0 * dX, grads

        with patch.object(AuxiliaryNetwork, "backward", wrong):
            return super().backward(d_output, cache)


class StarInputForgotten(STAR):
    """X is read by the star and by the auxiliary network."""

    def backward(self, d_output, cache):
        right = PartitionedNorm.backward

        def wrong(self, dV, c):
            dX, grads = right(self, dV, c)
            return 0.0 * dX, grads

        with patch.object(PartitionedNorm, "backward", wrong):
            return super().backward(d_output, cache)


class OrderForgotten(STAR):
    """The rows were sorted, so their adjoints must be."""

    def backward(self, d_output, cache):
        return super().backward(ModelOutput(d_output.logit[cache.groups.place], {}), cache)


class LogitsAveraged(STAR):
    """The logit is a sum: each of its two summands gets the whole adjoint."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return grads | {"aux": tree_map(lambda g: times(g, 0.5), grads["aux"])}


class StatisticsDetached(STAR):
    """What popular code does when it copies means out of the graph."""

    def backward(self, d_output, cache):
        c = cache.norm._replace(from_batch=np.zeros_like(cache.norm.from_batch))
        return super().backward(d_output, cache._replace(norm=c))


class ScenarioWeightsForgotten(STAR):
    """What a scenario owns must be among what learns."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        star = {
            name: g | {"scenario": tree_map(lambda leaf: times(leaf, 0.0), g["scenario"])}
            for name, g in grads["star"].items()
        }
        return grads | {"star": star}


class GroupsTakenForScenarios(STAR):
    """The m-th group present is not scenario m."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return grads | {"star": tree_map(at_group_number, grads["star"])}


def times(g, factor):
    return g._replace(rows=factor * g.rows) if isinstance(g, RowGradient) else factor * g


def at_group_number(g):
    return g._replace(ids=np.arange(len(g.ids))) if isinstance(g, RowGradient) else g


WRONG_MODELS = {
    f"star: {kind.__name__}": WrongClass(kind)
    for kind in (
        AuxiliaryInputForgotten,
        StarInputForgotten,
        OrderForgotten,
        LogitsAveraged,
        StatisticsDetached,
        ScenarioWeightsForgotten,
        GroupsTakenForScenarios,
    )
} | {
    "star: tanh differentiated as sigmoid": WrongOption("star", "activation", "tanh", "sigmoid"),
}


# --- a model's forward ---------------------------------------------------------------------------


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
        n_d = np.array(c.groups.counts)[:, None]
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
        z = np.tanh(cache.z_main) + cache.z_aux
        return output._replace(logit=z[cache.groups.place, 0]), cache


class ProbabilitiesSummed(STAR):
    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        p = sum(0.5 / (1.0 + np.exp(-z)) for z in (cache.z_main, cache.z_aux))
        z = np.log(p / (1.0 - p))
        return output._replace(logit=z[cache.groups.place, 0]), cache


class RowsLeftSorted(STAR):
    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        return output._replace(logit=output.logit[cache.groups.order]), cache


class AuxiliaryReadsV(STAR):
    """The auxiliary network gets the normalised input, though nobody asked."""

    def forward(self, params, batch, **rest):
        output, cache = super().forward(params, batch, **rest)
        z_aux, _ = self.auxiliary_network.forward(
            params["aux"], cache.V, cache.groups, is_training=True
        )
        z = cache.z_main + z_aux
        return output._replace(logit=z[cache.groups.place, 0]), cache


WRONG_FORWARDS = {
    "star: statistics over all scenarios": WrongForward(with_norm(OverAllScenarios)),
    "star: a single row normalised by itself": WrongForward(with_norm(OfTheOwnBatch)),
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
        n_d = np.array(cache.groups.counts)[:, None]
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


# Rejected by test_star.py.
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
