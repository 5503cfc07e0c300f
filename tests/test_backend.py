"""Namespaces, devices, and the two operations that differ between them."""

import sys

import numpy as np
import pytest
from fake_device import FakeArray, fake_xp, to_fake
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds

from midpg_np.backend import (
    DeviceError,
    check_device,
    gather_rows,
    get_xp,
    put_rows,
    scatter_add_rows,
    segment_sum_rows,
    sorted_positions,
    to_device,
    to_numpy,
)
from midpg_np.batch import Batch
from midpg_np.ops import affine


def test_the_namespace_of_numpy_arrays_is_numpy():
    assert get_xp(np.ones(2), W=np.ones((2, 2))) is np


def test_the_namespace_of_registered_arrays_is_theirs():
    assert get_xp(to_fake(np.ones(2)), x=to_fake(np.ones(1))) is fake_xp


def test_a_mixture_names_the_argument_on_the_wrong_device():
    with pytest.raises(TypeError, match=r"W is a fake array but x is a numpy array; move one"):
        get_xp(x=np.ones(2), W=to_fake(np.ones(2)))
    with pytest.raises(TypeError, match="argument 2 is a numpy array but argument 1 is a fake"):
        get_xp(to_fake(np.ones(2)), np.ones(2))


def test_an_op_names_its_argument():
    with pytest.raises(TypeError, match="b is a fake array but x is a numpy array"):
        affine(np.ones((1, 2)), np.ones((2, 3)), to_fake(np.ones(3)))


@pytest.mark.parametrize(("thing", "kind"), [([1.0], "list"), (2.0, "float"), (None, "NoneType")])
def test_what_is_no_array_is_named(thing, kind):
    with pytest.raises(TypeError, match=f"x must be a NumPy or CuPy array; got builtins.{kind}"):
        get_xp(x=thing)


def test_no_array_at_all():
    with pytest.raises(TypeError, match="at least one array"):
        get_xp()


# --- devices -------------------------------------------------------------------------------------


def test_an_unknown_device_is_a_value_error():
    with pytest.raises(ValueError, match="device must be one of cpu, cuda; got 'gpu'"):
        check_device("gpu")
    with pytest.raises(ValueError, match="got 'cuda:0'"):
        to_device(np.ones(2), "cuda:0")


def test_cuda_without_cupy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it now raises ImportError
    for ask in (lambda: check_device("cuda"), lambda: to_device(np.ones(2), "cuda")):
        with pytest.raises(DeviceError, match=r"needs CuPy.*'cuda12'.*midpg_np\[cuda12\]"):
            ask()


def test_what_is_on_the_device_is_not_copied():
    x = np.ones(2)
    assert to_device(x, "cpu") is x
    assert to_numpy(x) is x
    assert isinstance(to_numpy(to_fake(x)), np.ndarray)


def test_a_batch_moves_as_a_whole_with_or_without_labels():
    batch = Batch(np.zeros((3, 2), int), np.zeros(3, int))
    assert batch.to("cpu").label is None
    assert batch.n_rows == 3
    with pytest.raises(ValueError, match="device"):
        batch.to("tpu")


# --- rows that share an id -----------------------------------------------------------------------


def dense_sum(ids, rows, n_rows):
    table = np.zeros((n_rows, rows.shape[1]))
    for row_id, row in zip(ids, rows, strict=True):
        table[row_id] += row
    return table


@given(seed=seeds, n=st.integers(0, 40), n_rows=st.integers(1, 12))
def test_rows_that_share_an_id_are_summed(seed, n, n_rows):
    rng = generator(seed)
    ids, rows = rng.integers(0, n_rows, size=n), rng.normal(size=(n, 3))
    want = dense_sum(ids, rows, n_rows)
    unique_ids, sums = segment_sum_rows(ids, rows)
    assert (np.diff(unique_ids) > 0).all()
    assert set(unique_ids) == set(ids)
    np.testing.assert_allclose(sums, want[unique_ids], rtol=0, atol=1e-13)
    target = np.ones((n_rows, 3))
    scatter_add_rows(target, ids, rows)
    np.testing.assert_allclose(target, 1.0 + want, rtol=0, atol=1e-13)


def one_by_one(ids, rows):
    """Add row after row to zeros, as the textbook does."""
    unique_ids, segment = np.unique(ids, return_inverse=True)
    sums = np.zeros((unique_ids.size, rows.shape[1]), dtype=rows.dtype)
    np.add.at(sums, segment, rows)
    return unique_ids, sums


@given(
    seed=seeds,
    n=st.integers(0, 60),
    width=st.integers(0, 5),
    n_rows=st.sampled_from([1, 2, 12, 2**31, 2**33, 2**62]),
    id_type=st.sampled_from([np.int64, np.uint16, np.int32]),
    dtype=st.sampled_from([np.float32, np.float64, np.complex64, np.complex128]),
)
def test_sums_have_the_bits_of_adding_row_after_row(seed, n, width, n_rows, id_type, dtype):
    """Ids beyond 2^31 and beyond what can be packed, zeros of both signs, tiny imaginary parts."""
    rng = generator(seed)
    few = rng.integers(0, min(n_rows, np.iinfo(id_type).max), size=8)
    ids = rng.choice(few, size=n).astype(id_type)
    rows = rng.normal(size=(n, width)) * 10.0 ** rng.integers(-9, 9, (n, 1))
    rows = (rows * rng.choice([-0.0, 1.0, 1.0], size=rows.shape)).astype(dtype)
    if rows.dtype.kind == "c":
        rows += dtype(1e-20j) * rng.normal(size=rows.shape).astype(rows.real.dtype)
    got, want = segment_sum_rows(ids, rows), one_by_one(ids, rows)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()


def test_sums_of_an_infinite_complex_row_stay_infinite():
    rows = np.array([[complex(np.inf, 1.0)], [complex(1.0, 1.0)]])
    _, sums = segment_sum_rows(np.array([3, 3]), rows)
    assert sums[0, 0] == complex(np.inf, 2.0)


@given(seed=seeds, n=st.integers(0, 60), top=st.sampled_from([1, 7, 2**40, 2**62]))
def test_sorted_positions_are_those_of_a_stable_sort(seed, n, top):
    ids = generator(seed).integers(-top, top, size=n)
    sorted_ids, order = sorted_positions(ids)
    np.testing.assert_array_equal(order, np.argsort(ids, kind="stable"))
    np.testing.assert_array_equal(sorted_ids, ids[order])


def test_gathering_refuses_an_id_beyond_the_table():
    with pytest.raises(IndexError, match="out of bounds"):
        gather_rows(np.zeros((3, 2)), np.array([[0, 3]]))
    assert to_numpy(gather_rows(to_fake(np.eye(2)), to_fake([1]))).tolist() == [[0.0, 1.0]]


def rows_apart(table):
    """The same table, with other numbers between its rows."""
    return np.concatenate([table, np.full_like(table, 9)], axis=1)[:, : table.shape[1]]


def columns_apart(table):
    return np.repeat(table, 2, axis=1)[:, ::2]


STORED = [np.ascontiguousarray, np.asfortranarray, rows_apart, columns_apart]


@pytest.mark.parametrize("make", STORED)
@pytest.mark.parametrize("ids", [np.array([4, 1, 4]), np.array([[0, -1], [2, 3]])])
def test_rows_are_gathered_from_wherever_they_lie(make, ids):
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    got = gather_rows(make(table), ids)
    np.testing.assert_array_equal(got, table[ids])
    assert got.dtype == table.dtype
    with pytest.raises(IndexError, match="out of bounds"):
        gather_rows(make(table), np.array([5]))


@pytest.mark.parametrize("make", STORED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_rows_are_put_where_they_belong(make, dtype):
    table, ids = make(np.zeros((5, 3), np.float32)), np.array([4, 1])
    rows = np.arange(12, dtype=dtype).reshape(2, 6)[:, ::2]
    put_rows(table, ids, rows)
    want = np.zeros((5, 3))
    want[4], want[1] = [0, 2, 4], [6, 8, 10]
    np.testing.assert_array_equal(table, want)
    with pytest.raises(IndexError, match="out of bounds"):
        put_rows(table, np.array([5]), rows[:1])


def test_repeated_ids_by_hand():
    ids, rows = np.array([4, 1, 4, 4]), np.array([[1.0], [10.0], [2.0], [4.0]])
    unique_ids, sums = segment_sum_rows(ids, rows)
    assert unique_ids.tolist() == [1, 4]
    assert sums.tolist() == [[10.0], [7.0]]
    target = np.zeros((5, 1))
    scatter_add_rows(target, ids, rows)
    assert target.ravel().tolist() == [0.0, 10.0, 0.0, 0.0, 7.0]


def test_the_device_form_of_a_segment_sum_agrees():
    rng = generator(1)
    ids, rows = rng.integers(0, 5, size=20), rng.normal(size=(20, 2))
    got = segment_sum_rows(to_fake(ids), to_fake(rows))
    assert all(isinstance(part, FakeArray) for part in got)
    for part, want in zip(got, segment_sum_rows(ids, rows), strict=True):
        np.testing.assert_allclose(to_numpy(part), want, rtol=0, atol=1e-13)


def test_a_segment_sum_keeps_float32_and_gives_the_same_bits_twice():
    rng = generator(2)
    ids, rows = rng.integers(0, 5, size=200), rng.normal(size=(200, 4)).astype(np.float32)
    (_, first), (_, second) = segment_sum_rows(ids, rows), segment_sum_rows(ids, rows)
    assert first.dtype == np.float32
    assert first.tobytes() == second.tobytes()


def test_mixed_devices_are_refused_here_too():
    with pytest.raises(TypeError, match="ids is a fake array but target is a numpy array"):
        scatter_add_rows(np.zeros((2, 1)), to_fake([0]), np.ones((1, 1)))
