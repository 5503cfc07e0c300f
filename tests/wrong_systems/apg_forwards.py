"""APG with a wrong forward: only values from elsewhere can reject it (derivations 9.5)."""

import numpy as np
from wrong_kinds import WrongForward

from midpg_np.layers.low_rank import low_rank, low_rank_backward
from midpg_np.layers.low_rank_layer import LowRankLayer
from midpg_np.layers.mlp import MLP
from midpg_np.models import APG
from midpg_np.ops import Pair, concat, relu, sigmoid
from wrong_systems.apg import applied, transposed


def with_layers(**changes):
    """APG whose layers differ in some attributes."""
    wrong_layer = type("WrongLayer", (LowRankLayer,), changes)

    class WrongAPG(APG):
        def _layer(self, dim_in, dim_out):
            right = super()._layer(dim_in, dim_out)
            return wrong_layer(**{f: getattr(right, f) for f in right.__dataclass_fields__})

    return WrongAPG


def with_product(product):
    """APG whose product of H, U, V, S is another; its backward stays."""

    def forward(H, U, V, S):
        return product(H, U, V, S), low_rank(H, U, V, S)[1]

    return with_layers(_form=Pair(forward, low_rank_backward))


def core_transposed_in_both():
    def forward(H, U, V, S):
        return low_rank(H, U, V, transposed(S))

    def backward(dA, cache):
        dH, dU, dV, dS = low_rank_backward(dA, cache)
        return dH, dU, dV, transposed(dS)

    return with_layers(_form=Pair(forward, backward))


def with_core(change):
    return with_product(lambda H, U, V, S: low_rank(H, U, V, change(S))[0])


def activated_between_factors(self, name, params):
    left, right = params[f"{name}_left"], params[f"{name}_right"]
    return relu(left)[0] @ right, LowRankLayer._matrix(self, name, params)[1]


def generator_with_the_backbone_activation(self):
    return MLP((self.dim_condition, *self.generator_hidden, self.rank**2), "tanh")


def without_generated_bias(self, params, H, z):
    A, cache = LowRankLayer.forward(self, params, H, z)
    return A - self.bias_generator.forward(params["bias_generator"], z)[0], cache


class ConditionFromHiddenState(APG):
    """E_aw is cut out of X, not out of whatever H has become."""

    def _condition(self, E_aw, H):
        return H[:, : self.dim_aware]


class MixedTheOtherWay(APG):
    """z = [E_aw, H]."""

    def _condition(self, E_aw, H):
        return concat([H, E_aw])[0]


class BoundedLogit(APG):
    """Nothing follows the output layer."""

    def forward(self, params, batch, *, draws=None, frozen=None):
        output, cache = super().forward(params, batch, draws=draws, frozen=frozen)
        return output._replace(logit=sigmoid(output.logit)[0]), cache


WRONG_FORWARDS = {
    "apg: core transposed in forward and backward": WrongForward(core_transposed_in_both()),
    "apg: activation between V and S": WrongForward(
        with_product(lambda H, U, V, S: applied(S, relu(H @ V.T)[0]) @ U.T)
    ),
    "apg: activation between S and U": WrongForward(
        with_product(lambda H, U, V, S: relu(applied(S, H @ V.T))[0] @ U.T)
    ),
    "apg: bias between V and S": WrongForward(
        with_product(lambda H, U, V, S: applied(S, H @ V.T + 0.1) @ U.T)
    ),
    "apg: activation between the over-parameterised factors": WrongForward(
        with_layers(_matrix=activated_between_factors)
    ),
    "apg: core squashed by a sigmoid": WrongForward(with_core(lambda S: sigmoid(S)[0])),
    "apg: core cut off at zero": WrongForward(with_core(lambda S: relu(S)[0])),
    "apg: identity added to the core that starts there": WrongForward(
        with_core(lambda S: S + np.eye(S.shape[1]))
    ),
    "apg: core reduced to its diagonal": WrongForward(with_core(lambda S: S * np.eye(S.shape[1]))),
    "apg: one core for the whole batch": WrongForward(
        with_core(lambda S: S.mean(axis=0) + 0.0 * S)
    ),
    "apg: core of the neighbouring row": WrongForward(with_core(lambda S: np.roll(S, 1, axis=0))),
    "apg: generator has the backbone's activation": WrongForward(
        with_layers(generator=property(generator_with_the_backbone_activation)),
        {"generator_hidden": (7,), "activation": "tanh"},
    ),
    "apg: generated bias not added": WrongForward(
        with_layers(forward=without_generated_bias), {"generate_bias": True}
    ),
    "apg: condition cut out of the hidden state": WrongForward(ConditionFromHiddenState),
    "apg: mixed condition joined the other way": WrongForward(
        MixedTheOtherWay, {"condition": "mix"}
    ),
    "apg: sigmoid on the logit": WrongForward(BoundedLogit),
}
