"""Mistakes that people make in the backward of AdaSparse as a whole (derivations 8.5 and 14)."""

import numpy as np
from wrong_kinds import WrongClass, WrongOption

from midpg_np.layers.pruned_layer import PrunedLayer, prune_last_backward
from midpg_np.models import AdaSparse
from midpg_np.ops import sigmoid

BINARIZED = {"prune": "binarization"}
OUTSIDE = {"r_min": 1.1, "r_max": 1.3}  # whatever the factors


class HiddenPathForgotten(AdaSparse):
    """H is read by the product and by the pruner."""

    def backward(self, d_output, cache):
        return _with_layer(self, _NoHiddenPath, d_output, cache)


class AwarePathForgotten(AdaSparse):
    """E_aw is read by every pruner and by the first layer."""

    def backward(self, d_output, cache):
        return _with_layer(self, _NoAwarePath, d_output, cache)


class BackboneAwareForgotten(AdaSparse):
    """The first aware columns of X are the backbone's as well."""

    def backward(self, d_output, cache):
        return _with_layer(self, _NoBackboneAware, d_output, cache)


class OnlyLastPruner(AdaSparse):
    """What every pruner sends to E_aw adds up."""

    def backward(self, d_output, cache):
        return _with_layer(self, _OnlyHeadAware, d_output, cache)


class RegulariserForgotten(AdaSparse):
    """The factors have two readers in training."""

    def _regulariser_backward(self, name, d_output, cache):
        return None


class SummedOverLayers(AdaSparse):
    """R_s is a mean over layers."""

    def _regulariser_backward(self, name, d_output, cache):
        return len(self.layers) * super()._regulariser_backward(name, d_output, cache)


class RegulariserOfHiddenLayersOnly(AdaSparse):
    """Every pruned position has its term."""

    def _regulariser_backward(self, name, d_output, cache):
        d_pi = super()._regulariser_backward(name, d_output, cache)
        return 0.0 * d_pi if name == "head" else d_pi


class AlphaOfTheNextStep(AdaSparse):
    """Backward belongs to the alpha of its forward, not to the one that the step leaves behind."""

    def network_backward(self, d_output, cache, workspace=None):
        caches = {
            name: c._replace(pruner=c.pruner._replace(alpha=c.pruner.alpha + 0.1))
            for name, c in cache.layers.items()
        }
        return super().network_backward(d_output, cache._replace(layers=caches))


class MaskOfTheNextStep(AdaSparse):
    """So does the mask: it must be the one that the forward has used."""

    def network_backward(self, d_output, cache, workspace=None):
        return super().network_backward(
            d_output, _with_mask(self, cache, self.alpha_end, self.epsilon)
        )


class MaskBeforeGain(AdaSparse):
    """Epsilon is compared with v, the gain included."""

    def network_backward(self, d_output, cache, workspace=None):
        alpha = next(iter(cache.layers.values())).pruner.alpha
        wrong = _with_mask(self, cache, alpha, self.epsilon * self.beta)
        return super().network_backward(d_output, wrong)


class StraightThrough(AdaSparse):
    """With binarize_grad="zero" the pruner learns nothing."""

    def network_backward(self, d_output, cache, workspace=None):
        return super().network_backward(d_output, _with_slope(cache, 1.0))


class ZeroDerivative(AdaSparse):
    """With binarize_grad="soft" the pruner learns in training."""

    def network_backward(self, d_output, cache, workspace=None):
        return super().network_backward(d_output, _with_slope(cache, 0.0))


def _with_slope(cache, slope):
    """Cache with another derivative of the factors by the soft values."""
    caches = {
        name: c._replace(pruner=c.pruner._replace(slope=slope)) for name, c in cache.layers.items()
    }
    return cache._replace(layers=caches)


def _with_mask(model, cache, alpha, epsilon):
    """Cache with masks recomputed."""
    caches = {}
    for name, c in cache.layers.items():
        v = model.beta * sigmoid(alpha * c.pruner.v_in)[0]
        caches[name] = c._replace(pruner=c.pruner._replace(slope=v > epsilon))
    return cache._replace(layers=caches)


def _with_layer(model, kind, d_output, cache):
    """Backward of AdaSparse with another backward of its layers."""
    copy = AdaSparse(**{name: getattr(model, name) for name in model.__dataclass_fields__})
    layers = {
        name: kind(layer.dim_aware, layer.dim_in, layer.dim_out, layer.pruner)
        for name, layer in model.layers.items()
    }
    copy.__dict__["layers"] = layers  # where the cached property keeps them
    return AdaSparse.backward(copy, d_output, cache)


class _NoHiddenPath(PrunedLayer):
    def backward(self, dA, cache, d_pi_extra=None):
        _, dE_aw, grads = super().backward(dA, cache, d_pi_extra)
        return prune_last_backward(dA @ cache.affine.W.T, cache.pruned)[0], dE_aw, grads


class _NoAwarePath(PrunedLayer):
    def backward(self, dA, cache, d_pi_extra=None):
        dH, dE_aw, grads = super().backward(dA, cache, d_pi_extra)
        return dH, 0.0 * dE_aw, grads


class _NoBackboneAware(PrunedLayer):
    def backward(self, dA, cache, d_pi_extra=None):
        dH, dE_aw, grads = super().backward(dA, cache, d_pi_extra)
        if self.dim_in == 6 and self.dim_out == 12:  # the first layer of the small model
            dH = np.concatenate([0.0 * dH[:, : self.dim_aware], dH[:, self.dim_aware :]], axis=1)
        return dH, dE_aw, grads


class _OnlyHeadAware(PrunedLayer):
    def backward(self, dA, cache, d_pi_extra=None):
        dH, dE_aw, grads = super().backward(dA, cache, d_pi_extra)
        return dH, dE_aw * (self.dim_out == 1), grads


WRONG_MODELS = {
    "adasparse: pruners' paths into H forgotten": WrongClass(HiddenPathForgotten),
    "adasparse: pruners' paths into E_aw forgotten": WrongClass(AwarePathForgotten),
    "adasparse: E_aw as an input of the backbone forgotten": WrongClass(BackboneAwareForgotten),
    "adasparse: E_aw learns from the last pruner only": WrongClass(OnlyLastPruner),
    "adasparse: regulariser forgotten": WrongClass(RegulariserForgotten, OUTSIDE),
    "adasparse: regulariser forgotten with a threshold": WrongClass(
        RegulariserForgotten, BINARIZED | OUTSIDE
    ),
    "adasparse: regulariser summed over layers": WrongClass(SummedOverLayers, OUTSIDE),
    "adasparse: regulariser not on the last position": WrongClass(
        RegulariserOfHiddenLayersOnly, OUTSIDE
    ),
    "adasparse: alpha of the next step": WrongClass(AlphaOfTheNextStep),
    "adasparse: alpha of the next step, straight-through": WrongClass(
        AlphaOfTheNextStep, BINARIZED
    ),
    "adasparse: mask of the next step": WrongClass(MaskOfTheNextStep),
    "adasparse: mask from v before its gain": WrongClass(MaskBeforeGain),
    "adasparse: straight-through where the true derivative is claimed": WrongClass(
        StraightThrough, BINARIZED | {"binarize_grad": "zero"}
    ),
    "adasparse: soft values with a derivative of zero": WrongClass(
        ZeroDerivative, BINARIZED | {"binarize_grad": "soft"}
    ),
    "adasparse: weight detached though nobody asked": WrongOption(
        "adasparse", "lambda_detach", False, True
    ),
    "adasparse: stop-gradient on the weight leaks": WrongOption(
        "adasparse", "lambda_detach", True, False
    ),
}
