"""Candidates and gates: places in the list of experts, and values by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds

from midpg_np.checks import dense_gradients, expect_close, perturbed
from midpg_np.layers.candidates import Candidates, own_rows, own_rows_backward
from midpg_np.layers.expert_gates import EveryGate, OwnGate
from midpg_np.layers.groups import group_rows
from midpg_np.layers.shared_gate import OwnSharedGate, SharedGate
from midpg_np.tree import tree_flatten

COUNTS = Candidates(n_scenarios=3, n_specific=2, n_shared=1)  # m_k != D
GROUPS = group_rows(np.array([0, 2, 2]), 3)


def named_experts(n_rows):
    """List of all experts, each saying its place: rows of 0, 1, 2, 3, 4, 5, 6."""
    return np.broadcast_to(np.arange(7.0)[:, None], (n_rows, 7, 1)).copy()


def test_places_by_hand():
    assert (COUNTS.n_all, COUNTS.n_own) == (7, 3)
    S = named_experts(2)
    assert [COUNTS.of_scenario(S, k)[0, :, 0].tolist() for k in range(3)] == [
        [0.0, 1.0, 6.0],
        [2.0, 3.0, 6.0],
        [4.0, 5.0, 6.0],
    ]


@pytest.mark.parametrize("kind", [OwnGate, EveryGate])
def test_no_two_gates_start_alike(kind):
    """Kernels of zero would weigh all candidates alike, equal ones all scenarios alike."""
    params = kind(COUNTS, 5).init(generator(1))
    assert params["W"].shape == (3, 5, 3) and not params["b"].any()
    bounds = np.abs(params["W"]).max(axis=(1, 2))
    assert (np.sqrt(6 / 8) * 0.6 < bounds).all() and (bounds <= np.sqrt(6 / 8)).all()
    assert len(np.unique(params["W"].reshape(3, -1), axis=0)) == 3


def test_a_shared_expert_hears_from_every_gate():
    dS = np.zeros((1, 7, 1))
    for k in range(3):
        COUNTS.add_to(dS, k, np.full((1, 3, 1), 10.0**k))
    assert dS[0, :, 0].tolist() == [1.0, 1.0, 10.0, 10.0, 100.0, 100.0, 111.0]


def test_candidates_of_own_rows_by_hand():
    own = COUNTS.of_own_rows(named_experts(3), GROUPS)
    assert own[:, :, 0].tolist() == [[0.0, 1.0, 6.0], [4.0, 5.0, 6.0], [4.0, 5.0, 6.0]]
    dS = COUNTS.of_own_rows_backward(np.arange(1.0, 10.0).reshape(3, 3, 1), GROUPS)
    assert dS[:, :, 0].tolist() == [
        [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0],
        [0.0, 0.0, 0.0, 0.0, 4.0, 5.0, 6.0],
        [0.0, 0.0, 0.0, 0.0, 7.0, 8.0, 9.0],
    ]


def test_own_experts_by_hand():
    mine = COUNTS.is_own(GROUPS).astype(int).tolist()
    assert mine == [[1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]]


def test_own_rows_by_hand():
    G = np.arange(9.0).reshape(3, 3, 1)
    assert own_rows(G, GROUPS)[:, 0].tolist() == [0.0, 7.0, 8.0]
    dG = own_rows_backward(np.array([[1.0], [2.0], [3.0]]), GROUPS)
    assert dG[:, :, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 3.0]]


def gate_params(*logits):
    """Gates that read nothing: scenario k has the logits of row k."""
    b = np.log(np.array(logits))
    return {"W": np.zeros((len(b), 2, b.shape[1])), "b": b}


def test_own_gate_by_hand():
    """Scenario 0 weighs 1/4, 1/4, 1/2, scenario 2 weighs 0.7, 0.2, 0.1."""
    gate = OwnGate(COUNTS, dim_in=2)
    params = gate_params([1.0, 1.0, 2.0], [1.0, 1.0, 1.0], [7.0, 2.0, 1.0])
    S = COUNTS.of_own_rows(named_experts(3), GROUPS)
    g, cache = gate.forward(params, np.ones((3, 2)), S, GROUPS)
    expect_close(g[:, 0], np.array([3.25, 4.4, 4.4]), tol=1e-14)
    dG, dS, grads = gate.backward(np.array([[1.0], [1.0], [0.0]]), cache)
    assert not dG.any()  # W is zero
    expect_close(dS[:, :, 0], [[0.25, 0.25, 0.5], [0.7, 0.2, 0.1], [0.0, 0.0, 0.0]], tol=1e-14)
    b = grads["b"].dense()
    expect_close(b[0], [0.25 * -3.25, 0.25 * -2.25, 0.5 * 2.75], tol=1e-14)  # w (S - g)
    assert not b[1].any()
    expect_close(b[2], [0.7 * -0.4, 0.2 * 0.6, 0.1 * 1.6], tol=1e-14)


def test_every_gate_by_hand():
    gate = EveryGate(COUNTS, dim_in=2)
    params = gate_params([1.0, 1.0, 2.0], [1.0, 1.0, 2.0], [7.0, 2.0, 1.0])
    g, cache = gate.forward(params, np.ones((3, 1, 2)), named_experts(1), GROUPS)
    expect_close(g[:, 0, 0], np.array([3.25, 4.25, 4.4]), tol=1e-14)
    _, dS, _ = gate.backward(np.array([[[1.0]], [[2.0]], [[3.0]]]), cache)
    expect_close(dS[0, :, 0], [0.25, 0.25, 0.5, 0.5, 2.1, 0.6, 0.5 + 1.0 + 0.3], tol=1e-14)


def shared_params():
    """Logits: experts (0, 0) ... (2, 1) have 1 to 6, the shared one has 7."""
    b = np.log(np.arange(1.0, 8.0))
    return {
        "specific": {"W": np.zeros((3, 2, 2)), "b": b[:6].reshape(3, 2)},
        "shared": {"W": np.zeros((2, 1)), "b": b[6:]},
    }


def test_shared_gate_by_hand():
    """Weights (e + 1) / 28 over all; of own ones 1, 2, 7 over 10 and 5, 6, 7 over 18."""
    G, S = np.ones((3, 2)), named_experts(3)
    g, _ = SharedGate(COUNTS, 2).forward(shared_params(), G, S, GROUPS)
    expect_close(g[:, 0], np.full(3, sum(e * (e + 1) for e in range(7)) / 28.0), tol=1e-13)
    want = np.array([0 + 2 + 42, 20 + 30 + 42, 20 + 30 + 42]) / np.array([10.0, 18.0, 18.0])
    masked, c = SharedGate(COUNTS, 2, own=True).forward(shared_params(), G, S, GROUPS)
    expect_close(masked[:, 0], want, tol=1e-13)
    assert not c.mixture.w[0, 2:6].any()  # exactly zero
    routed, _ = OwnSharedGate(COUNTS, 2).forward(
        shared_params(), G, COUNTS.of_own_rows(S, GROUPS), GROUPS
    )
    expect_close(routed, masked, tol=1e-14)


def test_the_columns_of_the_shared_gate_follow_the_list_of_experts():
    """Column k m_k + e belongs to expert e of scenario k."""
    gate = SharedGate(COUNTS, 2)
    params = gate.init(generator(1))
    W = np.concatenate([*params["specific"]["W"], params["shared"]["W"]], axis=1)
    G, S = generator(2).normal(size=(3, 2)), generator(3).normal(size=(3, 7, 4))
    g, _ = gate.forward(params, G, S, GROUPS)
    e = np.exp(G @ W)
    expect_close(g, np.einsum("be,beq->bq", e / e.sum(axis=1, keepdims=True), S), tol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
@given(
    n_rows=st.integers(1, 7), n_specific=st.integers(1, 3), n_shared=st.integers(1, 3), seed=seeds
)
def test_both_forms_of_the_shared_gate_are_equal(bias, n_rows, n_specific, n_shared, seed):
    """Restricted to own experts: masked among all, or among own ones alone."""
    rng, counts = generator(seed), Candidates(4, n_specific, n_shared)
    groups = group_rows(np.sort(rng.integers(0, 4, size=n_rows)), 4)
    masked, routed = SharedGate(counts, 5, bias, own=True), OwnSharedGate(counts, 5, bias)
    params = perturbed(masked.init(rng), rng)
    G, S = rng.normal(size=(n_rows, 5)), rng.normal(size=(n_rows, counts.n_all, 3))
    g, c = masked.forward(params, G, S, groups)
    g_own, c_own = routed.forward(params, G, counts.of_own_rows(S, groups), groups)
    expect_close(g_own, g, tol=1e-12)
    dg = rng.normal(size=g.shape)
    dG, dS, grads = masked.backward(dg, c)
    dG_own, dS_own, grads_own = routed.backward(dg, c_own)
    expect_close(dG_own, dG, tol=1e-12)
    expect_close(counts.of_own_rows_backward(dS_own, groups), dS, tol=1e-12)
    want = tree_flatten(grads)
    for path, g in tree_flatten(dense_gradients(grads_own)).items():
        expect_close(g, want[path], tol=1e-12)


def test_a_gate_without_bias_has_none():
    for gate in (OwnGate(COUNTS, 2, bias=False), EveryGate(COUNTS, 2, bias=False)):
        assert gate.init(generator(4)).keys() == {"W"}
    params = SharedGate(COUNTS, 2, bias=False).init(generator(5))
    assert params["specific"].keys() == params["shared"].keys() == {"W"}
