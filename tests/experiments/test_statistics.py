"""Paired comparisons, against values computed by hand, by enumeration and by scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from midpg_np.experiments.statistics import (
    best,
    compare,
    holm,
    paired,
    smallest_wilcoxon,
    summarise,
    wilcoxon,
)


def by_seed(*values):
    return dict(enumerate(values))


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03; 1 x 0.04 would fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9, 0.6]) == [1.0, 1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_counts_only_tests_that_are_defined():
    assert holm([None, 0.01, None, 0.03]) == [None, 0.02, None, 0.03]
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_rule_rejects(p_values):
    """The rule as printed: go up the sorted values, stop at the first that is not rejected."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = set()
    for rank, i in enumerate(order):
        if p_values[i] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_paired_by_hand():
    pair = paired(by_seed(0.6, 0.8, 0.9), by_seed(0.5, 0.6, 0.6))
    assert (pair.n_pairs, pair.n_better, pair.n_tied) == (3, 3, 0)
    assert (pair.mean, pair.std) == pytest.approx((0.2, 0.1))
    assert pair.t == pytest.approx(2 * math.sqrt(3))
    # Student's t with two degrees of freedom has p = 1 - t / sqrt(t^2 + 2), quantile 4.302653.
    assert pair.p_t == pytest.approx(1 - math.sqrt(12 / 14))
    assert pair.high - pair.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert pair.mean - pair.low == pytest.approx(pair.high - pair.mean)
    assert pair.p_wilcoxon == 0.25  # 2 / 2^3


def test_paired_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10))
    pair = paired(by_seed(*a), by_seed(*b))
    assert pair.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert pair.p_wilcoxon == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-9)


def test_better_means_smaller_for_a_loss():
    a, b = by_seed(0.1, 0.2, 0.3), by_seed(0.2, 0.3, 0.3)
    assert paired(a, b, larger_is_better=False).n_better == 2
    assert paired(a, b).n_better == 0
    assert paired(a, b).n_tied == 1


def test_only_seeds_that_both_have_are_paired():
    pair = paired({0: 0.5, 2: 0.7, 3: 0.9}, {1: 0.1, 2: 0.6, 3: 0.7})
    assert pair.n_pairs == 2
    assert pair.mean == pytest.approx(0.15)


def test_a_single_trial_has_a_difference_and_no_test():
    pair = paired(by_seed(0.7), by_seed(0.6))
    assert pair.mean == pytest.approx(0.1)
    assert pair.std is pair.low is pair.t is pair.p_t is pair.p_wilcoxon is None


def test_no_common_seed():
    pair = paired({0: 0.5}, {1: 0.5})
    assert (pair.n_pairs, pair.mean, pair.p_t) == (0, None, None)


def test_equal_systems_do_not_differ():
    pair = paired(by_seed(0.5, 0.6, 0.7), by_seed(0.5, 0.6, 0.7))
    assert (pair.mean, pair.p_t, pair.p_wilcoxon, pair.n_tied) == (0.0, 1.0, 1.0, 3)
    assert pair.t is None


def test_the_same_difference_everywhere_leaves_t_undefined():
    # 0.1 + 0.2 - 0.2 and 0.1 differ in their last bits only.
    pair = paired(by_seed(0.1 + 0.2, 0.6, 0.8, 0.4), by_seed(0.2, 0.5, 0.7, 0.3))
    assert pair.mean == pytest.approx(0.1)
    assert pair.t is pair.p_t is None
    assert pair.p_wilcoxon == 2 / 2**4


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3, 4, 5], 2 / 32),
        ([1, 2, -3], 1.0),
        # Ranks 2, 2, 4, 5 and, negative, 2: of 32 signs 4 give a sum of at most 2, on each side.
        ([1, 1, 2, 3, -1], 8 / 32),
        ([0, 1, 2, 3], 2 / 8),
        ([0, 0], 1.0),
        ([4], None),
    ],
)
def test_wilcoxon_by_hand(differences, p):
    assert wilcoxon(np.array(differences)) == (p if p is None else pytest.approx(p))


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=8))
def test_wilcoxon_by_enumeration(differences):
    d = np.array([x for x in differences if x], dtype=float)
    ranks = stats.rankdata(np.abs(d))
    sums = [ranks @ np.array(s) for s in itertools.product([0, 1], repeat=len(d))]
    below, above = (
        np.mean([side * x <= side * (ranks @ (d > 0)) for x in sums]) for side in (1, -1)
    )
    assert wilcoxon(np.array(differences)) == pytest.approx(min(1.0, 2 * min(below, above)))


def test_wilcoxon_of_many_pairs_with_ties():
    d = np.random.default_rng(0).integers(-3, 9, size=40).astype(float)
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d[d != 0]).pvalue)


def test_ties_that_rounding_hides_are_ties():
    pair = paired(by_seed(0.3, 0.7, 0.5, 0.9), by_seed(0.2, 0.6, 0.4, 0.7))
    assert pair.p_wilcoxon == pytest.approx(2 / 2**4)
    assert wilcoxon(np.round(np.array([0.3 - 0.2, 0.7 - 0.6]), 12)) == 0.5


def test_no_p_value_is_below_the_smallest():
    assert smallest_wilcoxon(10) == 2 / 1024
    assert smallest_wilcoxon(1) == 1.0
    assert wilcoxon(np.arange(1.0, 11.0)) == pytest.approx(smallest_wilcoxon(10))


def test_compare_corrects_over_the_systems():
    rng = np.random.default_rng(1)
    base = rng.normal(0.6, 0.01, size=10)
    systems = {
        "a": by_seed(*base),
        "b": by_seed(*(base + rng.normal(0.02, 0.01, size=10))),
        "c": by_seed(*(base + rng.normal(0.0, 0.01, size=10))),
    }
    found = compare(systems, "a")
    assert list(found) == ["b", "c"]
    assert found["b"].holm_t == pytest.approx(2 * found["b"].p_t)  # the smaller of two
    assert found["c"].holm_t == pytest.approx(found["c"].p_t)
    assert found["b"].holm_wilcoxon == pytest.approx(2 * found["b"].p_wilcoxon)
    assert found["b"].as_dict()["n_pairs"] == 10
    with pytest.raises(ValueError, match=r"reference must be one of \['a', 'b', 'c'\]; got 'd'"):
        compare(systems, "d")


def test_best_and_summary():
    systems = {"a": by_seed(0.5, 0.7), "b": by_seed(0.6, 0.6), "c": {}, "d": by_seed(0.1, 0.9)}
    assert best(systems) == "a"
    assert best({"a": by_seed(0.5), "b": by_seed(0.4)}, larger_is_better=False) == "b"
    assert best({"c": {}}) is None
    assert summarise({}) == {"seeds": [], "values": [], "mean": None, "std": None}
    assert summarise({3: 0.5})["std"] is None
    assert summarise({3: 0.5, 5: 0.7})["std"] == pytest.approx(math.sqrt(0.02))
    assert summarise({3: 0.5, 5: 0.7})["seeds"] == [3, 5]
