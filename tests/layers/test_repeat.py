"""The repeat operator psi and the axes it is made of: index formulas, and sums over copies."""

import numpy as np
import pytest
from hypothesis import given
from strategies import generator, seeds, sizes

from midpg_np.layers.expansion import Expansion, RepeatShape
from midpg_np.layers.repeat import REPEAT_MODES, merge_axis, repeat, repeat_backward, split_axis


def test_block_repeat_by_hand():
    Q = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    assert repeat(Q, 4, 6, "block")[0].tolist() == [
        [1, 1, 1, 2, 2, 2],
        [1, 1, 1, 2, 2, 2],
        [3, 3, 3, 4, 4, 4],
        [3, 3, 3, 4, 4, 4],
    ]


def test_tile_by_hand():
    Q = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    assert repeat(Q, 4, 6, "tile")[0].tolist() == [
        [1, 2, 1, 2, 1, 2],
        [3, 4, 3, 4, 3, 4],
        [1, 2, 1, 2, 1, 2],
        [3, 4, 3, 4, 3, 4],
    ]


def core_index(mode, i, d, f):
    """r(i): which core entry entry i copies (derivations 3.2)."""
    return i // f if mode == "block" else i % d


@pytest.mark.parametrize("mode", REPEAT_MODES)
@given(sizes=sizes(), seed=seeds)
def test_index_formula_and_its_adjoint(mode, sizes, seed):
    rng = generator(seed)
    B, d_r, d_c, _, f_r, f_c, _ = sizes
    Q, dS = rng.normal(size=(B, d_r, d_c)), rng.normal(size=(B, sizes.d_m, sizes.d_n))
    S, dQ = repeat(Q, sizes.d_m, sizes.d_n, mode), np.zeros_like(Q)
    for i in range(sizes.d_m):
        for j in range(sizes.d_n):
            r, c = core_index(mode, i, d_r, f_r), core_index(mode, j, d_c, f_c)
            assert np.array_equal(S[:, i, j], Q[:, r, c])
            dQ[:, r, c] += dS[:, i, j]
    got = repeat_backward(dS, d_r, d_c, mode)
    np.testing.assert_allclose(got, dQ, rtol=0, atol=1e-12)
    np.testing.assert_allclose((S * dS).sum(), (Q * got).sum(), rtol=1e-10, atol=1e-10)


def test_the_adjoint_sums_and_does_not_average():
    assert repeat_backward(np.ones((1, 6, 4)), 2, 2, "block").tolist() == [[[6.0, 6.0]] * 2]


@pytest.mark.parametrize("mode", REPEAT_MODES)
def test_a_core_of_full_size_is_the_matrix_itself(mode):
    Q = generator(1).normal(size=(2, 3, 4))
    assert np.array_equal(repeat(Q, 3, 4, mode), Q)


@pytest.mark.parametrize("mode", REPEAT_MODES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_merge_undoes_split(mode, axis):
    x = generator(2).normal(size=(6, 6, 6))
    parts = split_axis(x, axis, 2, mode)
    assert parts.shape[axis % 3 : axis % 3 + 2] == (2, 3)
    assert np.array_equal(merge_axis(parts, axis % 3, mode), x)


def test_groups_hold_the_entries_that_share_a_core_entry():
    x = np.arange(6)
    assert split_axis(x, 0, 2, "block").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert split_axis(x, 0, 2, "tile").tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("mode", REPEAT_MODES)
def test_fold_is_the_adjoint_of_expand(mode):
    expansion = Expansion((RepeatShape(2, 3, 4, 3), RepeatShape(1, 2, 3, 4)), mode)
    assert expansion.dim_full == 24
    q, w = generator(3).normal(size=(5, 8)), generator(4).normal(size=(5, 24))
    np.testing.assert_allclose((expansion.expand(q) * w).sum(), (q * expansion.fold(w)).sum())
    full = expansion.expand(q)
    core = q[:, :6].reshape(5, 2, 3)
    assert np.array_equal(full[:, :12].reshape(5, 4, 3), repeat(core, 4, 3, mode))
