"""Mistakes in PEPNet's forward, whose backward may fit them."""

from functools import cached_property

import numpy as np
from wrong_kinds import WrongForward

from midpg_np.layers.gate import Gate, GateCache
from midpg_np.layers.gated_tower import GatedTower
from midpg_np.models import PEPNet
from midpg_np.ops import ACTIVATIONS, affine, sigmoid
from midpg_np.tree import tree_map
from wrong_systems.pepnet import PER_SCENARIO, as_kind, interleaved


def with_gates(change):
    """A model whose gates, all of them, are of another kind."""

    class Tower(GatedTower):
        @cached_property
        def gates(self):
            return {name: as_kind(change, gate) for name, gate in super().gates.items()}

    class Model(PEPNet):
        @cached_property
        def epnet(self):
            return as_kind(change, super().epnet)

        @cached_property
        def ppnet(self):
            return as_kind(Tower, super().ppnet)

    return Model


def with_epnet(change):
    class Model(PEPNet):
        @cached_property
        def epnet(self):
            return as_kind(change, super().epnet)

    return Model


def with_tower(change):
    class Model(PEPNet):
        @cached_property
        def ppnet(self):
            return as_kind(change, super().ppnet)

    return Model


class GammaInside(Gate):
    """sigmoid(gamma a) in place of gamma sigmoid(a)."""

    def forward(self, params, U, groups=None):
        second = tree_map(lambda leaf: self.gamma * leaf, params["layer_2"])
        delta, cache = super().forward(params | {"layer_2": second}, U, groups)
        return delta / self.gamma, cache


class GammaForgotten(Gate):
    def forward(self, params, U, groups=None):
        delta, cache = super().forward(params, U, groups)
        return delta / self.gamma, cache


class SingleLayer(Gate):
    """Two affine maps without ReLU between them are one."""

    def forward(self, params, U, groups=None):
        A, c_1 = affine(U, **params["layer_1"])
        A_2, c_2 = self._second.forward(A, **params["layer_2"], groups=groups)
        delta = self.gamma * sigmoid(A_2)[0]
        return delta, GateCache(c_1, A, np.ones_like(A), c_2, delta)


class InterleavedBlocks(Gate):
    def forward(self, params, U, groups=None):
        second = params["layer_2"]
        if self.n_towers is not None:
            second = tree_map(interleaved, second)
        return super().forward(params | {"layer_2": second}, U, groups)


def first_for_all(leaf):
    return np.broadcast_to(leaf[:1], leaf.shape).copy()


class FirstBlock(Gate):
    def forward(self, params, U, groups=None):
        second = params["layer_2"]
        if self.n_towers is not None:
            second = tree_map(first_for_all, second)
        return super().forward(params | {"layer_2": second}, U, groups)


class OneTower(GatedTower):
    def forward(self, params, O, U, groups=None):  # noqa: E741
        own = {name: tree_map(first_for_all, params[name]) for name in self.layer_names}
        return super().forward(params | own, O, U, groups)


class Open(Gate):
    def forward(self, params, U, groups=None):
        delta, cache = super().forward(params, U, groups)
        return np.ones_like(delta), cache


class DomainOnly(Gate):
    def forward(self, params, U, groups=None):
        U = U.copy()
        U[:, self.dim_live :] = 0.0
        return super().forward(params, U, groups)


class AwareUngated(Gate):
    def forward(self, params, U, groups=None):
        delta, cache = super().forward(params, U, groups)
        delta = delta.copy()
        delta[:, : self.dim_live] = 1.0
        return delta, cache


class PriorLast(GatedTower):
    def forward(self, params, O, U, groups=None):  # noqa: E741
        return super().forward(params, O, np.roll(U, -self.dim_live, axis=1), groups)


class PriorOnly(GatedTower):
    def forward(self, params, O, U, groups=None):  # noqa: E741
        U = U.copy()
        U[:, self.dim_live :] = 0.0
        return super().forward(params, O, U, groups)


class InputUngated(GatedTower):
    """gate_at="layer_input" taken for "hidden_output"."""

    def forward(self, params, O, U, groups=None):  # noqa: E741
        silent = tree_map(lambda leaf: 0.0 * leaf, params["gate_0"])
        return super().forward(params | {"gate_0": silent}, O, U, groups)


class Combined(GatedTower):
    """Forward line by line, with ``hidden(A, delta)`` in place of delta act(A)."""

    def forward(self, params, O, U, groups=None):  # noqa: E741
        y, cache = super().forward(params, O, U, groups)
        H = O
        for i, name in enumerate(self.layer_names, start=1):
            A = H @ params[name]["W"] + params[name]["b"]
            if name != self.layer_names[-1]:
                delta, _ = self.gates[f"gate_{i}"].forward(params[f"gate_{i}"], U)
                H = self.hidden(A, delta, i)
        assert A.shape == y.shape
        return A, cache

    def act(self, A):
        return ACTIVATIONS[self.activation].forward(A)[0]


class BeforeActivation(Combined):
    def hidden(self, A, delta, i):
        return self.act(delta * A)


class Additive(Combined):
    def hidden(self, A, delta, i):
        return self.act(A) + delta


class Residual(Combined):
    def hidden(self, A, delta, i):
        return self.act(A) * (1.0 + delta)


class LastUngated(Combined):
    def hidden(self, A, delta, i):
        return self.act(A) if i == len(self.layer_names) - 1 else delta * self.act(A)


class RowsNotPutBack(PEPNet):
    """Logits come out sorted by scenario."""

    def forward(self, params, batch, *, draws=None, frozen=None):
        output, cache = super().forward(params, batch, draws=draws, frozen=frozen)
        return output._replace(logit=output.logit[cache.network.groups.order]), cache


class ProbabilityGated(PEPNet):
    """The gate's last word multiplies the probability."""

    def forward(self, params, batch, *, draws=None, frozen=None):
        output, cache = super().forward(params, batch, draws=draws, frozen=frozen)
        delta = list(cache.network.ppnet.gates.values())[-1].delta[:, 0]
        p = np.minimum(delta * sigmoid(output.logit)[0], 1.0 - 1e-6)
        return output._replace(logit=np.log(p / (1.0 - p))), cache


class PriorOfAnotherField(PEPNet):
    """An empty prior_fields means the agnostic fields."""

    @property
    def priors(self):
        return (self.n_aware - 1,)


WRONG_FORWARDS = {
    f"pepnet: {name}": WrongForward(kind, options)
    for name, kind, options in (
        ("gamma inside the sigmoid", with_gates(GammaInside), {}),
        ("gate at most 1", with_gates(GammaForgotten), {}),
        ("gate of a single layer", with_gates(SingleLayer), {}),
        ("blocks interleaved", with_gates(InterleavedBlocks), PER_SCENARIO),
        ("first block for all", with_gates(FirstBlock), PER_SCENARIO),
        ("first tower for all", with_tower(OneTower), PER_SCENARIO),
        ("no EPNet", with_epnet(Open), {}),
        ("EPNet reads the domain only", with_epnet(DomainOnly), {}),
        ("scenario-aware fields not gated", with_epnet(AwareUngated), {}),
        ("prior behind the embeddings", with_tower(PriorLast), {}),
        ("PPNet reads the prior only", with_tower(PriorOnly), {}),
        ("input not gated", with_tower(InputUngated), {"gate_at": "layer_input"}),
        ("gate inside the activation", with_tower(BeforeActivation), {"activation": "tanh"}),
        ("gate added", with_tower(Additive), {}),
        ("gate on top of the identity", with_tower(Residual), {}),
        ("last hidden layer not gated", with_tower(LastUngated), {}),
        ("rows not put back", RowsNotPutBack, PER_SCENARIO),
        ("probability gated", ProbabilityGated, {}),
        ("prior of another field", PriorOfAnotherField, {}),
    )
}
