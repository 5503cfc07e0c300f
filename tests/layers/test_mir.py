"""The regulariser: its value by definition, its textbook form, and its bound."""

import numpy as np
import pytest
from strategies import generator

from midpg_np.checks import perturbed
from midpg_np.layers.discriminator import DISCRIMINATORS
from midpg_np.layers.expansion import Expansion, RepeatShape
from midpg_np.layers.mir import MutualInformation
from midpg_np.tree import tree_map

RNG = generator(1)
E, Q = RNG.normal(size=(5, 3)), RNG.random((5, 6))
PARTNER = np.array([1, 2, 0, 3, 4])  # a 3-cycle and two fixed points
KINDS = [("mlp", "textbook"), ("mlp", "grouped"), ("bilinear", "textbook"), ("bilinear", "grouped")]


def layer(disc, form, **options):
    module = MutualInformation(3, 6, disc, (4,), form=form, **options)
    return module, perturbed(module.init(generator(2)), generator(3))


def score(disc, params, e, q):
    """T(e, q) of one pair, from its definition."""
    if disc == "bilinear":
        return e @ params["M"] @ q + params["b"][0]
    hidden = np.concatenate([e, q]) @ params["layer_1"]["W"] + params["layer_1"]["b"]
    return (np.maximum(hidden, 0.0) @ params["layer_2"]["W"] + params["layer_2"]["b"])[0]


@pytest.mark.parametrize(("disc", "form"), KINDS)
def test_the_value_by_its_definition(disc, form):
    """Row b's shuffled pair has the context of row pi(b) and the core of row b."""
    module, params = layer(disc, form)
    loss, cache = module.forward(params, E, E[PARTNER], Q)
    t_pos = np.array([score(disc, params, E[b], Q[b]) for b in range(5)])
    t_neg = np.array([score(disc, params, E[PARTNER[b]], Q[b]) for b in range(5)])
    np.testing.assert_allclose(cache.t_pos, t_pos, rtol=0, atol=1e-14)
    np.testing.assert_allclose(cache.t_neg, t_neg, rtol=0, atol=1e-14)
    want = np.mean(np.log1p(np.exp(-t_pos)) + np.log1p(np.exp(t_neg)))
    assert loss == pytest.approx(want, rel=1e-14)


@pytest.mark.parametrize(("disc", "form"), KINDS)
def test_a_silent_discriminator_gives_2_log_2(disc, form):
    module, params = layer(disc, form)
    zeros = tree_map(np.zeros_like, params)
    assert module.forward(zeros, E, E[PARTNER], Q)[0] == pytest.approx(2 * np.log(2.0), rel=1e-15)


@pytest.mark.parametrize(("disc", "form"), KINDS)
def test_fixed_points_score_both_kinds_alike(disc, form):
    module, params = layer(disc, form)
    _, cache = module.forward(params, E, E[PARTNER], Q)
    np.testing.assert_allclose(cache.t_pos[3:], cache.t_neg[3:], rtol=0, atol=1e-14)
    assert (cache.t_pos[:3] != cache.t_neg[:3]).all()


@pytest.mark.parametrize("disc", DISCRIMINATORS)
@pytest.mark.parametrize("mode", ["block", "tile"])
def test_the_full_matrix_is_what_the_discriminator_reads(disc, mode):
    """disc_input="full" equals handing the repeated matrix to a discriminator as wide."""
    expansion = Expansion((RepeatShape(2, 3, 4, 9),), mode)
    folded, params = layer(disc, "grouped", expansion=expansion)
    wide = MutualInformation(3, 36, disc, (4,))
    want = wide.forward(params, E, E[PARTNER], expansion.expand(Q))[0]
    assert folded.forward(params, E, E[PARTNER], Q)[0] == pytest.approx(want, rel=1e-13)


def test_a_linear_discriminator_has_no_hidden_layer():
    module = MutualInformation(3, 6, hidden=())
    params = perturbed(module.init(generator(4)), generator(5))
    assert params.keys() == {"layer_1"}
    loss, cache = module.forward(params, E, E[PARTNER], Q)
    textbook = MutualInformation(3, 6, hidden=(), form="textbook")
    assert loss == pytest.approx(textbook.forward(params, E, E[PARTNER], Q)[0], rel=1e-14)
    assert module.kinks(cache) == {}


@pytest.mark.parametrize(("disc", "form"), KINDS)
def test_contexts_and_core_stay_as_they_are(disc, form):
    module, params = layer(disc, form)
    e, e_neg, q = E.copy(), E[PARTNER], Q.copy()
    _, cache = module.forward(params, e, e_neg, q)
    module.backward(1.0, cache)
    assert np.array_equal(e, E)
    assert np.array_equal(e_neg, E[PARTNER])
    assert np.array_equal(q, Q)


@pytest.mark.parametrize(("option", "value"), [("disc", "dot"), ("form", "row")])
def test_unknown_options(option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*; got '{value}'"):
        MutualInformation(3, 6, **{option: value})
