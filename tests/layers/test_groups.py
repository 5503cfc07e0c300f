"""Rows by scenario: order, slices, and what is not there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from midpg_np.layers.groups import group_rows


def test_by_hand():
    groups = group_rows(np.array([3, 0, 0, 1, 0]), 5)
    assert groups.order.tolist() == [1, 2, 4, 3, 0]
    assert groups.place.tolist() == [4, 0, 1, 3, 2]
    assert (groups.present, groups.ids.tolist()) == ((0, 1, 3), [0, 1, 3])
    assert (groups.counts.tolist(), groups.bounds.tolist()) == ([3, 1, 1], [0, 3, 4, 5])
    assert (groups.member.tolist(), groups.scenario.tolist()) == ([0, 0, 0, 1, 2], [0, 0, 0, 1, 3])
    assert groups.slices == (slice(0, 3), slice(3, 4), slice(4, 5))


@given(npst.arrays(np.int64, st.integers(1, 20), elements=st.integers(0, 6)))
def test_sorting_and_back(scenario):
    groups = group_rows(scenario, 7)
    rows = np.arange(scenario.size)
    assert np.array_equal(rows[groups.order][groups.place], rows)
    assert sum(groups.counts) == scenario.size
    for d, part in zip(groups.present, groups.slices, strict=True):
        mine = groups.order[part]
        assert (scenario[mine] == d).all()
        assert (np.diff(mine) > 0).all()  # rows of one scenario keep their order


@pytest.mark.parametrize("bad", [-1, 5])
def test_an_unknown_scenario_is_named(bad):
    with pytest.raises(ValueError, match=rf"must lie in \[0, 5\); row 2 of the batch has {bad}"):
        group_rows(np.array([0, 1, bad]), 5)
