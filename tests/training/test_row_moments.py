"""Rows of moments, and of weights beside them: as if they were rows of arrays of their own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midpg_np import kernels
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.optim import Adam
from midpg_np.training.row_moments import (
    RowMoments,
    gather,
    gather_moments,
    put_moments,
    table_moments,
)
from midpg_np.tree import tree_copy


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


@pytest.mark.parametrize("table_mode", ["rows", "replay"])
def test_weights_lie_beside_the_moments_if_they_are_laid_out(table_mode):
    adam, table = Adam(table_mode=table_mode), np.arange(12.0, dtype=np.float32).reshape(4, 3)
    params = adam.laid_out({"table": table, "moving": {"table": table}}, fixed=("moving.table",))
    np.testing.assert_array_equal(params["table"], table)
    assert params["table"].strides == (3 * 12 + 8, 4) and params["table"].dtype == np.float32
    assert params["moving"]["table"] is table
    moments = adam.init(params, fixed=("moving.table",)).tables["table"]
    assert moments.records is params["table"].base and moments.m.base is moments.records
    assert Adam(table_mode="table").laid_out({"table": table})["table"] is table


def steps(adam, params, kernels_, n_steps=90):
    """Take steps on some rows each, read others now and then; return weights and whole state."""
    rng, state = np.random.default_rng(1), adam.init(params)
    n_rows, width = params["table"].shape
    with kernels.compiled_loops(kernels_):
        for step in range(n_steps):
            ids = np.unique(rng.integers(0, n_rows, 4))
            gradient = rng.normal(size=(ids.size, width)) * 10.0 ** rng.integers(-9, 1)
            gradient = RowGradient(ids, gradient.astype(params["table"].dtype), n_rows)
            adam.prepare(params, state, {"table": np.append(ids, rng.integers(0, n_rows, 2))})
            adam.update(params, {"table": gradient}, state)
            if step % 40 == 0:
                adam.settle(params, state)
            if step == 50:
                state = adam.restore(params, adam.state_arrays(state))
    return {"weights": params["table"]} | adam.state_arrays(state)


@pytest.mark.parametrize("kernels_", ["numpy", "compiled"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("table_mode", ["rows", "replay"])
def test_steps_have_the_same_bits_wherever_the_weights_lie(table_mode, dtype, kernels_):
    adam = Adam(lr=1e-2, table_mode=table_mode)
    start = {"table": np.random.default_rng(2).normal(size=(23, 3)).astype(dtype)}
    apart, beside = tree_copy(start), adam.laid_out(start)
    got, want = steps(adam, beside, kernels_), steps(adam, apart, kernels_)
    for name, array in want.items():
        assert got[name].tobytes() == array.tobytes(), name
    assert not np.array_equal(start["table"], want["weights"])


def test_memory_that_another_state_uses_is_left_to_it():
    adam = Adam(table_mode="rows")
    params = adam.laid_out({"table": np.ones((4, 2))})
    state, gradient = adam.init(params), RowGradient(np.array([1]), np.ones((1, 2)), 4)
    adam.update(params, {"table": gradient}, state)
    saved = {name: array.copy() for name, array in adam.state_arrays(state).items()}
    other = adam.init(params)
    assert other.tables["table"].records is not state.tables["table"].records
    for name, array in adam.state_arrays(state).items():
        np.testing.assert_array_equal(array, saved[name])


@pytest.mark.parametrize("part", ["rows", "moments"])
def test_another_view_of_the_memory_is_no_table_beside_its_moments(part):
    adam = Adam(table_mode="rows")
    params = adam.laid_out({"table": np.ones((4, 2))})
    moments = adam.init(params).tables["table"]
    view = params["table"][1:] if part == "rows" else moments.m
    assert table_moments(view, waits=True).records is not moments.records
    weights, _ = gather(view, moments, np.array([2]))
    np.testing.assert_array_equal(weights, view[[2]])


def test_a_copy_of_the_parameters_is_stepped_in_its_own_memory():
    adam = Adam(table_mode="rows")
    params = adam.laid_out({"table": np.ones((4, 2))})
    state, copy = adam.init(params), tree_copy(params)
    gradient = RowGradient(np.array([1, 3]), np.ones((2, 2)), 4)
    adam.update(copy, {"table": gradient}, state)
    assert (copy["table"][[1, 3]] < 1.0).all() and (params["table"] == 1.0).all()


def test_a_table_that_does_not_wait_has_moments_in_one_piece():
    moments = table_moments(np.zeros((4, 3)), waits=False)
    assert moments.last is None and moments.records is None
    assert moments.m.flags.c_contiguous and moments.v.flags.c_contiguous
