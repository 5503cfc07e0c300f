"""Rows of moments: read and written as if they were rows of three arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midpg_np.training.optim import Adam
from midpg_np.training.row_moments import RowMoments, gather_moments, put_moments, table_moments


@given(
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.longdouble]),
    n_rows=st.integers(1, 9),
    width=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_records_are_three_arrays(dtype, n_rows, width, seed):
    rng = np.random.default_rng(seed)
    moments = table_moments(np.zeros((n_rows, width), dtype), waits=True)
    m, v = (rng.normal(size=(n_rows, width)).astype(dtype) for _ in range(2))
    last = rng.integers(0, 2**62, n_rows)
    moments.m[...], moments.v[...], moments.last[...] = m, v, last

    ids = rng.permutation(n_rows)[: rng.integers(0, n_rows + 1)]
    rows = gather_moments(moments, ids)
    np.testing.assert_array_equal(rows.last, last[ids])
    np.testing.assert_array_equal(rows.m, m[ids])
    np.testing.assert_array_equal(rows.v, v[ids])
    assert rows.m.dtype == rows.v.dtype == dtype

    rows.m[...], rows.v[...], rows.last[...] = -rows.m, 2 * rows.v, 7
    np.testing.assert_array_equal(moments.m, m, err_msg="rows are not views of the table")
    put_moments(moments, rows)
    m[ids], v[ids], last[ids] = -m[ids], 2 * v[ids], 7
    np.testing.assert_array_equal(moments.m, m)
    np.testing.assert_array_equal(moments.v, v)
    np.testing.assert_array_equal(moments.last, last)


def test_transposed_moments_are_written_as_they_read():
    moments = table_moments(np.zeros((3, 2)), waits=True)
    m = np.array([[1.0, 2.0], [3.0, 4.0]])
    put_moments(moments, RowMoments(np.array([2, 0]), np.array([5, 6]), m.T, 10.0 * m.T))
    assert moments.m.tolist() == [[2.0, 4.0], [0.0, 0.0], [1.0, 3.0]]
    assert moments.v.tolist() == [[20.0, 40.0], [0.0, 0.0], [10.0, 30.0]]
    assert moments.last.tolist() == [6, 0, 5]


@pytest.mark.parametrize("table_mode", ["rows", "replay"])
def test_what_belongs_to_a_row_lies_side_by_side(table_mode):
    state = Adam(table_mode=table_mode).init({"table": np.zeros((4, 3), np.float32)})
    moments = state.tables["table"]
    assert moments.records.itemsize == moments.m.strides[0] == moments.v.strides[0] == 3 * 8 + 8
    assert moments.last.strides == (32,)


def test_a_table_that_does_not_wait_has_moments_in_one_piece():
    moments = table_moments(np.zeros((4, 3)), waits=False)
    assert moments.last is None and moments.records is None
    assert moments.m.flags.c_contiguous and moments.v.flags.c_contiguous
