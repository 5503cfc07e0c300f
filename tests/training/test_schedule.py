"""The learning rate by step: the factors, Adam with them, and the rows that wait."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_missed_steps import series
from test_resume import InterruptionError, same_bits, without_seconds
from toy import toy_dataset, toy_model

from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.adam_core import corrections
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit
from midpg_np.training.lr_schedule import LRSchedule
from midpg_np.training.missed_steps import missed_steps
from midpg_np.training.optim import Adam

SCHEDULES = [
    LRSchedule("constant", 400),
    LRSchedule("linear", 0, 3_000, 0.0),
    LRSchedule("linear", 300, 3_000, 0.1),
    LRSchedule("cosine", 50, 2_000, 0.0),
]


def test_factors_by_hand():
    linear = LRSchedule("linear", 4, 9, final=0.2)
    got = [linear.factor(t) for t in range(1, 12)]
    want = [0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2]
    np.testing.assert_allclose(got, want, rtol=1e-15)
    cosine = LRSchedule("cosine", 0, 5, final=0.0)
    half = np.sqrt(0.5) / 2
    want = [1.0, 0.5 + half, 0.5, 0.5 - half, 0.0, 0.0]
    np.testing.assert_allclose([cosine.factor(t) for t in range(1, 7)], want, atol=1e-15)
    constant = LRSchedule("constant", 2)
    assert [constant.factor(t) for t in (1, 2, 3, 10**6)] == [0.5, 1.0, 1.0, 1.0]
    assert LRSchedule("linear", 0, 1).factor(1) == 1.0  # a plan of one step learns


@given(schedule=st.sampled_from(SCHEDULES), steps=st.lists(st.integers(1, 4_000), min_size=1))
def test_no_later_factor_is_larger_than_the_largest_rise(schedule, steps):
    rises = schedule.largest_rise(np.array(steps))
    for t, rise in zip(steps, rises.tolist(), strict=True):
        later = max(schedule.factor(s) for s in {t, t + 1, 400, 401, 4_000} if s >= t)
        assert later <= schedule.factor(t) * rise * (1 + 1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_only_the_rate_is_scheduled(schedule):
    plain, scheduled = (
        corrections(1e-3, 0.9, 0.999, 1e-8, "corrected", 10, s) for s in (None, schedule)
    )
    assert np.array_equal(plain[1], scheduled[1])
    for t in (1, 7, 300, 2_500):
        np.testing.assert_allclose(scheduled[0][t], plain[0][t] * schedule.factor(t), rtol=1e-14)


def test_the_table_of_rates_reaches_the_end_of_the_plan():
    late = LRSchedule("linear", 0, 100_000)
    a, _ = corrections(1e-3, 0.9, 0.999, 1e-8, "corrected", 99_999, late)
    np.testing.assert_allclose(a[99_999], 1e-3 / 99_999, rtol=1e-9)
    assert corrections(1e-3, 0.9, 0.999, 1e-8, "corrected", 10**9, late)[0][-1] == 0.0


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the outside reference for Adam")
    schedule, rng = LRSchedule("cosine", 7, 40, 0.05), np.random.default_rng(0)
    params = {"a": rng.normal(size=(3, 4))}
    theirs = torch.tensor(params["a"].copy(), requires_grad=True)
    reference = torch.optim.Adam([theirs], lr=3e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(reference, lambda i: schedule.factor(i + 1))
    adam = Adam(lr=3e-3, schedule=schedule)
    state = adam.init(params)
    for _ in range(50):
        gradient = rng.normal(size=(3, 4))
        adam.update(params, {"a": gradient}, state)
        theirs.grad = torch.tensor(gradient)
        reference.step()
        rate.step()
    np.testing.assert_allclose(params["a"], theirs.detach().numpy(), rtol=0, atol=1e-12)


def plain_sum(schedule, t, k, r):
    """Displacement per unit of m, step by step, in extended precision."""
    a, e = corrections(1e-3, 0.9, 0.999, 1e-8, "corrected", t + k, schedule)
    j, one = np.arange(1, k + 1), np.longdouble(1.0)
    at = np.minimum(t + j, len(a) - 1)
    return float(np.sum(a[at] * (one * 0.9) ** j / (r * np.sqrt(one * 0.999) ** j + e[at])))


@settings(max_examples=40, deadline=None)
@given(
    schedule=st.sampled_from(SCHEDULES),
    dtype=st.sampled_from([np.float32, np.float64]),
    t=st.one_of(st.integers(1, 500), st.integers(1, 3_500)),
    k=st.one_of(st.integers(1, 50), st.integers(1, 3_000)),
    power=st.floats(-10.0, 0.0),
)
def test_missed_steps_of_any_rate_are_summed_within_their_bound(schedule, dtype, t, k, power):
    r, want = 10.0**power, plain_sum(schedule, t, k, 10.0**power)
    rounding = 4e-7 if dtype == np.float32 else 1e-13
    for table in missed_steps(1e-3, 0.9, 0.999, 1e-8, "corrected", np.dtype(dtype), schedule):
        (coefficients,) = table.of(np.array([t]), t + k)
        y = float(coefficients[0]) / (r + float(coefficients[0]))
        bound = float(coefficients[-1]) * y**table.n_terms
        if want > 0.0 and bound < 0.1:
            error = abs(series(coefficients, table.n_terms, r) / want - 1.0)
            assert error <= 1.2 * bound + rounding
        elif want == 0.0:  # beyond the end of a rate that falls to zero
            assert abs(series(coefficients, table.n_terms, r)) * 1e-3 < 1e-16


def race(schedule, mode, dtype, n_steps=250, n_rows=40, max_gap=None):
    """Train deferred rows and the whole table side by side; return the tables and the move."""
    rng = np.random.default_rng(1)
    start = rng.normal(0, 0.01, (n_rows, 4)).astype(dtype)
    whole, by_row = {"table": start.copy()}, {"table": start.copy()}
    table, rows = Adam(schedule=schedule), Adam(table_mode=mode, schedule=schedule)
    s_table, s_rows = table.init(whole), rows.init(by_row)
    chance = 1.0 / np.arange(1, n_rows + 1) ** 1.3
    for step in range(n_steps):
        ids = np.unique(rng.choice(n_rows, 6, p=chance / chance.sum()))
        if max_gap is not None:
            ids = np.unique(np.append(ids, np.arange(step % max_gap, n_rows, max_gap)))
        rows.prepare(by_row, s_rows, {"table": ids})
        size = 10.0 ** rng.uniform(-6.0, 0.0, (ids.size, 1))
        gradient = RowGradient(ids, (rng.normal(size=(ids.size, 4)) * size).astype(dtype), n_rows)
        table.update(whole, {"table": gradient}, s_table)
        rows.update(by_row, {"table": gradient}, s_rows)
    rows.settle(by_row, s_rows)
    return whole["table"], by_row["table"], np.abs(whole["table"] - start).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "schedule",
    [LRSchedule("constant", 150), LRSchedule("linear", 20, 200), LRSchedule("cosine", 0, 250)],
)
def test_deferred_rows_follow_the_rate(schedule, dtype):
    whole, by_row, moved = race(schedule, "rows", dtype)
    assert moved > 0.02
    np.testing.assert_allclose(by_row, whole, rtol=0, atol=32 * np.finfo(dtype).eps * 0.1)
    whole, by_row, _ = race(schedule, "replay", dtype, max_gap=20)
    np.testing.assert_array_equal(by_row, whole)


@pytest.mark.parametrize("lr", [4e-8, 6e-8, 8e-8])
def test_a_row_that_rests_at_the_start_of_a_warm_up_still_moves_later(lr):
    """With these betas a step shrinks by half in a thousand, and the rate grows by more."""
    start = np.linspace(0.008, 0.015, 50, dtype=np.float32)[:, None]  # one unit in the last place
    whole, by_row = {"table": start.copy()}, {"table": start.copy()}
    options = {"lr": lr, "beta1": 0.999, "beta2": 0.999, "schedule": LRSchedule("constant", 2_000)}
    table, rows = Adam(**options), Adam(table_mode="replay", **options)
    s_table, s_rows = table.init(whole), rows.init(by_row)
    everywhere = RowGradient(np.arange(50), np.ones((50, 1), np.float32), 50)
    nowhere = RowGradient(np.arange(0), np.zeros((0, 1), np.float32), 50)
    for gradient in (everywhere, *[nowhere] * 1_200):
        table.update(whole, {"table": gradient}, s_table)
        rows.update(by_row, {"table": gradient}, s_rows)
    rows.settle(by_row, s_rows)
    assert (whole["table"] != start).all()
    np.testing.assert_array_equal(whole["table"], by_row["table"])


OPTIONS = {"epochs": 4, "batch_size": 64, "lr": 5e-3, "lr_schedule": "cosine", "warmup_steps": 5}


def test_an_interrupted_run_goes_on_with_the_same_rates(tmp_path):
    config = TrainConfig(**OPTIONS, table_mode="rows", checkpoint_every=3, valid_per_epoch=3)
    train, valid = toy_dataset(600), toy_dataset(300, 1)

    def interrupt(progress):
        if progress.step == 17:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fit(toy_model(), train, valid, config, run_dir=tmp_path, progress=interrupt)
    resumed = fit(toy_model(), train, valid, config, run_dir=tmp_path, resume=True)
    straight = fit(toy_model(), train, valid, config)
    assert same_bits(resumed.params, straight.params)
    assert without_seconds(resumed.history) == without_seconds(straight.history)


def test_the_schedule_reaches_every_step():
    """The same steps by hand, with the rate of the plan of the whole run."""
    config = TrainConfig(epochs=3, batch_size=20, lr=0.1, lr_schedule="linear", dtype="float64")
    dataset = toy_dataset(60)
    result = fit(toy_model(), dataset, None, config)
    assert config.adam_for(3).schedule == LRSchedule("linear", 0, 9, 0.0)
    same = fit(toy_model(), dataset, None, config, optimiser=config.adam_for(3))
    other = fit(toy_model(), dataset, None, config, optimiser=config.adam)
    assert same_bits(result.params, same.params)
    assert not same_bits(result.params, other.params)


def test_epochs_can_be_added_to_a_run_unless_its_rate_falls_to_the_end(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    options = {"batch_size": 32, "patience": None, "warmup_steps": 4}
    short, long = (TrainConfig(epochs=n, **options) for n in (1, 3))
    fit(toy_model(), train, valid, short, run_dir=tmp_path / "a")
    resumed = fit(toy_model(), train, valid, long, run_dir=tmp_path / "a", resume=True)
    assert same_bits(resumed.params, fit(toy_model(), train, valid, long).params)
    options["lr_schedule"] = "linear"
    fit(toy_model(), train, valid, TrainConfig(epochs=1, **options), run_dir=tmp_path / "b")
    with pytest.raises(ValueError, match=r"optimiser = .*n_steps=10.* this run has .*n_steps=30"):
        longer = TrainConfig(epochs=3, **options)
        fit(toy_model(), train, valid, longer, run_dir=tmp_path / "b", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_schedule": "step"}, "lr_schedule must be one of .*'cosine'.*; got 'step'"),
        ({"warmup_steps": -1}, "warmup_steps must be a whole number >= 0; got -1"),
        ({"final_lr": 1e-4}, "final_lr = 0.0001 needs lr_schedule 'linear' or 'cosine'"),
        ({"final_lr": 1.0, "lr_schedule": "linear"}, r"final_lr must lie in \[0, lr = 0.001\]"),
        ({"valid_per_epoch": 0}, "valid_per_epoch must be a whole number >= 1"),
        ({"valid_per_epoch": 2, "valid_every": 5}, "exclude each other; set valid_every to None"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


def test_a_warm_up_longer_than_the_run_is_refused():
    config = TrainConfig(epochs=2, batch_size=32, lr_schedule="linear", warmup_steps=20)
    with pytest.raises(ValueError, match="fewer than the steps of the whole run, 20; got 20"):
        fit(toy_model(), toy_dataset(320), None, config)


@pytest.mark.parametrize(
    ("n_rows", "times", "steps"),
    [(320, 1, [10, 20]), (320, 3, [4, 7, 10, 14, 17, 20]), (96, 9, [1, 2, 3, 4, 5, 6])],
)
def test_validation_several_times_per_epoch(n_rows, times, steps):
    config = TrainConfig(epochs=2, batch_size=32, valid_per_epoch=times, patience=None)
    result = fit(toy_model(), toy_dataset(n_rows), toy_dataset(100, 1), config)
    assert [record["step"] for record in result.history] == steps
    assert [record["epoch"] for record in result.history] == [
        1 + (step - 1) // (n_rows // 32) for step in steps
    ]
    assert sum(record["rows"] for record in result.history) == 2 * n_rows
