"""Missed steps added up in closed form: against the plain sum, and against the exact optimiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midpg_np import kernels
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training import row_adam
from midpg_np.training.adam_core import corrections
from midpg_np.training.missed_steps import missed_steps
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_copy

BETAS = [(0.9, 0.999), (0.7, 0.99), (0.95, 0.999)]


def plain_sum(lr, beta1, beta2, eps, mode, t, k, r):
    """Displacement per unit of m, step by step, in extended precision."""
    a, e = corrections(lr, beta1, beta2, eps, mode, t + k)
    j = np.arange(1, k + 1)
    at = np.minimum(t + j, len(a) - 1)
    one = np.longdouble(1.0)
    return float(np.sum(a[at] * (one * beta1) ** j / (r * np.sqrt(one * beta2) ** j + e[at])))


def series(coefficients, n_terms, r):
    c, total = float(coefficients[0]), 0.0
    y = c / (r + c)
    for i in range(n_terms, 0, -1):
        total = float(coefficients[i]) - y * total
    return total / (r + c)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    betas=st.sampled_from(BETAS),
    mode=st.sampled_from(["corrected", "tf1"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    t=st.one_of(st.integers(1, 300), st.integers(1, 60_000)),
    k=st.one_of(st.integers(1, 50), st.integers(1, 3_000)),
    power=st.floats(-10.0, 0.0),
)
def test_the_series_is_the_sum_within_its_bound(betas, mode, dtype, t, k, power):
    options = (1e-3, *betas, 1e-8, mode)
    r, want = 10.0**power, plain_sum(*options, t, k, 10.0**power)
    rounding = 4e-7 if dtype == np.float32 else 1e-13
    tables = missed_steps(*options, np.dtype(dtype))
    assert len(tables) == 2
    for table in tables:
        (coefficients,) = table.of(np.array([t]), t + k)
        assert coefficients.dtype == dtype
        y = float(coefficients[0]) / (r + float(coefficients[0]))
        bound = float(coefficients[-1]) * y**table.n_terms
        if bound < 0.1:
            error = abs(series(coefficients, table.n_terms, r) / want - 1.0)
            assert error <= 1.2 * bound + rounding


def test_after_a_thousand_steps_the_first_table_does_for_every_row():
    for dtype in (np.float32, np.float64):
        table = missed_steps(1e-3, 0.9, 0.999, 1e-8, "corrected", np.dtype(dtype))[0]
        bound = table.of(np.array([4_000, 5_000, 9_990]), 10_000)[:, -1]
        assert (bound > 0.0).all()
        assert bound.max() <= 32 * np.finfo(dtype).eps


@pytest.mark.parametrize("wanted", ["numpy", "compiled"])
def test_rows_too_far_off_are_those_whose_moving_entries_are_of_the_size_of_eps(wanted):
    c, r = 1.0, np.array([[0.0, 999.0], [999.0, 999.0], [0.0, 999.0], [1.0, 1.0]])
    m = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    coefficients, decay = np.tile([c, 1.0, 1.0, 0.0], (4, 1)), np.ones(4)
    with kernels.compiled_loops(wanted):
        largest = kernels.sum_missed(np.zeros_like(m), m, r**2, coefficients, decay, decay)
    np.testing.assert_allclose(largest, [1.0, 1e-3, 1e-3, 0.5])
    bound = np.array([1e-6, 1e-6, 1e-6, 1e-16])
    assert row_adam._too_far_off(largest, bound, 4).tolist() == [0]
    assert row_adam._too_far_off(largest, bound * 1e-12, 4).tolist() == []


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.9), (0.98, 0.99), (0.9995, 0.9999)])
def test_settings_whose_sum_does_not_converge_soon_are_replayed(betas):
    assert missed_steps(1e-3, *betas, 1e-8, "corrected", np.dtype(np.float32)) == ()


class Counter:
    """Counts the rows that are replayed."""

    def __init__(self, monkeypatch):
        self.n_rows, self.replay = 0, row_adam._replay
        monkeypatch.setattr(row_adam, "_replay", self)

    def __call__(self, p, moments, ids, *rest):
        self.n_rows += ids.size
        self.replay(p, moments, ids, *rest)


def one_gradient(size, dtype=np.float32, n_away=50):
    """One gradient, then steps without: weights by the rows form and by the replay."""
    weights = []
    gradient = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype) * dtype(size)
    gradient[1, 2] = 0.0  # an entry that never had a gradient
    for mode in ("rows", "replay"):
        adam, params = Adam(table_mode=mode), {"table": np.full((3, 4), 0.01, dtype)}
        state = adam.init(params)
        adam.update(params, {"table": RowGradient(np.arange(3), gradient, 3)}, state)
        nowhere = RowGradient(np.arange(0), gradient[:0], 3)
        for _ in range(n_away):
            adam.update(params, {"table": nowhere}, state)
        adam.settle(params, state)
        weights.append(params["table"])
    return weights


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ordinary_gradients_are_summed_and_those_of_the_size_of_eps_replayed(monkeypatch, dtype):
    counter = Counter(monkeypatch)
    summed, replayed = one_gradient(1e-3, dtype)
    assert counter.n_rows == 3  # by the replay form alone
    np.testing.assert_allclose(summed, replayed, rtol=0, atol=8 * np.finfo(dtype).eps * 0.01)
    summed, replayed = one_gradient(1e-8, dtype)
    assert counter.n_rows == 9
    assert summed.tobytes() == replayed.tobytes()
    assert (summed != 0.01).any()


def test_whatever_comes_between_catching_up_and_the_update_changes_no_bit():
    """Saving, another batch, rows that get no gradient: gathered moments are never lost."""
    rng = np.random.default_rng(1)
    start, adam = {"table": rng.normal(0, 0.01, (9, 2)).astype(np.float32)}, Adam(table_mode="rows")
    plain, busy = tree_copy(start), tree_copy(start)
    states = adam.init(plain), adam.init(busy)
    for step in range(40):
        ids = np.unique(rng.integers(0, 9, 3))
        read = np.append(ids, ids)  # repeated
        gradient = RowGradient(ids, rng.normal(size=(ids.size, 2)).astype(np.float32), 9)
        adam.prepare(plain, states[0], {"table": read})
        adam.prepare(busy, states[1], {"table": read})
        if step % 3 == 0:
            saved = adam.state_arrays(states[1])
            states = states[0], adam.restore(busy, saved)
        if step % 3 == 1:
            adam.prepare(busy, states[1], {"table": read})
        adam.update(plain, {"table": gradient}, states[0])
        adam.update(busy, {"table": gradient}, states[1])
    assert states[0].tables["table"].gathered is None
    for name, array in adam.state_arrays(states[0]).items():
        assert array.tobytes() == adam.state_arrays(states[1])[name].tobytes(), name
    np.testing.assert_array_equal(plain["table"], busy["table"])


def test_rows_that_are_read_without_a_gradient_keep_up():
    rng = np.random.default_rng(2)
    start = {"table": rng.normal(0, 0.01, (9, 2))}
    by_rows, whole = tree_copy(start), tree_copy(start)
    rows, table = Adam(table_mode="rows"), Adam()
    states = rows.init(by_rows), table.init(whole)
    for step in range(60):
        ids = np.unique(rng.integers(0, 9, 4))
        rows.prepare(by_rows, states[0], {"table": ids})
        np.testing.assert_allclose(by_rows["table"][ids], whole["table"][ids], rtol=0, atol=1e-15)
        some = ids[step % 2 :]
        gradient = RowGradient(some, rng.normal(size=(some.size, 2)), 9)
        rows.update(by_rows, {"table": gradient}, states[0])
        table.update(whole, {"table": gradient}, states[1])
    rows.settle(by_rows, states[0])
    np.testing.assert_allclose(by_rows["table"], whole["table"], rtol=0, atol=1e-15)
    for name in ("m", "v"):
        got, want = (getattr(state.tables["table"], name) for state in states)
        np.testing.assert_allclose(got, want, rtol=1e-13)


def race(n_steps, n_rows, dtype, eps_mode, seed=0):
    """Train rows, table and the table form in a finer dtype; return how far the first two are off.

    Returns
    -------
    rows, table : float
        Largest deviation of any weight that is read, or at the end, from the finer form's, in
        units in the last place of the largest weight.
    moved : float
    """
    rng = np.random.default_rng(seed)
    start = rng.normal(0, 0.01, (n_rows, 4)).astype(dtype)
    finer = np.float64 if dtype == np.float32 else np.longdouble
    forms = {mode: Adam(eps_mode=eps_mode, table_mode=mode) for mode in ("rows", "table")}
    forms["finer"] = forms["table"]
    params = {name: {"table": start.astype(finer if name == "finer" else dtype)} for name in forms}
    states = {name: adam.init(params[name]) for name, adam in forms.items()}
    chance, off = 1.0 / np.arange(1, n_rows + 1) ** 1.3, {"rows": 0.0, "table": 0.0}

    def compare(ids):
        for name in off:
            gap = np.abs(params[name]["table"][ids] - params["finer"]["table"][ids])
            off[name] = max(off[name], float(gap.max()))

    for _ in range(n_steps):
        ids = np.unique(rng.choice(n_rows, 6, p=chance / chance.sum()))
        forms["rows"].prepare(params["rows"], states["rows"], {"table": ids})
        compare(ids)
        g = rng.normal(size=(ids.size, 4)) * 10.0 ** rng.uniform(-9.0, 0.0, (ids.size, 1))
        for name, adam in forms.items():
            rows = g.astype(dtype).astype(params[name]["table"].dtype)
            adam.update(params[name], {"table": RowGradient(ids, rows, n_rows)}, states[name])
    forms["rows"].settle(params["rows"], states["rows"])
    compare(slice(None))
    whole = params["table"]["table"]
    unit = float(np.finfo(dtype).eps * np.abs(whole).max())
    return off["rows"] / unit, off["table"] / unit, float(np.abs(whole - start).max())


@pytest.mark.parametrize("eps_mode", ["corrected", "tf1"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_steps", "n_rows"), [(300, 40), pytest.param(2500, 250, marks=pytest.mark.slow)]
)
def test_rows_are_as_near_to_exact_arithmetic_as_the_whole_table(n_steps, n_rows, dtype, eps_mode):
    """Gradients over nine orders of magnitude, rows away for up to thousands of steps."""
    if dtype == np.float64 and np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("this machine has no dtype finer than float64")
    rows, table, moved = race(n_steps, n_rows, dtype, eps_mode)
    assert moved > 0.02
    assert rows <= (1.3 if dtype == np.float32 else 2.0) * table + 2.0
    assert rows <= 32.0
