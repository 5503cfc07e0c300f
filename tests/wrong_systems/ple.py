"""Mistakes in PLE (derivations 5.6)."""

from dataclasses import fields
from unittest.mock import patch

import numpy as np
from spoiling import inside, op, result
from wrong_kinds import WrongClass, WrongForward, WrongOption

from midpg_np.checks.catalogue.experts import extraction_name
from midpg_np.layers.candidates import Candidates
from midpg_np.layers.expert_gates import EveryGate, OwnGate
from midpg_np.layers.experts import Experts
from midpg_np.layers.extraction import Extraction
from midpg_np.layers.mixture import mixture_backward
from midpg_np.layers.scenario_mlp import ScenarioMLP
from midpg_np.layers.shared_gate import SharedGate
from midpg_np.models import PLE
from midpg_np.ops import Activation, relu, relu_backward, sigmoid, softmax
from midpg_np.tree import tree_map

TEXTBOOK = extraction_name("all", "all", "all")
MIXED = extraction_name("all", "own", "all")
ROUTED = extraction_name("own", "own", "own")
PLACES = "layers.candidates.Candidates.places"
OWN_PLACES = "layers.candidates.Candidates.own_places"


# --- layers with a wrong backward -----------------------------------------------------------------


def stride_one(self, k):
    """Experts of scenario k at k, not at k m_k."""
    return slice(k, k + self.n_specific), slice(self.n_all - self.n_shared, self.n_all)


def shared_first(self, k):
    """The shared experts at the beginning of the list."""
    first = self.n_shared + k * self.n_specific
    return slice(first, first + self.n_specific), slice(0, self.n_shared)


def of_rows(places):
    """``Candidates.own_places``, row by row from ``places(self, k)``."""
    return lambda self, groups: np.array([np.r_[places(self, k)] for k in groups.scenario])


def last_gate_only(self, dS, k, dS_k):
    """Shared experts hear from the last gate: assigned, not added."""
    own, shared = self.places(k)
    dS[:, own] = dS_k[:, : self.n_specific]
    dS[:, shared] = dS_k[:, self.n_specific :]


def columns_by_expert(self, W, b):
    """The kernel of the shared gate cut as if column e D + k belonged to expert e of scenario k."""
    n, m_k = self.candidates.n_scenarios, self.candidates.n_specific
    W_k = W[:, : n * m_k].reshape(-1, m_k, n).transpose(2, 0, 1)
    b_k = b[: n * m_k].reshape(m_k, n).T
    specific, shared = {"W": W_k, "b": b_k}, {"W": W[:, n * m_k :], "b": b[n * m_k :]}
    return {"specific": specific, "shared": shared}


def last_activation_forgotten(self, dY, cache):
    """The backward of an ordinary MLP, whose last layer has no activation."""
    dY, grads = dY.copy(), {}
    for i, name in reversed(list(enumerate(self.layer_names))):
        is_positive = cache.activation[i]
        if name == self.layer_names[-1]:
            is_positive = np.ones_like(is_positive)
        dY, grads[name] = self._layer_backward(dY, cache.affine[i], is_positive)
    return dY, grads


def changed(kind, change):
    """A backward of some class whose result is changed: ``change(self, result)``."""
    right = kind.backward

    def wrong(self, *args, **options):
        return change(self, right(self, *args, **options))

    return wrong


def without(i):
    """Set one of the adjoints that a backward returns to zero."""
    return lambda self, adjoints: (*adjoints[:i], 0.0 * adjoints[i], *adjoints[i + 1 :])


def without_shared_input(self, adjoints):
    dH, grads = adjoints
    return (0.0 * dH if self.n_scenarios is None else dH), grads


def specific_part_lost(self, adjoints):
    """The shared gate teaches the shared experts only."""
    dG, dS, grads = adjoints
    dS = dS.copy()
    dS[:, : -self.candidates.n_shared] = 0.0
    return dG, dS, grads


def shared_part_lost(self, adjoints):
    """Specific gates teach their own experts only."""
    dG, dS, grads = adjoints
    dS = dS.copy()
    dS[:, -self.candidates.n_shared :] = 0.0
    return dG, dS, grads


def undivided(dg, cache):
    """Every candidate gets the whole adjoint."""
    d_alpha, dS = mixture_backward(dg, cache)
    return d_alpha, np.broadcast_to(dg[:, None, :], dS.shape).copy()


WRONG = {
    "ple: an input hears from its first expert only": op(
        "stacked_affine one input", H=lambda g, dy, x: dy[:1] @ x["W"][0].T
    ),
    "ple: an input hears the mean of its experts": op(
        "stacked_affine one input", H=lambda g, dy, x: g["H"] / len(dy)
    ),
    "ple: kernels of the next expert": op(
        "stacked_affine", W=lambda g, dy, x: np.roll(g["W"], 1, axis=0)
    ),
    "ple: one kernel for all experts of a scenario": op(
        "routed_affine",
        W=lambda g, dy, x: np.repeat(g["W"].mean(axis=1, keepdims=True), 3, axis=1),
    ),
    "ple: routed kernels of the next scenario": op(
        "routed_affine one input", W=lambda g, dy, x: np.roll(g["W"], 1, axis=0)
    ),
    "ple: last activation of an expert forgotten": inside(
        "experts shared", "layers.experts.Experts.backward", last_activation_forgotten
    ),
    "ple: last activation of a routed expert forgotten": inside(
        "experts own", "layers.experts.Experts.backward", last_activation_forgotten
    ),
    "ple: stride of the experts": inside("expert_candidates", OWN_PLACES, of_rows(stride_one)),
    "ple: stride of the experts in a level": inside(MIXED, OWN_PLACES, of_rows(stride_one)),
    "ple: stride of the experts of every gate": inside("expert_gate every", PLACES, stride_one),
    "ple: shared experts first in the list": inside("expert_gate every", PLACES, shared_first),
    "ple: shared experts hear from the last gate only": inside(
        "expert_gate every", "layers.candidates.Candidates.add_to", last_gate_only
    ),
    "ple: columns of the shared gate by expert": inside(
        "expert_gate shared all", "layers.shared_gate.SharedGate._cut", columns_by_expert
    ),
    "ple: inner product left out of the gates": inside(
        TEXTBOOK, "layers.mixture.softmax_backward", lambda dy, y: y * dy
    ),
    "ple: gates normalised over the batch": inside(
        ROUTED,
        "layers.mixture.softmax_backward",
        lambda dy, y: y * (dy - (y * dy).sum(axis=0, keepdims=True)),
    ),
    "ple: gates treated as constants": inside(
        MIXED, "layers.mixture.softmax_backward", lambda dy, y: 0.0 * dy
    ),
    "ple: experts get the adjoint undivided": inside(
        ROUTED, "layers.expert_gates.mixture_backward", undivided
    ),
    "ple: input of the gates forgotten": inside(
        ROUTED, "layers.expert_gates.OwnGate.backward", changed(OwnGate, without(0))
    ),
    "ple: input of all gates forgotten": inside(
        TEXTBOOK, "layers.expert_gates.EveryGate.backward", changed(EveryGate, without(0))
    ),
    "ple: input of the shared gate forgotten": inside(
        MIXED, "layers.shared_gate.SharedGate.backward", changed(SharedGate, without(0))
    ),
    "ple: shared gate teaches no expert": inside(
        MIXED, "layers.shared_gate.SharedGate.backward", changed(SharedGate, without(1))
    ),
    "ple: shared gate teaches shared experts only": inside(
        MIXED, "layers.shared_gate.SharedGate.backward", changed(SharedGate, specific_part_lost)
    ),
    "ple: shared experts hear from the shared gate only": inside(
        TEXTBOOK, "layers.expert_gates.EveryGate.backward", changed(EveryGate, shared_part_lost)
    ),
    "ple: shared stream hears from its gate only": inside(
        MIXED, "layers.experts.Experts.backward", changed(Experts, without_shared_input)
    ),
    "ple: streams hear from their gates only": inside(
        extraction_name("own", "own", "none"),
        "layers.experts.Experts.backward",
        changed(Experts, without(0)),
    ),
    "ple: rows of a stream that are not its own": result(
        "own_rows", lambda g, dy, c: {"G": np.broadcast_to(dy, g["G"].shape).copy()}
    ),
}


# --- whole models ---------------------------------------------------------------------------------


class Part(PLE):
    """PLE with levels of another class."""

    level = Extraction

    @property
    def levels(self):
        return {
            name: self.level(**{f.name: getattr(level, f.name) for f in fields(level)})
            for name, level in PLE(**vars_of(self)).levels.items()
        }


def vars_of(model):
    return {field.name: getattr(model, field.name) for field in fields(PLE)}


def with_level(**methods):
    """A PLE whose levels have other methods."""
    return type("Wrong", (Part,), {"level": type("WrongLevel", (Extraction,), methods)})


def shared_path_cut(self, dG, dG_s, cache):
    """What the next level sends to the shared stream does not reach this one's shared gate."""
    return Extraction.backward(self, dG, None if dG_s is None else 0.0 * dG_s, cache)


def shared_stream_forgotten(self, dG, dG_s, cache):
    dG, dG_s, grads = Extraction.backward(self, dG, dG_s, cache)
    return dG, 0.0 * dG_s, grads


def specific_streams_forgotten(self, dG, dG_s, cache):
    dG, dG_s, grads = Extraction.backward(self, dG, dG_s, cache)
    return 0.0 * dG, dG_s, grads


def first_expert_only(self, dS, cache):
    """X is read by the experts of every scenario."""
    _, dG_s, grads = Extraction._outputs_backward(self, dS.copy(), cache)
    dS[:, 1:] = 0.0
    dG, _, _ = Extraction._outputs_backward(self, dS, cache)
    return dG, dG_s, grads


class OrderOfTheBatch(PLE):
    """Adjoints are sorted like the rows."""

    def backward(self, d_output, cache):
        logit = d_output.logit[cache.network.groups.place]
        return super().backward(d_output._replace(logit=logit), cache)


class DetachedTower(ScenarioMLP):
    def backward(self, dy, cache):
        dH, grads = super().backward(dy, cache)
        return 0.0 * dH, grads


class TowerDetached(PLE):
    """Experts and gates learn through the towers."""

    @property
    def tower(self):
        return DetachedTower(self.n_scenarios, (self.hidden[-2], self.hidden[-1], 1))


class SpecificExpertsForgotten(PLE):
    """Specific experts learn at every level."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        for name in self.levels:
            grads[name]["specific"] = tree_map(lambda g: 0.0 * dense(g), grads[name]["specific"])
        return grads


class GradientsOfTheNextScenario(PLE):
    """Scenario ids count from 0."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        grads["tower"] = tree_map(lambda g: np.roll(dense(g), 1, axis=0), grads["tower"])
        return grads


def dense(g):
    return g.dense() if hasattr(g, "dense") else g


WRONG_MODELS = {
    "ple: shared path cut between levels": WrongClass(with_level(backward=shared_path_cut)),
    "ple: shared stream forgotten": WrongClass(with_level(backward=shared_stream_forgotten)),
    "ple: specific streams forgotten": WrongClass(with_level(backward=specific_streams_forgotten)),
    "ple: first expert only": WrongClass(with_level(_outputs_backward=first_expert_only)),
    "ple: adjoints in the order of the batch": WrongClass(OrderOfTheBatch),
    "ple: streams detached from the towers": WrongClass(TowerDetached),
    "ple: specific experts forgotten": WrongClass(SpecificExpertsForgotten, {"n_specific": 2}),
    "ple: towers of the next scenario": WrongClass(GradientsOfTheNextScenario),
    "ple: tanh differentiated as sigmoid": WrongOption("ple", "activation", "tanh", "sigmoid"),
}


# --- wrong forwards -------------------------------------------------------------------------------


def patched(target, wrong):
    """A PLE that runs its forward with another function."""

    class Patched(PLE):
        def forward(self, params, batch, **kwargs):
            with patch(f"midpg_np.{target}", wrong):
                return super().forward(params, batch, **kwargs)

    return Patched


def gate(weigh):
    """A PLE whose gates weigh their candidates otherwise."""
    return patched("layers.mixture.softmax", lambda alpha: (weigh(alpha), None))


def passed(A):
    """The identity, with the cache of a ReLU."""
    return A, np.ones_like(A)


def best_only(alpha):
    return (alpha == alpha.max(axis=-1, keepdims=True)).astype(float)


class OtherScope(PLE):
    """ "all" for "own" and the reverse."""

    @property
    def levels(self):
        other = {"all": "own", "own": "all"}[self.shared_gate_scope]
        return PLE(**(vars_of(self) | {"shared_gate_scope": other})).levels


def shared_experts_read_own_stream(self, params, G, G_s, groups):
    return Extraction.forward(self, params, G, G if G.ndim == 2 else G_s, groups)


def specific_experts_read_shared_stream(self, params, G, G_s, groups):
    return Extraction.forward(self, params, G_s if G.ndim == 2 else G, G_s, groups)


class NextScenario(PLE):
    """Ids taken to count from 1."""

    def forward(self, params, batch, **kwargs):
        scenario = (batch.scenario + 1) % self.n_scenarios
        return super().forward(params, batch._replace(scenario=scenario), **kwargs)


class FirstTower(PLE):
    """One tower used for all scenarios."""

    def forward(self, params, batch, **kwargs):
        tower = tree_map(lambda leaf: np.repeat(leaf[:1], len(leaf), axis=0), params["tower"])
        return super().forward(params | {"tower": tower}, batch, **kwargs)


class LeftSorted(PLE):
    """Logits in the order of the scenarios."""

    def forward(self, params, batch, **kwargs):
        output, cache = super().forward(params, batch, **kwargs)
        return output._replace(logit=output.logit[cache.network.groups.order]), cache


class ActivatedLogit(PLE):
    """An activation behind the tower's last layer, as behind an expert's."""

    def forward(self, params, batch, **kwargs):
        output, cache = super().forward(params, batch, **kwargs)
        return output._replace(logit=relu(output.logit)[0]), cache


def only_shared(self, groups):
    place = np.arange(self.n_all)
    return np.broadcast_to(place >= self.n_all - self.n_shared, (groups.bounds[-1], self.n_all))


OWN = {"shared_gate_scope": "own"}
WRONG_FORWARDS = {
    "ple: gate without softmax": WrongForward(gate(lambda alpha: alpha)),
    "ple: gate with sigmoids": WrongForward(gate(lambda alpha: sigmoid(alpha)[0])),
    "ple: gate normalised before softmax": WrongForward(
        gate(lambda alpha: softmax(softmax(alpha)[0])[0])
    ),
    "ple: gate normalised over the batch": WrongForward(gate(lambda alpha: softmax(alpha.T)[0].T)),
    "ple: gate with an activation": WrongForward(gate(lambda alpha: softmax(relu(alpha)[0])[0])),
    "ple: experts summed": WrongForward(gate(np.ones_like)),
    "ple: experts averaged": WrongForward(gate(lambda alpha: np.ones_like(alpha) / alpha.shape[1])),
    "ple: best expert only": WrongForward(gate(best_only)),
    "ple: no activation after an expert": WrongForward(
        patched("layers.experts.ACTIVATIONS", {"relu": Activation(passed, relu_backward)})
    ),
    "ple: activation behind the logit": WrongForward(ActivatedLogit, {"n_specific": 2}),
    "ple: wrong stride of the experts": WrongForward(
        patched(OWN_PLACES, of_rows(stride_one)), {"n_specific": 3}
    ),
    "ple: candidates of the first scenario": WrongForward(
        patched(OWN_PLACES, of_rows(lambda self, k: Candidates.places(self, 0)))
    ),
    "ple: shared gate misses specific experts": WrongForward(
        patched("layers.candidates.Candidates.is_own", only_shared), OWN | {"form": "textbook"}
    ),
    "ple: scope own taken for all": WrongForward(OtherScope, OWN),
    "ple: scope all taken for own": WrongForward(OtherScope),
    "ple: shared experts read the own stream": WrongForward(
        with_level(forward=shared_experts_read_own_stream)
    ),
    "ple: specific experts read the shared stream": WrongForward(
        with_level(forward=specific_experts_read_shared_stream)
    ),
    "ple: scenario ids from 1": WrongForward(NextScenario),
    "ple: one tower for all": WrongForward(FirstTower),
    "ple: logits left sorted": WrongForward(LeftSorted, training=False),
}
