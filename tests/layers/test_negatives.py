"""Partners of the negative pairs: which draws are possible, and how often they come."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds

from midpg_np.layers.negatives import NEGATIVES, draw_partner, shuffle, shuffle_backward

SCENARIO = np.array([0, 1, 1, 0, 3, 0, 1])  # unequal counts, 2 absent, 3 alone
N_DRAWS = 6000


@pytest.mark.parametrize("kind", ["permutation", "derangement"])
@given(seed=seeds, n_rows=st.integers(2, 20))
def test_permutations_use_every_row_once(kind, seed, n_rows):
    partner = draw_partner(generator(seed), np.zeros(n_rows, int), kind)
    assert sorted(partner) == list(range(n_rows))


@given(seed=seeds, n_rows=st.integers(2, 20))
def test_a_derangement_has_no_fixed_point(seed, n_rows):
    partner = draw_partner(generator(seed), np.zeros(n_rows, int), "derangement")
    assert (partner != np.arange(n_rows)).all()


@given(seed=seeds, n_rows=st.integers(2, 20))
def test_other_scenario_is_never_the_own(seed, n_rows):
    rng = generator(seed)
    scenario = rng.integers(0, 3, size=n_rows)
    scenario[:2] = [4, 5]  # two scenarios at least
    partner = draw_partner(rng, scenario, "other_scenario")
    assert (scenario[partner] != scenario).all()


def frequencies(kind, n_rows, scenario=None):
    """How often row b meets row c, (n_rows, n_rows), over many draws from one stream."""
    rng = generator(1)
    scenario = np.zeros(n_rows, int) if scenario is None else scenario
    counts = np.zeros((n_rows, n_rows))
    for _ in range(N_DRAWS):
        counts[np.arange(n_rows), draw_partner(rng, scenario, kind)] += 1
    return counts / N_DRAWS


def assert_uniform(observed, expected):
    """Within five standard deviations of a share of N_DRAWS."""
    assert np.abs(observed - expected).max() < 5.0 * np.sqrt(0.25 / N_DRAWS)


def test_permutations_meet_every_row_equally_often_the_own_included():
    assert_uniform(frequencies("permutation", 5), np.full((5, 5), 0.2))


def test_derangements_meet_every_other_row_equally_often():
    assert_uniform(frequencies("derangement", 5), (1.0 - np.eye(5)) / 4)


def test_all_derangements_are_equally_likely():
    rng, counts = generator(2), {}
    for _ in range(N_DRAWS):
        partner = tuple(int(i) for i in draw_partner(rng, np.zeros(4, int), "derangement"))
        counts[partner] = counts.get(partner, 0) + 1
    possible = [p for p in permutations(range(4)) if all(p[i] != i for i in range(4))]
    assert set(counts) == set(possible)
    assert_uniform(np.array(list(counts.values())) / N_DRAWS, 1 / 9)


def test_other_scenario_meets_every_row_of_the_others_equally_often():
    other = SCENARIO[:, None] != SCENARIO
    expected = other / other.sum(axis=1, keepdims=True)
    assert_uniform(frequencies("other_scenario", len(SCENARIO), SCENARIO), expected)


def test_other_scenario_is_no_permutation():
    """The single row of scenario 3 is met by six rows; partners repeat."""
    draws = [draw_partner(generator(seed), SCENARIO, "other_scenario") for seed in range(20)]
    assert any(len(set(partner.tolist())) < len(SCENARIO) for partner in draws)


def test_one_row_can_only_meet_itself():
    assert draw_partner(generator(3), np.array([2]), "permutation").tolist() == [0]
    with pytest.raises(ValueError, match=r"derangement.*at least 2 rows.*got 1"):
        draw_partner(generator(3), np.array([2]), "derangement")


def test_one_scenario_has_no_other():
    for n_rows in (1, 4):
        message = f"at least 2 scenarios.*got {n_rows} rows of scenario 2"
        with pytest.raises(ValueError, match=message):
            draw_partner(generator(4), np.full(n_rows, 2), "other_scenario")


@pytest.mark.parametrize("kind", NEGATIVES)
def test_the_scenarios_are_left_alone_and_seeds_repeat(kind):
    scenario = SCENARIO.copy()
    scenario.setflags(write=False)
    first, second = (draw_partner(generator(5), scenario, kind) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype.kind == "i"


def test_a_shuffle_takes_the_partners_row():
    e = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    y, cache = shuffle(e, np.array([1, 2, 0, 3]))  # a 3-cycle and a fixed point
    assert y[:, 0].tolist() == [2.0, 3.0, 1.0, 4.0]
    dy = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    assert shuffle_backward(dy, cache)[:, 0].tolist() == [3.0, 1.0, 2.0, 4.0]


def test_adjoints_of_a_row_that_several_rows_read_add_up():
    _, cache = shuffle(np.zeros((5, 2)), np.array([3, 3, 3, 0, 0]))
    dy = np.arange(10.0).reshape(5, 2)
    want = np.array([[14.0, 16.0], [0.0, 0.0], [0.0, 0.0], [6.0, 9.0], [0.0, 0.0]])
    assert np.array_equal(shuffle_backward(dy, cache), want)
