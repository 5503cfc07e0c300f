"""Mistakes in the forward of AdaSparse, which no gradient check can see (derivations 8.5)."""

from dataclasses import replace

import numpy as np
from wrong_kinds import WrongForward

from midpg_np.layers.pruner import Pruner
from midpg_np.layers.sparsity import Sparsity
from midpg_np.models import AdaSparse

BINARIZED = {"prune": "binarization"}
OUTSIDE = {"r_min": 1.1, "r_max": 1.3}  # whatever the factors


class SignedThreshold(Pruner):
    """The printed "sign" is a unit step: 1 or 0, not 1 or -1."""

    def _threshold(self, v, is_kept, sg):
        pi, slope = super()._threshold(v.copy(), is_kept, sg)
        return np.where(is_kept, pi, -v if self.prune == "fusion" else -1.0), slope


class ThresholdBeforeGain(Pruner):
    """Epsilon is compared with v, the gain included."""

    def _threshold(self, v, is_kept, sg):
        return super()._threshold(v, v.real / self.gain > self.epsilon, sg)


class ThresholdOnInput(Pruner):
    """Epsilon is compared with v, not with what goes into the sigmoid."""

    def forward(self, params, U, alpha, sg, *, training):
        v_in = U @ params["W"] + params["b"]
        _, cache = super().forward(params, U, alpha, sg, training=training)
        return self._threshold(self.gain * cache.y, v_in > self.epsilon, sg)[0], cache


class TemperatureOutside(Pruner):
    """Alpha multiplies what goes into the sigmoid, not what comes out."""

    def forward(self, params, U, alpha, sg, *, training):
        pi, cache = super().forward(params, U, 1.0, sg, training=training)
        return alpha * pi, cache


class NoTemperature(Pruner):
    """The threshold form has a temperature."""

    def forward(self, params, U, alpha, sg, *, training):
        return super().forward(params, U, 1.0, sg, training=training)


class SoftAtInference(Pruner):
    """With binarize_grad="soft" the threshold acts at inference."""

    def forward(self, params, U, alpha, sg, *, training):
        return super().forward(params, U, alpha, sg, training=True)


class PruneShare(Sparsity):
    """r is the share of what is pruned, not of what is kept."""

    def forward(self, pi, lambda_hat, sg):
        return super().forward(1.0 - pi, lambda_hat, sg)


class PenaltyInside(Sparsity):
    """Inside the interval there is no penalty."""

    def forward(self, pi, lambda_hat, sg):
        return super().forward(pi, lambda_hat, lambda name, x: ~x)


class LinearPenalty(Sparsity):
    """The weight of the penalty grows with the distance."""

    def forward(self, pi, lambda_hat, sg):
        _, cache = super().forward(pi, lambda_hat, sg)
        return (lambda_hat * cache.distance * (cache.weight > 0)).mean(), cache


def forward_with(pruner=Pruner, sparsity=Sparsity):
    """Make a class of AdaSparse with other parts."""

    class Changed(AdaSparse):
        def _pruner(self, name, dim_in):
            right = super()._pruner(name, dim_in)
            return pruner(**{key: getattr(right, key) for key in right.__dataclass_fields__})

        @property
        def sparsity(self):
            return sparsity(self.r_min, self.r_max, self.ratio, self.lambda_detach)

    return Changed


class WithoutContext(AdaSparse):
    """The pruner reads E_aw beside H."""

    def forward(self, params, batch, **options):
        params = params | {
            name: params[name] | {"pruner": _without_first(params[name]["pruner"], self.dim_aware)}
            for name in self.layers
        }
        return super().forward(params, batch, **options)


def _without_first(pruner, n):
    W = pruner["W"].copy()
    W[:n] = 0.0
    return pruner | {"W": W}


class OutputsPruned(AdaSparse):
    """Factors multiply the inputs of a layer: those of layer 1 multiply X."""

    def forward(self, params, batch, **options):
        first = {key: params["layer_1"][key] for key in ("W", "b")}
        wrong = replace(self, prune_input="none")
        return AdaSparse.forward(wrong, params | {"layer_1": first}, batch, **options)

    def backward(self, d_output, cache):
        return AdaSparse.backward(replace(self, prune_input="none"), d_output, cache)


class ScheduleFromZero(AdaSparse):
    """Alpha follows the saved count of steps."""

    def forward(self, params, batch, **options):
        params = params | {"schedule": {"step": np.zeros(1)}}
        return super().forward(params, batch, **options)


class RegulariserSummed(AdaSparse):
    """R_s is a mean over layers."""

    def _regulariser(self, step, layers, sg):
        R_s, caches = super()._regulariser(step, layers, sg)
        return len(self.layers) * R_s, caches


WRONG_FORWARDS = {
    "adasparse: threshold gives -1": WrongForward(forward_with(SignedThreshold), BINARIZED),
    "adasparse: threshold gives -v": WrongForward(forward_with(SignedThreshold)),
    "adasparse: epsilon compared before the gain": WrongForward(forward_with(ThresholdBeforeGain)),
    "adasparse: epsilon compared with v_in": WrongForward(forward_with(ThresholdOnInput)),
    "adasparse: alpha outside the sigmoid": WrongForward(forward_with(TemperatureOutside)),
    "adasparse: no temperature": WrongForward(forward_with(NoTemperature)),
    "adasparse: soft values at inference": WrongForward(
        forward_with(SoftAtInference), BINARIZED | {"binarize_grad": "soft"}, training=False
    ),
    "adasparse: r is the share kept": WrongForward(forward_with(sparsity=PruneShare)),
    "adasparse: penalty inside the interval only": WrongForward(
        forward_with(sparsity=PenaltyInside)
    ),
    "adasparse: penalty linear in the distance": WrongForward(
        forward_with(sparsity=LinearPenalty), {"prune": "scaling"} | OUTSIDE
    ),
    "adasparse: pruners without context": WrongForward(WithoutContext, training=False),
    "adasparse: input not pruned": WrongForward(OutputsPruned, training=False),
    "adasparse: schedule starts again": WrongForward(ScheduleFromZero, training=False),
    "adasparse: regulariser a sum over layers": WrongForward(
        RegulariserSummed, {"prune": "scaling"} | OUTSIDE
    ),
}
