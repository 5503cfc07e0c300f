"""APG with a wrong backward (derivations 9.5)."""

from itertools import cycle

import numpy as np
from spoiling import inside, op, parameter, result
from wrong_kinds import WrongClass, WrongOption

from midpg_np.layers.mlp import MLP
from midpg_np.models import APG
from midpg_np.ops import concat
from midpg_np.tree import tree_map

GENERATOR_BACKWARD = "layers.low_rank_layer.MLP.backward"


def reshaped(matrix):
    """Shape of the transpose, entries in the old order: what people get from reshape."""
    return matrix.reshape(matrix.shape[1], matrix.shape[0])


def transposed(S):
    return S.swapaxes(1, 2).copy()


def applied(S, q):
    """S_b q_b for every row."""
    return np.einsum("bij,bj->bi", S, q)


def d_after_core(x, dy):
    """dR = dA U."""
    return dy @ x["U"]


def before_core(x):
    """Q = H V^T."""
    return x["H"] @ x["V"].T


def bias_forgotten(network):
    def change(grads, dy, cache):
        params = grads["params"]
        *others, last = params[network]
        spoilt = {name: params[network][name] for name in others}
        spoilt[last] = params[network][last] | {"b": 0.0 * params[network][last]["b"]}
        return grads | {"params": params | {network: spoilt}}

    return change


def right_factors_forgotten(grads, dy, cache):
    params = grads["params"]
    zeros = {name: 0.0 * g for name, g in params.items() if name.endswith("_right")}
    return grads | {"params": params | zeros}


def input_lost(*keep):
    """Two generators read z, the bias's goes back first; multiply what they send with ``keep``."""
    factors, right = cycle(keep), MLP.backward

    def wrong(self, dy, cache):
        dz, grads = right(self, dy, cache)
        return next(factors) * dz, grads

    return wrong


WRONG = {
    "apg: core not transposed on the way back to H": op(
        "low_rank grouped", H=lambda g, dy, x: applied(x["S"], d_after_core(x, dy)) @ x["V"]
    ),
    "apg: core not transposed on the way back to V": op(
        "low_rank grouped", V=lambda g, dy, x: applied(x["S"], d_after_core(x, dy)).T @ x["H"]
    ),
    "apg: outer product of dS transposed": op(
        "low_rank grouped", S=lambda g, dy, x: transposed(g["S"])
    ),
    "apg: outer product of dS transposed, textbook": op(
        "low_rank textbook", S=lambda g, dy, x: transposed(g["S"])
    ),
    "apg: dU from what enters the core": op(
        "low_rank grouped", U=lambda g, dy, x: dy.T @ before_core(x)
    ),
    "apg: dV without the core": op(
        "low_rank grouped", V=lambda g, dy, x: d_after_core(x, dy).T @ x["H"]
    ),
    "apg: dH without the core": op(
        "low_rank grouped", H=lambda g, dy, x: d_after_core(x, dy) @ x["V"]
    ),
    "apg: dU with the mean core of the batch": op(
        "low_rank textbook", U=lambda g, dy, x: dy.T @ (before_core(x) @ x["S"].mean(axis=0).T)
    ),
    "apg: dU of row weights with S for its transpose": op(
        "low_rank textbook",
        U=lambda g, dy, x: dy.T @ np.einsum("bij,bi->bj", x["S"], before_core(x)),
    ),
    "apg: one dS for the whole batch": op(
        "low_rank grouped", S=lambda g, dy, x: g["S"].mean(axis=0) + 0.0 * g["S"]
    ),
    "apg: dS without what enters the core": op(
        "low_rank grouped", S=lambda g, dy, x: d_after_core(x, dy)[:, :, None] + 0.0 * g["S"]
    ),
    "apg: left factor's adjoint transposed by reshape": op(
        "multiply_out", left=lambda g, dy, x: reshaped(g["left"].T)
    ),
    "apg: right factor's adjoint transposed by reshape": op(
        "multiply_out", right=lambda g, dy, x: reshaped(g["right"].T)
    ),
    "apg: factors reshaped, not transposed": op(
        "multiply_out",
        left=lambda g, dy, x: dy @ reshaped(x["right"]),
        right=lambda g, dy, x: reshaped(x["left"]) @ dy,
    ),
    "apg: right factors forgotten": result(
        "low_rank_layer grouped over-parameterised", right_factors_forgotten
    ),
    "apg: bias of the core's generator forgotten": result(
        "low_rank_layer grouped", bias_forgotten("generator")
    ),
    "apg: bias of the bias's generator forgotten": result(
        "low_rank_layer textbook with bias", bias_forgotten("bias_generator")
    ),
    "apg: condition of the generated bias forgotten": inside(
        "low_rank_layer grouped with bias", GENERATOR_BACKWARD, input_lost(0.0, 1.0)
    ),
    "apg: condition of the core forgotten": inside(
        "low_rank_layer textbook over-parameterised with bias",
        GENERATOR_BACKWARD,
        input_lost(1.0, 0.0),
    ),
    "apg: static bias averaged": parameter(
        "low_rank_layer textbook", "b", lambda db, dy: db / len(dy)
    ),
}


class ConditionForgotten(APG):
    """What the generators read has another reader: it is E_aw, or the layer's own input."""

    def _condition_backward(self, dz, dH):
        return super()._condition_backward(0.0 * dz, dH)


class HiddenStateForgotten(APG):
    """Under "mix" H reaches the loss through the product and through the generators."""

    def _condition_backward(self, dz, dH):
        dE_aw, _ = super()._condition_backward(dz, dH.copy())
        return dE_aw, dH


class ContextForgotten(APG):
    """Under "mix" E_aw is read by every generator."""

    def _condition_backward(self, dz, dH):
        dE_aw, dH = super()._condition_backward(dz, dH)
        return 0.0 * dE_aw, dH


class ConditionCutTheOtherWay(APG):
    """z = [E_aw, H], not [H, E_aw]."""

    def _condition_backward(self, dz, dH):
        return super()._condition_backward(np.roll(dz, self.dim_aware, axis=1), dH)


class HiddenStateOverwritten(APG):
    """Under "self" the generators' share of dH is added."""

    def _condition_backward(self, dz, dH):
        return None, dz


class ContextOverwritten(APG):
    """E_aw adds up what all layers send; here the first layer's is the last written."""

    def _condition_backward(self, dz, dH):
        is_first = dH.shape[1] == len(self.vocab_sizes) * self.dim_embedding
        return super()._condition_backward(dz * is_first, dH)


class BackboneContextForgotten(APG):
    """E_aw is also an input of the backbone."""

    def _condition_backward(self, dz, dH):
        dE_aw, dH = super()._condition_backward(dz, dH)
        if dH.shape[1] == len(self.vocab_sizes) * self.dim_embedding:
            dH = concat([0.0 * dH[:, : self.dim_aware], dH[:, self.dim_aware :]])[0]
        return dE_aw, dH


class HeadForgotten(APG):
    """The static output layer learns too."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return grads | {"head": tree_map(np.zeros_like, grads["head"])}


WRONG_MODELS = {
    "apg: generators' input detached": WrongClass(ConditionForgotten),
    "apg: second reader of H forgotten": WrongClass(ConditionForgotten, {"condition": "self"}),
    "apg: product's share of H overwritten": WrongClass(
        HiddenStateOverwritten, {"condition": "self"}
    ),
    "apg: H of a mixed condition forgotten": WrongClass(HiddenStateForgotten, {"condition": "mix"}),
    "apg: E_aw of a mixed condition forgotten": WrongClass(ContextForgotten, {"condition": "mix"}),
    "apg: mixed condition cut the other way": WrongClass(
        ConditionCutTheOtherWay, {"condition": "mix"}
    ),
    "apg: context of all layers but one lost": WrongClass(ContextOverwritten),
    "apg: context in the backbone forgotten": WrongClass(BackboneContextForgotten),
    "apg: head forgotten": WrongClass(HeadForgotten),
    "apg: tanh differentiated as sigmoid": WrongOption("apg", "activation", "tanh", "sigmoid"),
}
