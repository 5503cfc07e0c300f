"""Elementary operations: values by hand, limits and corners.  Derivatives: test_gradients.py."""

import numpy as np
import pytest
from strategies import generator

from midpg_np import ops
from midpg_np.checks import expect_close
from midpg_np.layers.mlp import MLP

FAR = np.array([-800.0, -1.0, 0.0, 1.0, 800.0])


def value(name, x):
    return ops.ACTIVATIONS[name].forward(np.asarray(x))[0]


def slope(name, x):
    activation = ops.ACTIVATIONS[name]
    x = np.asarray(x)
    return activation.backward(np.ones_like(x), activation.forward(x)[1])


def test_affine_by_hand():
    x, W = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    y, cache = ops.affine(x, W, np.array([0.5, 0.0, -0.5]))
    assert y.tolist() == [[15.5, 18.0, 20.5]]
    dx, dW, db = ops.affine_backward(np.array([[1.0, 0.0, 2.0]]), cache)
    assert dx.tolist() == [[13.0, 22.0]]
    assert dW.tolist() == [[1.0, 0.0, 2.0], [2.0, 0.0, 4.0]]
    assert db.tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("name", "at_minus_2", "at_1"),
    [
        ("relu", 0.0, 1.0),
        ("leaky_relu", -0.02, 1.0),
        ("tanh", -0.9640275800758169, 0.7615941559557649),
        ("sigmoid", 0.11920292202211755, 0.7310585786300049),
        ("softplus", 0.1269280110429725, 1.3132616875182228),
        ("silu", -0.2384058440442351, 0.7310585786300049),
        ("identity", -2.0, 1.0),
    ],
)
def test_activations_by_hand(name, at_minus_2, at_1):
    expect_close(value(name, [-2.0, 1.0]), np.array([at_minus_2, at_1]), name=name, tol=1e-15)


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_neither_overflow_nor_leave_their_dtype(name, dtype):
    """Warnings are errors here, so an overflow would raise."""
    x = FAR.astype(dtype)
    for result in (value(name, x), slope(name, x)):
        assert result.dtype == dtype
        assert np.isfinite(result).all()


def test_limits_far_from_zero():
    assert value("sigmoid", FAR)[[0, 2, 4]].tolist() == [0.0, 0.5, 1.0]
    assert value("softplus", FAR)[[0, 4]].tolist() == [0.0, 800.0]
    assert value("softplus", [0.0])[0] == pytest.approx(np.log(2.0), rel=1e-15)
    assert slope("sigmoid", FAR)[[0, 4]].tolist() == [0.0, 0.0]


def test_softplus_keeps_small_values():
    """log1p: the naive log(1 + exp(-40)) is exactly zero."""
    assert value("softplus", [-40.0])[0] == pytest.approx(np.exp(-40.0), rel=1e-14)


def test_corners():
    assert slope("relu", [-1.0, 0.0, 1.0]).tolist() == [0.0, 0.0, 1.0]
    assert slope("leaky_relu", [-1.0, 0.0, 1.0]).tolist() == [0.01, 0.01, 1.0]
    assert value("relu", [-0.0, 0.0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activations_are_analytic(name):
    """Their value for complex x is the real one where x is real."""
    x = generator(1).normal(size=20)
    result = value(name, x + 0j)
    expect_close(result.real, value(name, x), tol=1e-15)
    assert not result.imag.any()


def test_sigmoid_and_softplus_identities():
    x = np.linspace(-30.0, 30.0, 61)
    expect_close(value("sigmoid", x) + value("sigmoid", -x), np.ones(61), tol=1e-15)
    expect_close(value("softplus", x) - value("softplus", -x), x, tol=1e-14)


def test_softmax_by_hand():
    y, cache = ops.softmax(np.log([[1.0, 2.0, 5.0]]))
    expect_close(y, np.array([[0.125, 0.25, 0.625]]), tol=1e-15)
    # <y, dy> = 0.25 for dy = (0, 1, 0), so dx = y (dy - 0.25)
    dx = ops.softmax_backward(np.array([[0.0, 1.0, 0.0]]), cache)
    expect_close(dx, np.array([[-0.03125, 0.1875, -0.15625]]), tol=1e-14)


def test_softmax_does_not_see_a_shift():
    x = generator(2).normal(size=(3, 4))
    y = ops.softmax(x)[0]
    expect_close(ops.softmax(x + 1.0)[0], y)
    expect_close(ops.softmax(np.array([[1000.0, 0.0]]))[0], np.array([[1.0, 0.0]]))
    expect_close(y.sum(axis=-1), np.ones(3))
    dx = ops.softmax_backward(generator(3).normal(size=(3, 4)), y)
    assert np.abs(dx.sum(axis=-1)).max() < 1e-15


def test_a_constant_adjoint_of_softmax_gives_zero():
    """Why ones are a bad upstream gradient for a check."""
    y, cache = ops.softmax(generator(4).normal(size=(3, 4)))
    assert np.abs(ops.softmax_backward(np.ones_like(y), cache)).max() < 1e-15


def test_concat_and_split_undo_each_other():
    a, b = generator(5).normal(size=(2, 3)), generator(6).normal(size=(2, 1))
    y, widths = ops.concat([a, b])
    assert widths == (3, 1)
    assert y.tolist() == np.hstack([a, b]).tolist()
    for parts in (ops.concat_backward(y, widths), ops.split(y, widths)[0]):
        assert [part.tolist() for part in parts] == [a.tolist(), b.tolist()]
    assert ops.split_backward([a, b], None).tolist() == y.tolist()


def test_split_keeps_float32():
    x = np.ones((2, 5), np.float32)
    parts, cache = ops.split(x, (2, 3))
    assert ops.split_backward(parts, cache).dtype == np.float32


@pytest.mark.parametrize("widths", [(2, 2), (2, 4), ()])
def test_split_wants_widths_that_add_up(widths):
    with pytest.raises(ValueError, match="must add up to 5"):
        ops.split(np.ones((1, 5)), widths)


def test_your_own_activation_works_in_a_model(monkeypatch):
    cube = ops.Activation(lambda x: (x**3, x), lambda dy, x: dy * 3.0 * x**2)
    monkeypatch.setitem(ops.ACTIVATIONS, "cube", cube)
    layer = MLP((1, 1, 1), activation="cube")
    params = {name: {"W": np.array([[2.0]]), "b": np.zeros(1)} for name in layer.layer_names}
    y, cache = layer.forward(params, np.array([[1.5]]))
    assert y.tolist() == [[54.0]]
    assert layer.backward(np.ones((1, 1)), cache)[0].tolist() == [[108.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scaled_sigmoid_far_from_zero(dtype):
    """Nothing overflows (a warning is an error here), and NaN stays what it is."""
    x = np.array([-np.inf, -1e30, -90.0, 90.0, 1e30, np.inf, np.nan], dtype)
    y, _ = ops.scaled_sigmoid(x, 2.0)
    assert y.dtype == dtype
    np.testing.assert_allclose(y[:3], 0.0, atol=1e-37)
    np.testing.assert_array_equal(y[3:6], 2.0)
    assert np.isnan(y[6])
