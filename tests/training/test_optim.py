"""Adam: by hand, against PyTorch, and the row form against the whole-table form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midpg_np.kernels import compiled_loops
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training import optim, row_adam
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_copy


def tree(values, dtype=np.float64):
    return {"layer": {"W": np.array(values, dtype=dtype)}}


def test_first_two_steps_by_hand_corrected():
    params, adam = tree([1.0]), Adam(lr=0.1, eps=0.5)
    state = adam.init(params)
    adam.update(params, tree([2.0]), state)
    # m/(1-b1) = 2, v/(1-b2) = 4: the step is 0.1 * 2 / (sqrt(4) + 0.5) = 0.08.
    np.testing.assert_allclose(params["layer"]["W"], [0.92], rtol=1e-14)
    adam.update(params, tree([-1.0]), state)
    m_hat = (0.9 * 0.2 - 0.1) / (1 - 0.81)
    v_hat = (0.999 * 0.004 + 0.001) / (1 - 0.999**2)
    expected = 0.92 - 0.1 * m_hat / (np.sqrt(v_hat) + 0.5)
    np.testing.assert_allclose(params["layer"]["W"], [expected], rtol=1e-13)


def test_first_step_by_hand_tf1():
    params, adam = tree([1.0]), Adam(lr=0.1, eps=0.5, eps_mode="tf1")
    adam.update(params, tree([2.0]), adam.init(params))
    # epsilon meets the uncorrected root: 0.1 * sqrt(0.001)/0.1 * 0.2 / (sqrt(0.004) + 0.5).
    expected = 1.0 - np.sqrt(0.001) * 0.2 / (np.sqrt(0.004) + 0.5)
    np.testing.assert_allclose(params["layer"]["W"], [expected], rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_pytorch(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is the outside reference for Adam")
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=5).astype(dtype)}
    theirs = {name: torch.tensor(p.copy(), requires_grad=True) for name, p in params.items()}
    reference = torch.optim.Adam(theirs.values(), lr=3e-3)
    adam = Adam(lr=3e-3)
    state = adam.init(params)
    for _ in range(300):
        grads = {
            name: (rng.normal(size=p.shape) * 10.0 ** rng.integers(-6, 1)).astype(dtype)
            for name, p in params.items()
        }
        adam.update(params, grads, state)
        for name, gradient in grads.items():
            theirs[name].grad = torch.tensor(gradient)
        reference.step()
    for name, p in params.items():
        assert p.dtype == dtype
        tolerance = 1e-12 if dtype == np.float64 else 2e-6
        np.testing.assert_allclose(p, theirs[name].detach().numpy(), rtol=0, atol=tolerance)


def test_a_row_gradient_means_the_same_as_its_dense_table():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(7, 3))
    by_rows, dense = {"table": table.copy()}, {"table": table.copy()}
    adam = Adam()
    s_rows, s_dense = adam.init(by_rows), adam.init(dense)
    for _ in range(20):
        ids = np.sort(rng.choice(7, 3, replace=False))
        gradient = RowGradient(ids, rng.normal(size=(3, 3)), 7)
        adam.update(by_rows, {"table": gradient}, s_rows)
        adam.update(dense, {"table": gradient.dense()}, s_dense)
    np.testing.assert_array_equal(by_rows["table"], dense["table"])


def test_rows_absent_from_a_batch_still_move_in_the_table_form():
    params, adam = {"table": np.ones((2, 1))}, Adam()
    state = adam.init(params)
    adam.update(params, {"table": RowGradient(np.array([0]), np.ones((1, 1)), 2)}, state)
    before = params["table"].copy()
    adam.update(params, {"table": RowGradient(np.array([1]), np.ones((1, 1)), 2)}, state)
    assert params["table"][0] < before[0]


def race(n_steps, n_rows, dtype, seed, eps_mode="corrected", max_gap=None, scale=9.0):
    """Train both forms side by side on rows of very unequal frequency; return all their tables."""
    rng = np.random.default_rng(seed)
    start = rng.normal(0, 0.01, (n_rows, 4)).astype(dtype)
    whole, by_row = {"t": {"table": start.copy()}}, {"t": {"table": start.copy()}}
    table, rows = Adam(eps_mode=eps_mode), Adam(eps_mode=eps_mode, table_mode="replay")
    s_table, s_rows = table.init(whole), rows.init(by_row)
    chance = 1.0 / np.arange(1, n_rows + 1) ** 1.3
    n_read_differently, largest = 0, 0.0
    for step in range(n_steps):
        ids = np.unique(rng.choice(n_rows, 6, p=chance / chance.sum()))
        if max_gap is not None:  # every row returns after at most this many steps
            ids = np.unique(np.append(ids, np.arange(step % max_gap, n_rows, max_gap)))
        rows.prepare(by_row, s_rows, {"t.table": ids})
        gap = np.abs(whole["t"]["table"][ids] - by_row["t"]["table"][ids]).max()
        n_read_differently, largest = n_read_differently + (gap > 0), max(largest, gap)
        size = 10.0 ** rng.uniform(-scale, 0, (ids.size, 1))
        gradient = RowGradient(ids, (rng.normal(size=(ids.size, 4)) * size).astype(dtype), n_rows)
        table.update(whole, {"t": {"table": gradient}}, s_table)
        rows.update(by_row, {"t": {"table": gradient}}, s_rows)
    rows.settle(by_row, s_rows)
    moved = np.abs(whole["t"]["table"] - start).max()
    return whole["t"]["table"], by_row["t"]["table"], n_read_differently, largest, moved


@pytest.mark.parametrize("wanted", ["numpy", "compiled"])
def test_rows_that_are_not_summed_are(wanted):
    """A layer of one's own may leave the rows as they were read."""
    if wanted == "compiled":
        pytest.importorskip("numba")
    adam, read = Adam(table_mode="rows"), np.array([3, 1, 3, 0])
    rows = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    start = {"table": np.ones((4, 2), np.float32)}
    both = [tree_copy(start), tree_copy(start)]
    gradients = [
        RowGradient(read, rows, 4, is_summed=False),
        RowGradient(np.array([0, 1, 3]), np.array([[6, 7], [2, 3], [4, 6]], np.float32), 4),
    ]
    for params, gradient in zip(both, gradients, strict=True):
        state = adam.init(params)
        with compiled_loops(wanted):
            for _ in range(3):
                adam.prepare(params, state, {"table": read})
                adam.update(params, {"table": gradient}, state)
        assert state.tables["table"].last.tolist() == [3, 3, 0, 3]
    np.testing.assert_array_equal(both[0]["table"], both[1]["table"])
    assert (both[0]["table"][2] == 1.0).all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    eps_mode=st.sampled_from(["corrected", "tf1"]),
    n_rows=st.integers(1, 60),
    max_gap=st.integers(1, 32),
)
def test_rows_give_the_bits_of_the_table_form_within_the_horizon(
    seed, dtype, eps_mode, n_rows, max_gap
):
    """No row is away for longer than one round, so that every step is replayed."""
    assert max_gap <= row_adam.ROUND
    whole, by_row, n_read_differently, _, _ = race(
        120, n_rows, dtype, seed, eps_mode, max_gap=max_gap
    )
    assert n_read_differently == 0
    np.testing.assert_array_equal(whole, by_row)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "eps_mode"),
    [(np.float32, "corrected"), (np.float64, "corrected"), (np.float64, "tf1")],
)
def test_rows_equal_the_table_form_to_rounding_over_thousands_of_steps(dtype, eps_mode):
    """Gradients over nine orders of magnitude, rows away for up to thousands of steps."""
    whole, by_row, _, largest, moved = race(2500, 250, dtype, 0, eps_mode)
    assert moved > 0.1
    assert largest <= 4 * np.finfo(dtype).eps * np.abs(whole).max()
    np.testing.assert_allclose(by_row, whole, rtol=0, atol=4 * np.finfo(dtype).eps * 0.2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_a_row_that_rests_have_the_bits_of_the_table_form(dtype):
    """One gradient, then 5,000 steps away: weights are exact, the tail only decays moments."""
    rng = np.random.default_rng(3)
    start = rng.normal(0, 0.01, (50, 4)).astype(dtype)
    whole, by_row = {"table": start.copy()}, {"table": start.copy()}
    table, rows = Adam(), Adam(table_mode="replay")
    s_table, s_rows = table.init(whole), rows.init(by_row)
    size = 10.0 ** rng.uniform(-9, 0, (50, 1))
    everywhere = RowGradient(np.arange(50), (rng.normal(size=(50, 4)) * size).astype(dtype), 50)
    nowhere = RowGradient(np.arange(0), np.zeros((0, 4), dtype), 50)
    for gradient in (everywhere, *[nowhere] * 5000):
        table.update(whole, {"table": gradient}, s_table)
        rows.update(by_row, {"table": gradient}, s_rows)
    rows.settle(by_row, s_rows)
    np.testing.assert_array_equal(whole["table"], by_row["table"])
    v_table, v_rows = s_table.tables["table"].v, s_rows.tables["table"].v
    np.testing.assert_allclose(v_rows, v_table, rtol=5000 * np.finfo(dtype).eps, atol=1e-37)


def test_settling_midway_changes_no_bit_within_the_horizon():
    rng = np.random.default_rng(4)
    params = {"table": rng.normal(0, 0.01, (6, 2))}
    rows = Adam(table_mode="replay")
    state = rows.init(params)
    rows.update(params, {"table": RowGradient(np.arange(6), rng.normal(size=(6, 2)), 6)}, state)
    nowhere = RowGradient(np.arange(0), np.zeros((0, 2)), 6)
    other = tree_copy(params)
    other_state = rows.restore(other, rows.state_arrays(state))
    for step in range(30):
        rows.update(params, {"table": nowhere}, state)
        rows.update(other, {"table": nowhere}, other_state)
        if step % 7 == 0:
            rows.settle(other, other_state)
    rows.settle(params, state)
    rows.settle(other, other_state)
    np.testing.assert_array_equal(params["table"], other["table"])


def test_rows_that_never_had_a_gradient_are_never_touched():
    params, rows = {"table": np.ones((4, 2), np.float32)}, Adam(table_mode="replay")
    state = rows.init(params)
    for _ in range(3):
        gradient = RowGradient(np.array([1]), np.ones((1, 2), np.float32), 4)
        rows.update(params, {"table": gradient}, state)
    rows.settle(params, state)
    assert state.tables["table"].last.tolist() == [0, 3, 0, 0]
    np.testing.assert_array_equal(params["table"][[0, 2, 3]], 1.0)


def test_an_update_of_rows_that_were_not_prepared_is_refused():
    params, rows = {"table": np.ones((4, 2))}, Adam(table_mode="replay")
    state = rows.init(params)
    for row in (1, 2):
        rows.update(params, {"table": RowGradient(np.array([row]), np.ones((1, 2)), 4)}, state)
    with pytest.raises(ValueError, match="row 1 has a gradient at step 3 but was last computed at"):
        rows.update(params, {"table": RowGradient(np.array([1]), np.ones((1, 2)), 4)}, state)


def test_a_whole_table_gradient_is_refused_by_rows():
    params, rows = {"table": np.ones((4, 2))}, Adam(table_mode="replay")
    with pytest.raises(ValueError, match="deferred rows need a RowGradient for table"):
        rows.update(params, {"table": np.ones((4, 2))}, rows.init(params))


def test_auto_defers_the_rows_of_large_tables_only(monkeypatch):
    monkeypatch.setattr(optim, "AUTO_ROWS", 4)
    params = {"small": {"table": np.ones((4, 2))}, "large": {"table": np.ones((5, 2))}}
    adam, replay = Adam(table_mode="auto"), Adam(table_mode="replay")
    twin = tree_copy(params)
    state, twin_state = adam.init(params), replay.init(twin)
    for row in (0, 1, 1, 0):
        grads = {
            name: {"table": RowGradient(np.array([row]), np.ones((1, 2)), n_rows)}
            for name, n_rows in (("small", 4), ("large", 5))
        }
        rows = {"large.table": np.array([[row, 3]])}
        adam.prepare(params, state, rows)
        adam.update(params, grads, state)
        replay.settle(twin, twin_state)
        replay.update(twin, grads, twin_state)
    assert state.tables["small.table"].last is None
    assert state.tables["large.table"].last.tolist() == [4, 3, 0, 0, 0]
    adam.settle(params, state)
    replay.settle(twin, twin_state)
    np.testing.assert_array_equal(params["small"]["table"], twin["small"]["table"])
    np.testing.assert_allclose(params["large"]["table"], twin["large"]["table"], rtol=1e-15)


def test_moments_do_not_linger_among_the_subnormal_numbers():
    params, adam = {"w": np.ones(3, np.float32)}, Adam()
    state = adam.init(params)
    adam.update(params, {"w": np.full(3, 1e-4, np.float32)}, state)
    for _ in range(1000):
        adam.update(params, {"w": np.zeros(3, np.float32)}, state)
    assert (state.m == 0.0).all()


def test_fixed_leaves_stay_and_need_no_gradient():
    params, adam = {"w": np.ones(2), "mean": np.ones(2)}, Adam()
    state = adam.init(params, fixed=("mean",))
    adam.update(params, {"w": np.ones(2)}, state)
    assert (params["mean"] == 1.0).all()
    assert (params["w"] < 1.0).all()


def test_a_missing_gradient_is_an_error():
    params, adam = {"w": np.ones(2), "b": np.ones(2)}, Adam()
    with pytest.raises(ValueError, match="parameter b has no gradient"):
        adam.update(params, {"w": np.ones(2)}, adam.init(params))


def test_mixed_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"one floating dtype; got \['float32', 'float64'\]"):
        Adam().init({"a": np.ones(1, np.float32), "b": np.ones(1)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be positive; got 0.0"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"beta1": 0.9995}, "beta1 <= beta2"),
        ({"eps_mode": "tf2"}, "eps_mode must be one of"),
        ({"table_mode": "lazy"}, "table_mode must be one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Adam(**options)
