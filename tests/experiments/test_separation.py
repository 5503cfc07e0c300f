"""Numbers of separation and similarity, on arrays whose answer is known."""

import math

import numpy as np
import pytest

from midpg_np.experiments.cores import dependence_ceiling
from midpg_np.experiments.separation import (
    pair_agreement,
    probe_bound,
    purity_chance,
    separation,
    similarity,
    variance_ratio,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def clusters(rng, scenario, width=5, distance=50.0):
    """Rows about a centre for each scenario, far apart."""
    centres = distance * np.eye(scenario.max() + 1, width)
    return centres[scenario] + rng.normal(size=(len(scenario), width))


SCENARIO = np.repeat([0, 1, 2], [20, 15, 5])


def test_well_separated_clusters(rng):
    found = separation(clusters(rng, SCENARIO), SCENARIO, rng)
    assert found.purity == 1.0
    assert found.silhouette > 0.9
    assert found.variance_ratio > 50 * found.variance_ratio_chance
    assert abs(found.silhouette_chance) < 0.2


def test_identical_rows_are_at_chance_whatever_their_order(rng):
    order = rng.permutation(len(SCENARIO))
    rows = np.full((len(SCENARIO), 4), 0.37, dtype=np.float32)
    for scenario in (SCENARIO, SCENARIO[order]):
        found = separation(rows, scenario, rng)
        assert found.purity == pytest.approx(found.purity_chance, abs=1e-12)
        assert (found.silhouette, found.variance_ratio) == (0.0, 0.0)


def test_rows_that_do_not_depend_on_the_scenario_are_near_chance(rng):
    scenario = rng.choice(4, size=1500, p=[0.4, 0.3, 0.2, 0.1])
    found = separation(rng.normal(size=(1500, 6)), scenario, rng)
    assert found.purity == pytest.approx(found.purity_chance, abs=0.04)
    assert found.silhouette == pytest.approx(found.silhouette_chance, abs=0.03)
    assert found.variance_ratio == pytest.approx(found.variance_ratio_chance, rel=0.8)


def test_moving_and_turning_the_rows_changes_nothing(rng):
    rows = clusters(rng, SCENARIO, distance=2.0)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    moved = separation(1000.0 + rows @ turn, SCENARIO, np.random.default_rng(1))
    assert moved == pytest.approx(separation(rows, SCENARIO, np.random.default_rng(1)), rel=1e-6)


def test_variance_ratio_by_hand():
    # Means 1 and 11 about 6: 4 * 25 between; 4 * 1 within.
    rows = np.array([[0.0], [2.0], [10.0], [12.0]])
    assert variance_ratio(rows, np.array([0, 0, 1, 1])) == pytest.approx(25.0)


def test_without_spread_within_the_ratio_is_not_defined():
    assert variance_ratio(np.array([[1.0], [1.0], [3.0]]), np.array([0, 0, 1])) is None


def test_purity_counts_ties_in_shares(rng):
    # Row 0 has neighbours of both scenarios at distance 1.
    rows, scenario = np.array([[0.0], [1.0], [-1.0], [9.0]]), np.array([0, 0, 1, 1])
    # Row 1: nearest 0, same. Row 2: nearest 0, other. Row 3: nearest 1, other.
    assert separation(rows, scenario, rng).purity == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_chance_of_purity_by_hand():
    assert purity_chance(np.array([0, 0, 1])) == pytest.approx(2 / 3 * 1 / 2)
    assert purity_chance(np.array([0, 1, 2])) == 0.0


@pytest.mark.parametrize("scenario", [[0, 0, 0], [0, 1, 2]])
def test_one_scenario_or_each_row_of_its_own_has_no_separation(rng, scenario):
    assert set(separation(np.eye(3), np.array(scenario), rng)) == {None}


def test_errors_of_separation(rng):
    with pytest.raises(ValueError, match="one length; got"):
        separation(np.eye(3), np.zeros(4, dtype=int), rng)
    rows = np.eye(3)
    rows[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"finite; got .* at row 1"):
        separation(rows, np.array([0, 0, 1]), rng)


def test_similarities_by_hand():
    means = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
    assert similarity(means, "cosine")[0] == pytest.approx([1.0, 1.0, 10 / 14])
    assert similarity(means, "correlation")[0] == pytest.approx([1.0, 1.0, -1.0])
    # Deviations from (2, 8/3, 10/3): (-1, -2/3, -1/3), (0, 4/3, 8/3), (1, -2/3, -7/3).
    assert similarity(means, "deviation")[0] == pytest.approx([1.0, 1.0, -1.0])


def test_deviation_leaves_out_what_is_common(rng):
    common, own = 100.0 * rng.random(40), rng.normal(size=(2, 40))
    means = common + np.array([own[0], own[0] + 0.1 * own[1], -own[0], own[1]])
    assert similarity(means, "correlation").min() > 0.99
    alike = similarity(means, "deviation")
    assert alike[0, 1] > 0.9 and alike[0, 2] < -0.8
    assert similarity(means - common, "deviation") == pytest.approx(alike, abs=1e-6)


def test_a_scenario_without_rows_or_direction_is_like_none():
    means = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 1.0], [5.0, 5.0]])
    for kind in ("cosine", "correlation", "deviation"):
        alike = similarity(means, kind)
        assert np.isnan(alike[1]).all() and np.isfinite(alike[0, 2])
    assert np.isnan(similarity(means, "correlation")[3]).all()
    assert np.isnan(similarity(np.full((2, 3), np.nan), "deviation")).all()


def test_unknown_similarity():
    with pytest.raises(ValueError, match=r"kind must be one of .*; got 'euclid'"):
        similarity(np.eye(2), "euclid")


def test_agreement_over_pairs():
    matrix = np.array([[1.0, 0.1, 0.2], [0.1, 1.0, 0.3], [0.2, 0.3, 1.0]])
    assert pair_agreement(matrix, np.exp(matrix)) == 1.0
    assert pair_agreement(matrix, -matrix) == -1.0
    # The diagonal, and pairs that are not known, do not count.
    larger = np.full((4, 4), np.nan)
    larger[:3, :3] = matrix
    np.fill_diagonal(larger, -7.0)
    assert pair_agreement(larger, np.pad(matrix, (0, 1))) == 1.0
    assert pair_agreement(matrix[:2, :2], matrix[:2, :2]) is None
    assert pair_agreement(matrix, np.ones((3, 3))) is None


@pytest.mark.parametrize(("n", "floor"), [(2, 0.9548), (3, 0.7498), (10, 0.3351)])
def test_ceiling_of_equal_contexts(n, floor):
    contexts = np.repeat(np.arange(n), 7)[:, None]
    assert dependence_ceiling(contexts) == pytest.approx(2 * math.log(2) - floor, abs=1e-4)


def test_ceiling_counts_combinations_of_fields():
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert dependence_ceiling(pairs) == dependence_ceiling(np.arange(4)[:, None])
    assert dependence_ceiling(pairs[:, :1] * 0) == pytest.approx(0.0, abs=1e-12)


def test_probe_finds_what_there_is_and_no_more(rng):
    contexts = rng.choice(5, size=(3000, 1), p=[0.4, 0.3, 0.1, 0.1, 0.1])
    rows = 1e-3 * np.eye(5)[contexts[:, 0]] + 1e-6 * rng.normal(size=(3000, 5))
    ceiling = dependence_ceiling(contexts)
    assert 0.96 * ceiling < probe_bound(rows, contexts, rng) <= ceiling + 1e-9
    independent = probe_bound(rng.normal(size=(3000, 5)), contexts, rng)
    assert -0.03 < independent < 0.01


def test_probe_with_nothing_to_learn(rng):
    contexts = rng.choice(3, size=(50, 2))
    assert probe_bound(np.ones((50, 4)), contexts, rng) == 0.0
    assert probe_bound(rng.normal(size=(50, 4)), np.zeros((50, 1), dtype=int), rng) == 0.0
    assert probe_bound(np.eye(2), np.array([[0], [1]]), rng) == 0.0
