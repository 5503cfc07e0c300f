"""A recording repeats every operation of NumPy and of the loops, or says that it cannot."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator

from midpg_np.recording import (
    NotRecordableError,
    Recorded,
    Recording,
    contiguous,
    memory_of,
    run,
)
from midpg_np.workspace import workspace_in_use

# Each takes x (4, 6), y (4, 6) and W (6, 6), and returns an array (4, 6).
OPERATIONS = {
    "product": lambda x, y, W: x @ W,
    "product of columns": lambda x, y, W: np.matmul(W.T, x.T).T,
    "sum": lambda x, y, W: x + y,
    "number": lambda x, y, W: 2.0 * x - 1.0,
    "in place": lambda x, y, W: np.add(x, 0.0).__iadd__(y),
    "row sums": lambda x, y, W: x * y.sum(axis=1, keepdims=True),
    "means": lambda x, y, W: x - y.mean(axis=0),
    "largest": lambda x, y, W: np.tanh(x - y.max(axis=1, keepdims=True)),
    "joined": lambda x, y, W: np.concatenate([x[:2], y[:2]]),
    "joined columns": lambda x, y, W: np.concatenate([x[:, :3], y[:, 3:]], axis=1),
    "copied to another shape": lambda x, y, W: x.T.reshape(3, 8).reshape(4, 6),
    "contiguous": lambda x, y, W: contiguous(x.T).T,
    "chosen": lambda x, y, W: np.where(x > y, x, 0.5 * y),
    "chosen rows": lambda x, y, W: x[np.array([3, 0, 0, 1])],
    "columns written": lambda x, y, W: _with_columns(x, y),
    "einsum": lambda x, y, W: np.einsum("bi,ij->bj", x, W),
    "numbers of no axis": lambda x, y, W: x * (y[0, 0] + y[1].sum()),
    "repeated": lambda x, y, W: x[:, :2].repeat(3, axis=1),
    "cumulated": lambda x, y, W: 0.1 * x.cumsum(axis=1),
    "sums into memory": lambda x, y, W: x + np.add.reduce(y, axis=0, out=x.copy()[0]),
    "where it is larger": lambda x, y, W: np.multiply(x, 2.0, where=x > y, out=y.copy()),
    "last entries": lambda x, y, W: x * y[..., -1:],
    "row by row": lambda x, y, W: np.stack([2.0 * row for row in x]),
}


def _with_columns(x, y):
    z = x.copy()
    z[:, 1:3] = y[:, :2]
    return z


def chain(names, x, y, W):
    for name in names:
        x, y = OPERATIONS[name](x, y, W), x
    return x


def recorded(function, *arrays):
    """Return a recording of a pass with one result."""
    recording = Recording()
    with recording.recording():
        inputs = [recording.input(x) for x in arrays]
        results = [function(*inputs)]
    recording.finish(results)
    del results
    recording.seal()
    return recording


def drawn(rng):
    return rng.normal(size=(4, 6)), rng.normal(size=(4, 6)), rng.normal(size=(6, 6))


@given(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=8))
def test_any_chain_of_operations_has_its_own_bits_again(names):
    rng = generator(3)
    recording = recorded(lambda *arrays: chain(names, *arrays), *drawn(rng))
    for _ in range(2):
        arrays = drawn(rng)
        (got,) = recording.repeat(arrays)
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, chain(names, *arrays))


def test_results_are_stored_as_those_of_the_pass():
    """Which axis lies side by side in memory decides on forms further on."""
    x, y, W = drawn(generator(1))
    for function in (lambda x, y, W: np.matmul(W.T, x.T).T, lambda x, y, W: x + y):
        assert recorded(function, x, y, W).repeat((x, y, W))[0].strides == function(x, y, W).strides


def test_arrays_from_outside_are_read_where_they_are():
    """Parameters change in place between two passes."""
    W, x = np.eye(3), np.arange(6.0).reshape(2, 3)
    recording = recorded(lambda x: x @ W, x)
    W *= 2.0
    np.testing.assert_array_equal(recording.repeat([x])[0], 2.0 * x)


@pytest.mark.parametrize(
    "read",
    [
        *(float, bool, int, lambda x: x.item(), lambda x: x.tolist()),
        lambda x: [1, 2, 3][x.astype(int)],
    ],
)
def test_numbers_that_are_read_are_refused(read):
    with pytest.raises(NotRecordableError, match="a number of an array is read"):
        recorded(lambda x: x * read(x[0]), np.ones(3))


def test_a_branch_on_values_is_refused():
    with pytest.raises(NotRecordableError):
        recorded(lambda x: x if x[0] > 0 else -x, np.ones(3))


def test_shapes_that_depend_on_numbers_are_noticed():
    recording = recorded(lambda x: x[x > 0.0], np.array([1.0, -1.0, 2.0]))
    (result,) = recording.repeat([np.array([-1.0, 3.0, 4.0])])
    assert result.tolist() == [3.0, 4.0]
    with pytest.raises(NotRecordableError, match="another shape for other numbers"):
        recording.repeat([np.ones(3)])


def test_loops_are_recorded_and_must_return_nothing():
    def double(x, y):
        y[:] = 2.0 * x

    def through_loops(x):
        y = workspace_in_use().empty(np, x.shape, x.dtype)
        assert run(double, x, y) is None
        return y

    assert run(sum, [1, 2]) == 3  # outside a recording, as it is
    np.testing.assert_array_equal(
        recorded(through_loops, np.ones(3)).repeat([np.arange(3.0)])[0], [0, 2, 4]
    )
    with pytest.raises(NotRecordableError, match="returns a number"):
        recorded(lambda x: x * run(np.ndarray.__len__, x), np.ones(3))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: np.ones(3), "no array that the pass made"),
        (lambda x: np.asarray(x) * 2.0, "no array that the pass made"),
        (lambda x: 1.0, "no array that the pass made"),
        (lambda x: np.array_equal(x, x), "returns a bool, no array"),
    ],
)
def test_a_result_that_was_not_recorded_is_refused(function, message):
    with pytest.raises(NotRecordableError, match=message):
        recorded(function, np.ones(3))


def test_memory_is_used_again_within_a_pass():
    """As in the pass itself: what nobody holds any more is where the next array lies."""

    def long_chain(x):
        for _ in range(50):
            x = x + 1.0
        return x

    x = np.zeros(1000)
    recording = recorded(long_chain, x)
    assert recording.workspace.n_bytes <= 4 * x.nbytes
    np.testing.assert_array_equal(recording.repeat([x])[0], 50.0)


def test_it_is_busy_as_long_as_a_result_is_held():
    recording = recorded(lambda x: x + 1.0, np.zeros((2, 3)))
    assert not recording.is_busy
    results = recording.repeat([np.ones((2, 3))])
    assert recording.is_busy
    column = results[0].T[1]
    del results
    assert recording.is_busy
    del column
    assert not recording.is_busy


def test_results_outlive_their_recording():
    recording = recorded(lambda x: x * 3.0, np.zeros(1000))
    (result,) = recording.repeat([np.ones(1000)])
    assert memory_of(result) is not result
    del recording
    gc.collect()
    np.testing.assert_array_equal(result, 3.0)


def test_outside_a_recording_these_arrays_are_numpys():
    x = np.arange(4.0).view(Recorded)
    assert type(x + 1.0) is np.ndarray
    assert type(x.reshape(2, 2)) is np.ndarray
    x[1] = 7.0
    assert (x[1:2] * 2.0).tolist() == [14.0]
