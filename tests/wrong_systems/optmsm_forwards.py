"""Mistakes in the forward of OptMSM, with a backward that fits or nearly (derivations 10.5)."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from wrong_kinds import WrongForward, same_fields

from midpg_np.layers.hypernetwork import Hypernetwork, TowerShape
from midpg_np.layers.orthogonality import Orthogonality
from midpg_np.layers.shared_embeddings import SharedEmbeddings
from midpg_np.models import OptMSM
from midpg_np.ops import relu, relu_backward, sigmoid, softmax


def with_mixture(change):
    """OptMSM whose shared embeddings mix in another way: ``change(alpha, G)``."""

    class Wrong(SharedEmbeddings):
        def forward(self, params, c, E, groups, with_loss):
            _, loss, cache = super().forward(params, c, E, groups, with_loss)
            alpha = c @ params["attention"]["W"] + params["attention"]["b"]
            return change(alpha, cache.combined.S), loss, cache

    class WrongMixture(OptMSM):
        @cached_property
        def shared(self):
            return same_fields(Wrong, super().shared)

    return WrongMixture


def mixed(w, G):
    return np.einsum("be,beq->bq", w, G)


class RectifiedSet(OptMSM):
    """g_k has no activation."""

    @cached_property
    def shared(self):
        class Wrong(SharedEmbeddings):
            def forward(self, params, c, E, groups, with_loss):
                _, _, cache = super().forward(params, c, E, groups, with_loss)
                G, _ = relu(cache.combined.S)
                loss, c_loss = self.orthogonality.forward(G)
                cache = cache._replace(combined=cache.combined._replace(S=G))
                m = mixed(cache.combined.w, G)
                if not with_loss:
                    return m, None, cache
                return m, loss, cache._replace(orthogonality=c_loss)

        return same_fields(Wrong, super().shared)


def with_loss(change):
    """OptMSM with another orthogonality loss: ``change(loss, G)``."""

    class Wrong(Orthogonality):
        def forward(self, G):
            loss, cache = super().forward(G)
            return change(loss, G), cache

    class WrongLoss(OptMSM):
        @cached_property
        def shared(self):
            right = super().shared
            return replace(right, orthogonality=same_fields(Wrong, right.orthogonality))

    return WrongLoss


class LossOfPlainProducts(OptMSM):
    """ "cosine" normalises."""

    @cached_property
    def shared(self):
        right = super().shared
        return replace(right, orthogonality=replace(right.orthogonality, orth_on="gram"))


class TowersByPosition(OptMSM):
    """The m-th scenario of the batch is not scenario m: the code must be read by id."""

    def forward(self, params, batch, *, draws=None, frozen=None):
        present = np.unique(batch.scenario)
        Z = params["code"]["Z"].copy()
        Z[present] = Z[: len(present)].copy()
        return super().forward(params | {"code": {"Z": Z}}, batch, draws=draws, frozen=frozen)


class LogitsLeftSorted(OptMSM):
    """Logits go back to the order of the batch."""

    def forward(self, params, batch, *, draws=None, frozen=None):
        output, cache = super().forward(params, batch, draws=draws, frozen=frozen)
        return output._replace(logit=output.logit[cache.network.groups.order]), cache


class ProbabilitiesForLogits(OptMSM):
    """No activation behind the tower."""

    def forward(self, params, batch, *, draws=None, frozen=None):
        output, cache = super().forward(params, batch, draws=draws, frozen=frozen)
        return output._replace(logit=sigmoid(output.logit)[0]), cache


def with_tower(changed_shape=None, changed_hypernetwork=None):
    """OptMSM with another layout of theta, or another hypernetwork."""

    class WrongTower(OptMSM):
        @cached_property
        def tower(self):
            right = super().tower
            hypernetwork = right.hypernetwork
            if changed_shape is not None:
                shape = same_fields(changed_shape, hypernetwork.tower)
                hypernetwork = replace(hypernetwork, tower=shape)
            if changed_hypernetwork is not None:
                hypernetwork = same_fields(changed_hypernetwork, hypernetwork)
            return replace(right, hypernetwork=hypernetwork)

    return WrongTower


class BiasesFirst(TowerShape):
    """Cut and joined in another order than (W_1, b_1, W_2, b_2), consistently; omega_0 is not."""

    def unpack(self, theta):
        h = self.dim_hidden
        return super().unpack(
            np.concatenate([theta[..., h:-h], theta[..., :h], theta[..., -h:]], -1)
        )


class WithoutShared(Hypernetwork):
    """theta = Z Omega, without omega_0."""

    def forward(self, params, Z):
        theta, cache = super().forward(params, Z)
        return theta - self.tower.pack(params["omega_0"]), cache


class ActivatedFactors(Hypernetwork):
    """A ReLU between the factors of "low_rank"."""

    def coefficients(self, params, Z):
        cache = super().coefficients(params, Z)
        return cache._replace(u=relu(cache.u)[0])

    def coefficients_backward(self, du, dOmega, d_omega_0, cache):
        du = relu_backward(du, cache.u > 0)
        return super().coefficients_backward(du, dOmega, d_omega_0, cache)


WRONG_FORWARDS = {
    f"optmsm: {name}": WrongForward(kind, options, training)
    for name, kind, options, training in (
        ("ReLU after g", RectifiedSet, {}, True),
        ("ReLU after g in prediction", RectifiedSet, {}, False),
        (
            "attention without softmax",
            with_mixture(lambda alpha, G: mixed(sigmoid(alpha)[0], G)),
            {},
            False,
        ),
        (
            "softmax over the batch",
            with_mixture(lambda alpha, G: mixed(softmax(alpha.T)[0].T, G)),
            {},
            False,
        ),
        (
            "mean of the set in place of its mixture",
            with_mixture(lambda alpha, G: G.mean(axis=1)),
            {},
            False,
        ),
        (
            "diagonal counted",
            with_loss(lambda loss, G: loss + 1.0 / (G.shape[1] - 1)),
            {},
            True,
        ),
        (
            "mean over D^2 pairs",
            with_loss(lambda loss, G: loss * (G.shape[1] - 1) / G.shape[1]),
            {},
            True,
        ),
        ("each pair counted once", with_loss(lambda loss, G: loss / 2.0), {}, True),
        ("sum over the batch", with_loss(lambda loss, G: loss * len(G)), {"orth_on": "gram"}, True),
        ("norm in place of its square", with_loss(lambda loss, G: np.sqrt(loss)), {}, True),
        ("loss of plain products", LossOfPlainProducts, {}, True),
        ("towers by position in the batch", TowersByPosition, {}, False),
        ("logits left sorted", LogitsLeftSorted, {}, False),
        ("sigmoid on the logit", ProbabilitiesForLogits, {}, False),
        ("slices in another order", with_tower(BiasesFirst), {}, False),
        ("omega_0 left out", with_tower(None, WithoutShared), {}, False),
        (
            "ReLU between the factors of Omega",
            with_tower(None, ActivatedFactors),
            {"hyper": "low_rank"},
            False,
        ),
    )
}
