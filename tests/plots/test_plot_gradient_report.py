"""A gradient report: one point per parameter, on the right side of what is allowed."""

from dataclasses import replace

import numpy as np
import pytest
from pictures import assert_png, legend_texts, line_of

from midpg_np.checks import GradientReport, check_directions, check_gradients
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.plots import plot_gradient_report

RNG = np.random.default_rng
AFFINE = CASES["affine"](Sizes(), RNG(1))


def wrong_affine():
    def backward(d_outputs, cache):
        grads = AFFINE.backward(d_outputs, cache)
        return grads | {"W": 1.5 * grads["W"]}

    return replace(AFFINE, backward=backward)


def drawn(axes, label):
    """Errors by parameter of the points with a label; panels share the names on the left."""
    ticks = [tick.get_text() for tick in axes.figure.axes[0].get_yticklabels()]
    x, y = line_of(axes, label).get_data()
    return {ticks[int(place)]: error for error, place in zip(x, y, strict=True)}


def test_a_good_report_lies_left_of_the_allowed_errors(tmp_path):
    report = check_gradients(AFFINE, RNG(2))
    figure = plot_gradient_report(report, tmp_path / "r.png")
    exact, differences = figure.axes
    expected = {b.path: max(b.complex_error, 1e-17) for b in report.blocks}
    assert drawn(exact, "passed") == expected
    assert drawn(differences, "passed") == {b.path: b.difference_error for b in report.blocks}
    assert not drawn(exact, "failed")
    assert [set(line_of(a, "allowed").get_xdata()) for a in figure.axes] == [{1e-12}, {1e-7}]
    assert "relative" in exact.get_xlabel() and "absolute" in differences.get_xlabel()
    assert legend_texts(figure) == ["passed", "failed", "allowed"]
    assert_png(tmp_path / "r.png")


def test_a_wrong_gradient_is_a_cross_beyond_the_allowed_error():
    figure = plot_gradient_report(check_gradients(wrong_affine(), RNG(2)))
    for axes, allowed in zip(figure.axes, (1e-12, 1e-7), strict=True):
        failed = drawn(axes, "failed")
        assert list(failed) == ["W"] and failed["W"] > 1e3 * allowed
        assert line_of(axes, "failed").get_marker() != line_of(axes, "passed").get_marker()
        assert set(drawn(axes, "passed")) == set(drawn(axes, "passed")) - {"W"} != set()


def test_directions_have_no_differences():
    (axes,) = plot_gradient_report(check_directions(AFFINE, RNG(2))).axes
    assert "complex step" in axes.get_xlabel()


def test_a_missing_gradient_stands_at_the_right_end():
    grads = AFFINE.backward
    case = replace(AFFINE, backward=lambda d, c: {k: g for k, g in grads(d, c).items() if k != "b"})
    (axes,) = plot_gradient_report(check_gradients(case, RNG(2))).axes
    assert drawn(axes, "failed")["b"] > 1e-10
    assert axes.get_xlim()[1] > drawn(axes, "failed")["b"]


def test_an_empty_report():
    with pytest.raises(ValueError, match="the report 'x' holds no parameter to draw"):
        plot_gradient_report(GradientReport("x", ()))
