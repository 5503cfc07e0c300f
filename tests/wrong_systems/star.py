"""Mistakes in the backward of STAR (derivations 6.5 and 14); those in values: star_values.py."""

from unittest.mock import patch

import numpy as np
from spoiling import inside, op, result
from wrong_kinds import WrongClass, WrongOption

from midpg_np.layers.auxiliary_network import AuxiliaryNetwork
from midpg_np.layers.groups import group_mean, spread
from midpg_np.layers.partitioned_norm import PartitionedNorm
from midpg_np.layers.row_gradient import RowGradient
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


def first_of_group(x, groups):
    return x[groups.bounds[:-1]]


def share_of_the_batch(groups, like):
    """Divide by B in place of n_d."""
    return np.full((len(groups.present), 1), 1.0 / len(groups.order))


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
        "star_norm training", "layers.partitioned_norm.group_share", share_of_the_batch
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
        "star_auxiliary", "layers.auxiliary_network.group_sum", first_of_group
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

    def network_backward(self, d_output, cache, workspace=None):
        unsorted = ModelOutput(d_output.logit[cache.groups.place], {})
        return super().network_backward(unsorted, cache)


class LogitsAveraged(STAR):
    """The logit is a sum: each of its two summands gets the whole adjoint."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return grads | {"aux": tree_map(lambda g: times(g, 0.5), grads["aux"])}


class StatisticsDetached(STAR):
    """What popular code does when it copies means out of the graph."""

    def network_backward(self, d_output, cache, workspace=None):
        c = cache.norm._replace(from_batch=np.zeros_like(cache.norm.from_batch))
        return super().network_backward(d_output, cache._replace(norm=c))


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
