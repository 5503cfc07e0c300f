"""Extraction levels: values by hand, and that it does not matter which rows are evaluated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds

from midpg_np.checks import dense_gradients, expect_close, perturbed
from midpg_np.layers.candidates import Candidates, own_rows, own_rows_backward
from midpg_np.layers.extraction import Extraction
from midpg_np.layers.groups import group_rows
from midpg_np.tree import tree_flatten

GROUPS = group_rows(np.array([0, 1]), 2)


def level(counts=None, dims=(1, 1), **options):
    return Extraction(counts or Candidates(2, 1, 1), dims, **options)


def params_by_hand():
    """Experts 2 x, 3 x, shared 5 x; gates read nothing and weigh 1 : 3, 1 : 1, and 1 : 1 : 2."""
    return {
        "specific": {"layer_1": {"W": np.array([[[[2.0]]], [[[3.0]]]]), "b": np.zeros((2, 1, 1))}},
        "shared": {"layer_1": {"W": np.array([[[5.0]]]), "b": np.zeros((1, 1))}},
        "specific_gate": {
            "W": np.zeros((2, 1, 2)),
            "b": np.log(np.array([[1.0, 3.0], [1.0, 1.0]])),
        },
        "shared_gate": {
            "specific": {"W": np.zeros((2, 1, 1)), "b": np.zeros((2, 1))},
            "shared": {"W": np.zeros((1, 1)), "b": np.log(np.array([2.0]))},
        },
    }


def test_all_streams_by_hand():
    """Streams of scenario 0: 1 and 2, of scenario 1: 10 and 20, shared: 100 and 200."""
    G, G_s = np.array([[[1.0], [2.0]], [[10.0], [20.0]]]), np.array([[100.0], [200.0]])
    (g, g_s), cache = level().forward(params_by_hand(), G, G_s, GROUPS)
    assert cache.S[:, :, 0].tolist() == [[2.0, 30.0, 500.0], [4.0, 60.0, 1000.0]]
    expect_close(g[0, :, 0], [0.25 * 2 + 0.75 * 500, 0.25 * 4 + 0.75 * 1000], tol=1e-14)
    expect_close(g[1, :, 0], [0.5 * 30 + 0.5 * 500, 0.5 * 60 + 0.5 * 1000], tol=1e-14)
    expect_close(g_s[:, 0], [0.25 * 2 + 0.25 * 30 + 0.5 * 500, 516.0], tol=1e-14)


def test_backward_by_hand():
    """With equal candidates no gate learns: what is left are the paths through the experts."""
    params = params_by_hand()
    G, G_s = np.full((2, 2, 1), 15.0), np.full((2, 1), 6.0)
    G[1] = 10.0  # every expert gives 30
    (g, g_s), cache = level().forward(params, G, G_s, GROUPS)
    assert set(g.ravel()) == set(g_s.ravel()) == {30.0}
    dg, dg_s = np.array([[[1.0], [0.0]], [[0.0], [2.0]]]), np.array([[4.0], [8.0]])
    dG, dG_s, grads = level().backward(dg, dg_s, cache)
    for path, gradient in tree_flatten(grads).items():
        assert "gate" not in path or not gradient.any(), path
    # adjoint of expert 0: 0.25 dg_0 + 0.25 dg_s, of expert 1: 0.5 dg_1 + 0.25 dg_s
    expect_close(dG[:, :, 0], [[2 * 1.25, 2 * 2.0], [3 * 1.0, 3 * 3.0]], tol=1e-14)
    # of the shared one, three readers: 0.75 dg_0 + 0.5 dg_1 + 0.5 dg_s
    expect_close(dG_s[:, 0], [5 * 2.75, 5 * 5.0], tol=1e-14)
    expect_close(grads["shared"]["layer_1"]["W"][0, 0, 0], 6 * (2.75 + 5.0), tol=1e-14)


def test_the_shared_stream_hears_specific_experts():
    """A shared gate that misses them would give zero when the shared experts are silent."""
    params = params_by_hand()
    params["shared"]["layer_1"]["W"] *= 0.0
    (_, g_s), _ = level().forward(params, np.ones((2, 2, 1)), np.ones((2, 1)), GROUPS)
    expect_close(g_s[:, 0], [1.25, 1.25], tol=1e-14)


@st.composite
def counts(draw):
    return Candidates(4, draw(st.integers(1, 3)), draw(st.integers(1, 3)))


def run(layer, params, G, G_s, groups, dg, dg_s):
    """Streams of own rows, and gradients, whichever rows the level evaluates."""
    (g, g_s), cache = layer.forward(params, G, G_s, groups)
    if layer.gates == "all":
        g, dg = own_rows(g, groups), own_rows_backward(dg, groups)
    dG, dG_s, grads = layer.backward(dg, dg_s if g_s is not None else None, cache)
    if layer.experts == "all":
        dG = dG.sum(axis=0)
    found = {"g": g, "dG": dG, "dG_s": dG_s} | tree_flatten(dense_gradients(grads))
    return found if g_s is None else found | {"g_s": g_s}


@pytest.mark.parametrize("shared_gate", ["all", "own", "none"])
@given(counts=counts(), n_rows=st.integers(1, 7), seed=seeds)
def test_whichever_rows_are_evaluated(shared_gate, counts, n_rows, seed):
    rng = generator(seed)
    groups = group_rows(np.sort(rng.integers(0, 4, size=n_rows)), 4)
    textbook = level(counts, (3, 5, 2), shared_gate=shared_gate)
    params = perturbed(textbook.init(rng), rng)
    X, G_s = rng.normal(size=(n_rows, 3)), rng.normal(size=(n_rows, 3))
    every = np.broadcast_to(X, (4, n_rows, 3))
    dg, dg_s = rng.normal(size=(n_rows, 2)), rng.normal(size=(n_rows, 2))
    want = run(textbook, params, every, G_s, groups, dg, dg_s)
    others = [level(counts, (3, 5, 2), shared_gate=shared_gate, gates="own")]
    if shared_gate != "all":
        options = {"shared_gate": shared_gate, "experts": "own", "gates": "own"}
        others.append(level(counts, (3, 5, 2), **options))
    for other in others:
        G = X if other.experts == "own" else every
        found = run(other, params, G, G_s, groups, dg, dg_s)
        assert found.keys() == want.keys()
        for name, value in want.items():
            expect_close(found[name], value, name=name, tol=1e-12)


def test_without_shared_experts_there_is_no_shared_stream():
    alone = level(Candidates(2, 2, 0), shared_gate="none", experts="own", gates="own")
    params = alone.init(generator(1))
    assert params.keys() == {"specific", "specific_gate"}
    (g, g_s), cache = alone.forward(params, np.ones((2, 1)), np.ones((2, 1)), GROUPS)
    assert g_s is None
    dG, dG_s, _ = alone.backward(g, None, cache)
    assert dG.shape == (2, 1) and dG_s is None


def test_wrong_options():
    with pytest.raises(ValueError, match=r"shared_gate must be one of .*; got 'some'"):
        level(shared_gate="some")
    with pytest.raises(ValueError, match=r"gates must be one of .*; got 'mine'"):
        level(gates="mine")
    with pytest.raises(ValueError, match="experts='own' leaves nothing to mix"):
        level(shared_gate="own", experts="own", gates="all")
    with pytest.raises(ValueError, match="experts='own' leaves nothing to mix"):
        level(shared_gate="all", experts="own", gates="own")
    with pytest.raises(ValueError, match="without shared experts shared_gate must be 'none'"):
        level(Candidates(2, 1, 0), shared_gate="own")
