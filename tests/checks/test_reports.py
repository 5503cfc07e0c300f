"""Reports, tolerances, and how cases keep clear of corners."""

from dataclasses import replace

import numpy as np
import pytest
from small import small_model, training_case
from strategies import generator

from midpg_np.checks import (
    Case,
    check_directions,
    check_gradients,
    dense_gradients,
    expect_close,
    linearise,
    perturbed,
    shift_from_kinks,
    wake_units,
)
from midpg_np.checks.case import KINK_MARGIN
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.checks.numeric import central_differences
from midpg_np.experiments.small_models import MODEL_CASES
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.models import DNN, DPG, MIDPG
from midpg_np.tree import tree_flatten

AFFINE = CASES["affine"](Sizes(), generator(1))


def spoilt(factor, path="W"):
    def backward(d_outputs, cache):
        grads = AFFINE.backward(d_outputs, cache)
        return grads | {path: grads[path] * factor}

    return replace(AFFINE, backward=backward)


def test_a_good_report():
    report = check_gradients(AFFINE, generator(2))
    report.raise_if_wrong()
    assert report.ok
    assert report.failures == []
    assert report.n_entries == 7 * 6 + 6 * 8 + 8
    assert report.complex_error < 1e-14
    assert report.difference_error < 1e-9


def test_without_differences_there_is_no_second_error():
    assert check_gradients(AFFINE, generator(2), differences=False).difference_error is None


@pytest.mark.parametrize(("error", "order"), [(0.0, 2), (3e-10, 2), (1e-8, 4), (np.nan, 4)])
def test_differences_of_order_4_decide_unless_order_2_is_content(error, order, monkeypatch):
    """Order 2 is trusted only at a hundredth of the limit, and entry by entry."""
    asked = []

    def spy(f, tree, path, indices, step=None, order=4):
        asked.append((order, len(indices)))
        return central_differences(f, tree, path, indices, step, order)

    monkeypatch.setattr("midpg_np.checks.gradient.central_differences", spy)
    inputs = {"x": np.array([0.5, 1.0])}

    def backward(d_outputs, cache):
        return {"x": d_outputs[0] * 2.0 * inputs["x"] + np.array([error, 0.0])}

    case = Case("square", inputs, lambda t, frozen: ((t["x"] ** 2,), None), backward)
    check_gradients(case, generator(3))
    assert asked == [(2, 2), (4, int(order == 4))]


def test_differences_of_order_2_alone_would_be_a_false_alarm():
    """A function of high curvature: order 2 is off by more than the limit, order 4 is not."""
    inputs = {"x": np.array([0.001])}

    def backward(d_outputs, cache):
        return {"x": d_outputs[0] * 100.0 * np.cos(100.0 * inputs["x"])}

    case = Case("wave", inputs, lambda t, frozen: ((np.sin(100.0 * t["x"]),), None), backward)
    (rough,) = central_differences(
        lambda t: np.sin(100.0 * t["x"][0]), inputs, "x", [(0,)], order=2
    )
    assert abs(rough - 100.0 * np.cos(0.1)) > 1e-7 * 100.0
    check_gradients(case, generator(3)).raise_if_wrong()


def test_max_entries_limits_every_array():
    report = check_gradients(AFFINE, generator(2), max_entries=10)
    assert [block.n_entries for block in report.blocks] == [10, 10, 8]


@pytest.mark.parametrize(("error", "ok"), [(1e-14, True), (1e-11, False)])
def test_the_complex_step_decides_at_1e_12(error, ok):
    assert check_gradients(spoilt(1.0 + error), generator(3), differences=False).ok is ok


def test_a_small_array_is_measured_against_itself():
    """One array 0.1 % off is wrong, though its entries are far below those of the others."""

    def forward(inputs, frozen):
        return (1e3 * inputs["large"], inputs["small"] * 10.0), None

    def backward(d_outputs, cache):
        return {"large": 1e3 * d_outputs[0], "small": d_outputs[1] * 10.01}

    case = Case("two", {"large": np.ones(3), "small": np.ones(3)}, forward, backward)
    report = check_gradients(case, generator(4), differences=False)
    assert [failure.split("[")[0] for failure in report.failures] == ["d/dsmall"]


def test_structure_is_checked_first():
    def backward(d_outputs, cache):
        grads = AFFINE.backward(d_outputs, cache)
        return {"x": grads["x"].T, "W": grads["W"].astype(np.float32), "extra": grads["b"]}

    for check in (check_gradients, check_directions):
        failures = check(replace(AFFINE, backward=backward), generator(5)).failures
        assert set(failures) == {
            "d/dx: expected shape (7, 6) and dtype float64; got (6, 7) and float64",
            "d/dW: expected shape (6, 8) and dtype float64; got (6, 8) and float32",
            "d/db: b has no gradient",
            "d/dextra: extra is not an input, yet has a gradient",
        }


@pytest.mark.parametrize("path", ["W", "b"])
def test_one_direction_names_the_array(path):
    report = check_directions(spoilt(1.05, path), generator(6))
    assert [failure.split()[0] for failure in report.failures] == [f"d/d{path}"]
    assert check_directions(AFFINE, generator(6)).ok


def test_the_check_repeats_with_its_generator():
    first, second = (check_gradients(AFFINE, generator(7), max_entries=3) for _ in range(2))
    assert first == second


# --- corners -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DNN, DPG, MIDPG])
def test_shifting_keeps_every_unit_clear_of_its_corner(kind):
    model = small_model({DNN: "dnn", DPG: "dpg", MIDPG: "midpg"}[kind])
    case = shift_from_kinks(training_case(model, generator(8), n_rows=40))
    _, cache = case.forward(case.inputs, None)
    assert all(np.abs(A).min() >= KINK_MARGIN for A in case.kinks(cache).values())


def test_every_array_of_every_small_model_has_a_gradient():
    """Behind units that are off for every row all gradients are zero: a check proves nothing."""
    for name, builder in MODEL_CASES.items():
        case = shift_from_kinks(wake_units(builder(Sizes(), generator(0))))
        grads = tree_flatten(linearise(case, generator(0)).grads)
        dead = {path for path, gradient in grads.items() if not gradient.any()}
        if name == "adasparse binarization zero":  # its pruners get no gradient by design
            assert dead == {path for path in grads if ".pruner." in path}
        else:
            assert not dead, name


def test_an_input_on_the_corner_is_moved_and_nothing_else():
    case = CASES["relu"](Sizes(), generator(9))
    x = case.inputs["x"].copy()
    x[2, 3] = 0.0
    shifted = shift_from_kinks(replace(case, inputs={"x": x})).inputs["x"]
    assert abs(shifted[2, 3]) >= KINK_MARGIN
    far = (np.abs(x) >= KINK_MARGIN).all(axis=0)
    assert np.array_equal(shifted[:, far], x[:, far])


def test_a_case_without_corners_is_returned_as_it_is():
    assert shift_from_kinks(AFFINE) is AFFINE


def test_corners_that_cannot_be_avoided_are_an_error():
    def forward(inputs, frozen):
        return (inputs["b"],), None

    case = Case("stuck", {"b": np.zeros(1)}, forward, None, lambda cache: {"b": np.zeros((1, 1))})
    with pytest.raises(RuntimeError, match="stuck: no shift"):
        shift_from_kinks(case)


# --- helpers -------------------------------------------------------------------------------------


def test_linearise_uses_the_upstream_gradient_it_drew():
    linearised = linearise(AFFINE, generator(10))
    d_y = generator(10).normal(size=(7, 8))
    expect_close(linearised.grads["b"], d_y.sum(axis=0))
    y = AFFINE.forward(AFFINE.inputs, None)[0][0]
    assert linearised.function(AFFINE.inputs) == pytest.approx((d_y * y).sum())


def test_perturbed_moves_every_entry_by_the_scale():
    tree = {"a": {"x": np.zeros((100, 100))}}
    moved = perturbed(tree, generator(11), scale=0.5)["a"]["x"]
    assert abs(moved.std() - 0.5) < 0.02
    assert not tree["a"]["x"].any()


def test_dense_gradients_opens_row_gradients_only():
    rows = RowGradient(np.array([1]), np.ones((1, 2)), 3)
    grads = tree_flatten(dense_gradients({"t": {"table": rows}, "b": np.ones(2)}))
    assert grads["t.table"].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert grads["b"].tolist() == [1, 1]


def test_expect_close_prints_or_names_the_worst_entry(capsys):
    want = np.array([[1.0, 2.0], [4.0, 8.0]])
    expect_close(want + 1e-14, want, name="dW")
    assert capsys.readouterr().out.startswith("ok  dW  max rel err ")
    got = want.copy()
    got[1, 0] = 4.5
    with pytest.raises(AssertionError, match=r"dW\[1, 0\]: expected \+4.000000e\+00; got \+4.5"):
        expect_close(got, want, name="dW")
    with pytest.raises(AssertionError, match=r"value: expected shape \(2, 2\); got \(2,\)"):
        expect_close(want[0], want)
    got[0, 1] = np.nan
    with pytest.raises(AssertionError, match=r"\[0, 1\]: .*got \+nan"):
        expect_close(got, want)


def test_expect_close_of_zeros_and_scalars():
    expect_close(np.zeros(3), np.zeros(3))
    expect_close(2.0, np.float64(2.0))
    with pytest.raises(AssertionError, match="value: expected"):
        expect_close(2.0, 3.0)
