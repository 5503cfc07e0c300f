import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midpg_np.data import Dataset, iterate_batches, split_by_fraction


def dataset(**changes):
    parts = {
        "codes": np.array([[1, 0], [2, 3], [0, 1]]),
        "scenario": np.array([0, 1, -1]),
        "label": np.array([0, 1, 1]),
        "vocab_sizes": (3, 4),
        "n_aware": 1,
        "n_scenarios": 2,
        "field_names": ("a", "b"),
        "scenario_names": ("x", "y"),
    }
    return Dataset(**(parts | changes))


def test_take_and_batch():
    data = dataset(unknown_counts={"a": 1})
    assert len(data) == 3 and data.n_fields == 2
    part = data.take(np.array([2, 0]))
    assert part.codes.tolist() == [[0, 1], [1, 0]]
    assert part.label.tolist() == [1.0, 0.0]
    assert part.unknown_counts == {}
    assert len(data.take(np.array([False, True, False]))) == 1
    batch = data.batch(np.array([1, 1]))
    assert batch.codes.tolist() == [[2, 3], [2, 3]] and batch.scenario.tolist() == [1, 1]
    assert data.batch().n_rows == 3
    assert dataset(label=None).batch(slice(1)).label is None


def test_arrays_are_brought_into_form():
    codes = np.asfortranarray(np.ones((3, 2), dtype=np.int32))
    data = dataset(codes=codes, label=[False, True, True])
    assert data.codes.flags.c_contiguous and data.codes.dtype == np.int64
    assert data.label.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"codes": np.array([[1, 0], [2, 4], [0, 9]])},
            r"codes of field 'b' must lie in \[0, 4\); got 4 at row 1. Check vocab_sizes.",
        ),
        ({"codes": np.array([[1, 0], [2, 3], [-1, 0]])}, "field 'a' .* got -1 at row 2"),
        ({"codes": np.array([1, 2, 3])}, r"codes must have shape \(N, F\); got \(3,\)"),
        ({"codes": np.ones((3, 2))}, "codes must hold whole numbers; got an array of float64"),
        (
            {"scenario": np.array([0, 1, 2])},
            r"scenario ids must lie in \[0, 2\), or be -1 for unknown; got 2 at row 2. "
            "Check n_scenarios.",
        ),
        ({"scenario": np.array([0, 1])}, r"scenario must have shape \(3,\); got \(2,\)"),
        ({"label": np.array([0, 1])}, r"label must have shape \(3,\); got \(2,\)"),
        ({"label": np.array([0, 0.5, 1])}, "labels must be 0 or 1; got 0.5 at row 1"),
        ({"label": np.array([0, np.nan, 1])}, "labels must be 0 or 1; got nan at row 1"),
        ({"vocab_sizes": (3,)}, "vocab_sizes must have one entry per field, 2; got 1"),
        ({"field_names": ("a",)}, "field_names must have one entry per field, 2; got 1"),
        ({"scenario_names": ("x",)}, "scenario_names must have 2 entries"),
        ({"n_aware": 3}, r"n_aware must lie in \[0, 2\]; got 3"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataset(**change)


@given(n_rows=st.integers(0, 40), batch_size=st.integers(1, 12), shuffled=st.booleans())
def test_batches_cover_every_row_once(n_rows, batch_size, shuffled):
    rng = np.random.default_rng(n_rows) if shuffled else None
    batches = list(iterate_batches(n_rows, batch_size, rng))
    together = np.concatenate(batches) if batches else np.empty(0, dtype=int)
    assert sorted(together.tolist()) == list(range(n_rows))
    if not shuffled:
        assert together.tolist() == list(range(n_rows))
    if n_rows > 1 and batch_size > 1:
        assert all(2 <= len(batch) <= batch_size + 1 for batch in batches)


def test_lone_last_row_joins_its_predecessor():
    assert [len(batch) for batch in iterate_batches(9, 4)] == [4, 5]
    assert [len(batch) for batch in iterate_batches(10, 4)] == [4, 4, 2]
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        iterate_batches(9, 0)


def test_split_is_repeatable_and_complete():
    parts = split_by_fraction(101, (0.8, 0.1, 0.1), np.random.default_rng(3))
    again = split_by_fraction(101, (0.8, 0.1, 0.1), np.random.default_rng(3))
    assert [len(part) for part in parts] == [81, 10, 10]
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert sorted(np.concatenate(parts).tolist()) == list(range(101))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_split_in_proportion():
    strata = np.repeat([0, 1, 2], [1000, 50, 10])
    train, valid, test = split_by_fraction(1060, (0.6, 0.2, 0.2), np.random.default_rng(0), strata)
    for part, share in ((train, 0.6), (valid, 0.2), (test, 0.2)):
        counts = np.bincount(strata[part], minlength=3)
        np.testing.assert_allclose(counts, share * np.array([1000, 50, 10]), atol=2)


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.2, -0.2), (1.0, 0.0)])
def test_split_refuses(fractions):
    with pytest.raises(ValueError, match="fractions must be positive and add up to 1"):
        split_by_fraction(10, fractions, np.random.default_rng(0))
