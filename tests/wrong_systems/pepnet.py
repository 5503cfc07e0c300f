"""Mistakes in PEPNet's backward: what its stop-gradients hold back, and who learns.

Its layers and its forward are in the files beside this one.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np
from wrong_kinds import WrongClass, WrongOption

from midpg_np.layers.gate import Gate
from midpg_np.layers.gated_tower import GatedTower
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.models import PEPNet
from midpg_np.tree import tree_map

PER_SCENARIO = {"towers": "per_scenario"}


def interleaved(W):
    """Blocks (T, ..., n) cut from the wide array as if every T-th column belonged together."""
    wide = np.moveaxis(W, 0, -2)
    return np.moveaxis(wide.reshape(*wide.shape[:-2], -1, len(W)), -1, 0)


def as_kind(kind, layer):
    return kind(**{field: getattr(layer, field) for field in layer.__dataclass_fields__})


def plus(adjoints, extra):
    """What ``network_backward`` returns, with something added to the adjoint of X."""
    (dX,), grads = adjoints
    return (dX + extra,), grads


def adjoints(model, d_output, cache):
    """Adjoints of O and of the whole inputs of PPNet's and of EPNet's gates."""
    order = slice(None) if cache.groups is None else cache.groups.order
    dz = d_output.logit[order][:, None]
    dO, dU, _ = replace(model.ppnet, dim_live=None).backward(dz, cache.ppnet)
    d_delta = dO[:, model.start :] * cache.E
    dU_dom, _ = replace(model.epnet, dim_live=None).backward(d_delta, cache.epnet)
    return dO, dU, dU_dom


class EmbeddingsLeak(PEPNet):
    """sg(E) in the input of EPNet's gate."""

    def network_backward(self, d_output, cache, workspace=None):
        *_, dU_dom = adjoints(self, d_output, cache)
        dX = np.zeros_like(cache.X)
        dX[:, self.start :] = dU_dom[:, self.dim_aware :]
        return plus(super().network_backward(d_output, cache), dX)


class LeakyTower(GatedTower):
    def backward(self, dy, cache):
        dO, dU, grads = replace(as_kind(GatedTower, self), dim_live=None).backward(dy, cache)
        return dO + dU[:, self.dim_live :], dU[:, : self.dim_live], grads


class OutputLeaks(PEPNet):
    """sg(O) in the input of PPNet's gates."""

    @cached_property
    def ppnet(self):
        return as_kind(LeakyTower, super().ppnet)


class SilentGate(Gate):
    def backward(self, d_delta, cache):
        dU, grads = super().backward(d_delta, cache)
        return 0.0 * dU, grads


class DomainDetached(PEPNet):
    """The domain's embeddings learn from EPNet's gate: they are not behind sg."""

    @cached_property
    def epnet(self):
        return as_kind(SilentGate, super().epnet)


class FirstGateOnlyTower(GatedTower):
    @cached_property
    def gates(self):
        first, *others = super().gates.items()
        return dict([first, *((name, as_kind(SilentGate, gate)) for name, gate in others)])


class FirstGateOnly(PEPNet):
    """The prior learns from every layer's gate."""

    @cached_property
    def ppnet(self):
        return as_kind(FirstGateOnlyTower, super().ppnet)


class PriorDetachedTower(GatedTower):
    def backward(self, dy, cache):
        dO, dU, grads = super().backward(dy, cache)
        return dO, 0.0 * dU, grads


class PriorDetached(PEPNet):
    """The prior's embeddings learn from PPNet's gates: they are not behind sg."""

    @cached_property
    def ppnet(self):
        return as_kind(PriorDetachedTower, super().ppnet)


class DetachedTower(GatedTower):
    def backward(self, dy, cache):
        dO, dU, grads = super().backward(dy, cache)
        return 0.0 * dO, dU, grads


class TowerReadsDetached(PEPNet):
    """The tower reads O itself, not the sg(O) that its gates read."""

    @cached_property
    def ppnet(self):
        return as_kind(DetachedTower, super().ppnet)


class FeaturesPassUngated(PEPNet):
    """dE = dO delta."""

    def network_backward(self, d_output, cache, workspace=None):
        dO, *_ = adjoints(self, d_output, cache)
        dX = np.zeros_like(cache.X)
        dX[:, self.start :] = dO[:, self.start :] * (1.0 - cache.epnet.delta)
        return plus(super().network_backward(d_output, cache), dX)


class DomainAsFeatureForgotten(PEPNet):
    """E_aw is also a part of O."""

    def network_backward(self, d_output, cache, workspace=None):
        dO, *_ = adjoints(self, d_output, cache)
        dX = np.zeros_like(cache.X)
        dX[:, : self.dim_aware] = -(dO * cache.epnet.delta)[:, : self.dim_aware]
        return plus(super().network_backward(d_output, cache), dX)


class AdjointNotSorted(PEPNet):
    """Towers per scenario work on sorted rows; the adjoint must be sorted too."""

    def network_backward(self, d_output, cache, workspace=None):
        unsorted = d_output._replace(logit=d_output.logit[cache.groups.place])
        return super().network_backward(unsorted, cache)


def by_scenario(change):
    """Backward with ``change(rows)`` in every gradient of the towers."""

    def changed(leaf):
        is_rows = isinstance(leaf, RowGradient)
        return leaf._replace(rows=change(leaf.rows)) if is_rows else leaf

    def backward(self, d_output, cache):
        grads = PEPNet.backward(self, d_output, cache)
        return grads | {"ppnet": tree_map(changed, grads["ppnet"])}

    return backward


class TowersAliased(PEPNet):
    """T towers, not one object T times: a tower gets the adjoint of its own rows."""

    backward = by_scenario(lambda rows: np.broadcast_to(rows.sum(axis=0), rows.shape).copy())


class NextTowerLearns(PEPNet):
    """The gradient belongs to the scenario whose rows made it."""

    backward = by_scenario(lambda rows: np.roll(rows, 1, axis=0))


class GateMultipliesTwice(GatedTower):
    """d_delta = dH R with what entered the gate, not with what left it."""

    def backward(self, dy, cache):
        R = list(cache.R)
        for name, c in cache.gates.items():
            i = int(name.removeprefix("gate_"))
            R[i] = R[i] * c.delta
        return super().backward(dy, cache._replace(R=tuple(R)))


class GateAdjointFromItsOutput(PEPNet):
    @cached_property
    def ppnet(self):
        return as_kind(GateMultipliesTwice, super().ppnet)


class UngatedInputTower(GatedTower):
    """dW = H^T dA with what entered the gate, not with what left it."""

    def backward(self, dy, cache):
        maps = [c._replace(x=R) for c, R in zip(cache.affine, cache.R, strict=True)]
        return super().backward(dy, cache._replace(affine=tuple(maps)))


class KernelFromUngatedInput(PEPNet):
    @cached_property
    def ppnet(self):
        return as_kind(UngatedInputTower, super().ppnet)


WRONG_MODELS = {
    f"pepnet: {name}": WrongClass(kind, options)
    for name, kind, options in (
        ("sg(E) missing", EmbeddingsLeak, {}),
        ("sg(E) missing, agnostic fields gated", EmbeddingsLeak, {"ep_input": "agnostic"}),
        ("sg(O) missing", OutputLeaks, {}),
        ("sg(O) missing, towers per scenario", OutputLeaks, PER_SCENARIO),
        ("domain detached", DomainDetached, {}),
        ("prior detached", PriorDetached, {}),
        ("prior learns from the first gate only", FirstGateOnly, {}),
        ("tower reads the detached gate input", TowerReadsDetached, {}),
        ("features pass EPNet's gate ungated", FeaturesPassUngated, {}),
        ("domain is no feature", DomainAsFeatureForgotten, {}),
        ("adjoint in the order of the batch", AdjointNotSorted, PER_SCENARIO),
        ("towers aliased to one", TowersAliased, PER_SCENARIO),
        ("another scenario's tower learns", NextTowerLearns, PER_SCENARIO),
        ("gate's adjoint from what it puts out", GateAdjointFromItsOutput, {}),
        ("the same at the layers' inputs", GateAdjointFromItsOutput, {"gate_at": "layer_input"}),
        ("kernel's adjoint from the ungated input", KernelFromUngatedInput, {}),
    )
} | {"pepnet: gamma 2 taken for 1.5": WrongOption("pepnet", "gamma", 2.0, 1.5)}
