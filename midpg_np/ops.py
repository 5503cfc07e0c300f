"""Elementary operations, each a forward with its hand-written backward beside it.

A forward returns ``(output, cache)``; its backward takes the adjoint of the output and the cache
and returns the adjoint of every input.  All of them work on complex numbers as analytic functions
(decide by the real part, transpose without conjugation), so that the complex step can
differentiate them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_batch_last, matmul


def batch_last(x: Array) -> Array:
    """Return a batch (B, d) stored with its rows side by side: a copy unless it is already."""
    return x if is_batch_last(x) else x.copy(order="F")


def product(x: Array, W: Array, like: Array | None = None, out: Array | None = None) -> Array:
    """x (B, I) times W (I, O), stored as ``like`` is (x, if it is None), or written to ``out``."""
    xp = get_xp(x=x, W=W)
    times = xp.multiply if x.shape[1] == 1 else matmul  # (B, 1) (1, O) has nothing to sum
    last = is_batch_last(x if like is None else like)
    shape = (W.shape[1], x.shape[0]) if last else (x.shape[0], W.shape[1])
    result = kernels.room(xp, shape, x, W) if out is None else out.T if last else out
    return times(W.T, x.T, out=result).T if last else times(x, W, out=result)


def add_to(y: Array | None, b: Array) -> Array:
    """y + b in the memory of y, a fresh array; elsewhere if b is wider (the complex step).

    y is (B, d), b the same shape or (d,).  b itself where there is nothing yet, y = None.  A batch
    is walked through as it is stored: CuPy does not find that order itself.
    """
    if y is None:
        return b
    if y.dtype != b.dtype:
        return y + b
    if y.ndim == 2 and is_batch_last(y):
        columns = y.T
        columns += b.T if b.ndim == 2 else b[:, None]
    else:
        y += b
    return y


def add_to_columns(y: Array, start: int, b: Array) -> None:
    """y[:, start : start + d] += b for b (B, d), walked through as y is stored if batch last."""
    columns = y.T[start : start + b.shape[1]]
    columns += b.T


def times_to(y: Array, x: Array) -> Array:
    """y x, of the same shape, in the memory of y, a fresh array; elsewhere if x is complex."""
    if x.dtype.kind == "c" != y.dtype.kind:
        return y * x
    y *= x
    return y


class AffineCache(NamedTuple):
    """Inputs of an affine map."""

    x: Array
    W: Array


def affine(x: Array, W: Array, b: Array) -> tuple[Array, AffineCache]:
    """Affine map, row-vector convention: y = x W + b (derivations 2.2a).

    Backward (derivations 2.2b): dx = dy W^T, dW = x^T dy, db = sum over the batch of dy.

    Shapes
    ------
    x : (B, I)
    W : (I, O)
    b : (O,)
    y : (B, O)
    """
    get_xp(x=x, W=W, b=b)
    return add_to(product(x, W), b), AffineCache(x, W)


def affine_backward(dy: Array, cache: AffineCache) -> tuple[Array, Array, Array]:
    """Return ``dx, dW, db`` (derivations 2.2b)."""
    return *product_backward(dy, cache), sum_rows(dy)


def product_backward(dy: Array, cache: AffineCache) -> tuple[Array, Array]:
    """Return ``dx, dW`` of the product x W (derivations 2.2b)."""
    return product(dy, cache.W.T, like=cache.x), matmul(cache.x.T, dy)


def sum_rows(x: Array) -> Array:
    """Sum over the batch, (B, d) -> (d,), as the product 1^T x: a third of the time of ``sum``.

    See derivations 2.2b.
    """
    if is_batch_last(x) and kernels.fuses(x):
        return kernels.sum_samples(x.T)
    return matmul(get_xp(x).ones(x.shape[0], dtype=x.dtype), x)


def identity(x: Array) -> tuple[Array, None]:
    """y = x, any shape, for a layer without activation (derivations 2.2c)."""
    return x, None


def identity_backward(dy: Array, cache: None) -> Array:
    """dx = dy (derivations 2.2c)."""
    return dy


def relu(x: Array) -> tuple[Array, Array]:
    """y = max(x, 0), entry by entry (derivations 2.2c).

    Backward: dx = dy where x > 0, else 0; the derivative at the corner x = 0 is 0.
    """
    if kernels.fuses(x):
        return kernels.relu(x)
    is_positive = x.real > 0
    if x.dtype.kind == "c":
        return x * is_positive, is_positive
    return get_xp(x).maximum(x, 0), is_positive


def relu_backward(dy: Array, is_positive: Array) -> Array:
    """Return ``dx`` (derivations 2.2c)."""
    return dy * is_positive


LEAK = 0.01


def leaky_relu(x: Array) -> tuple[Array, Array]:
    """y = x where x > 0, else x / 100, entry by entry (derivations 2.2c).

    The derivative at the corner x = 0 is 1 / 100.
    """
    xp = get_xp(x)
    slope = xp.where(x.real > 0, 1.0, LEAK).astype(x.real.dtype)
    return x * slope, slope


def leaky_relu_backward(dy: Array, slope: Array) -> Array:
    """Return ``dx`` (derivations 2.2c)."""
    return dy * slope


def tanh(x: Array) -> tuple[Array, Array]:
    """y = tanh(x), entry by entry.  Backward: dx = dy (1 - y^2) (derivations 2.2c)."""
    y = get_xp(x).tanh(x)
    return y, y


def tanh_backward(dy: Array, y: Array) -> Array:
    """Return ``dx`` (derivations 2.2c)."""
    return dy * (1.0 - y * y)


def sigmoid(x: Array) -> tuple[Array, Array]:
    """y = 1 / (1 + exp(-x)), entry by entry, as (1 + tanh(x / 2)) / 2 (derivations 2.2c).

    Backward: dx = dy y (1 - y).  Why tanh: it cannot overflow, is one pass over the data, and is
    analytic, so the complex step sees through it.
    """
    if kernels.fuses(x):
        y = kernels.bounded(x, 1.0)
        return y, y
    y = 0.5 * x
    get_xp(x).tanh(y, out=y)
    y *= 0.5
    y += 0.5
    return y, y


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Return ``dx`` (derivations 2.2c)."""
    if kernels.fuses(dy, y):
        return kernels.bounded_backward(dy, y, 1.0)
    dx = dy * y
    dx *= 1.0 - y
    return dx


_LARGEST = {4: 87.0, 8: 708.0}  # by bytes of a number; exp of more overflows


def scaled_sigmoid(
    x: Array, scale: float, out: Array | None = None
) -> tuple[Array, tuple[Array, float]]:
    """y = scale / (1 + exp(-x)), entry by entry (derivations 2.3a).

    Computed in one array, by exp: half the time of tanh.

    Backward: dx = dy y (1 - y / scale).  ``out`` may be x itself.
    """
    if out is None and kernels.fuses(x):
        y = kernels.bounded(x, scale)
        return y, (y, scale)
    xp = get_xp(x)
    y = xp.negative(x, out=out)
    if y.dtype.kind != "c":  # a complex number, of the complex step, has no order
        xp.minimum(y, _LARGEST[y.dtype.itemsize], out=y)
    xp.exp(y, out=y)
    y += 1.0
    return xp.divide(scale, y, out=y), (y, scale)


def scaled_sigmoid_backward(
    dy: Array, cache: tuple[Array, float], out: Array | None = None
) -> Array:
    """Return ``dx``; ``out`` must be neither dy nor y (derivations 2.3b)."""
    y, scale = cache
    if out is None and kernels.fuses(dy, y):
        return kernels.bounded_backward(dy, y, scale)
    dx = get_xp(dy=dy, y=y).subtract(scale, y, out=out)
    dx *= y
    dx *= dy
    if scale != 1.0:
        dx *= 1.0 / scale
    return dx


def softplus(x: Array) -> tuple[Array, Array]:
    """y = log(1 + exp(x)), entry by entry, as max(x, 0) + log(1 + exp(-|x|)) (derivations 2.2c).

    Backward: dx = dy sigmoid(x).
    """
    xp = get_xp(x)
    is_positive = x.real > 0
    minus_abs = xp.where(is_positive, -x, x)
    return x * is_positive + xp.log1p(xp.exp(minus_abs)), x


def softplus_backward(dy: Array, x: Array) -> Array:
    """Return ``dx`` (derivations 2.2c)."""
    return dy * sigmoid(x)[0]


def silu(x: Array) -> tuple[Array, tuple[Array, Array]]:
    """y = x sigmoid(x), entry by entry (derivations 2.2c).

    Backward: dx = dy (s + y (1 - s)) with s = sigmoid(x).
    """
    s, _ = sigmoid(x)
    y = x * s
    return y, (s, y)


def silu_backward(dy: Array, cache: tuple[Array, Array]) -> Array:
    """Return ``dx`` (derivations 2.2c)."""
    s, y = cache
    return dy * (s + y * (1.0 - s))


def softmax(x: Array) -> tuple[Array, Array]:
    """y = exp(x) / sum exp(x) along the last axis of x (..., E) (derivations 2.4a).

    Backward (derivations 2.4b): dx = y (dy - <y, dy>), row by row.  The largest entry is subtracted
    first; that changes no value and prevents overflow.
    """
    shifted = x - x.real.max(axis=-1, keepdims=True)
    e = get_xp(x).exp(shifted)
    y = e / e.sum(axis=-1, keepdims=True)
    return y, y


def softmax_backward(dy: Array, y: Array) -> Array:
    """Return ``dx`` (derivations 2.4b)."""
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True))


def concat(parts: Sequence[Array]) -> tuple[Array, tuple[int, ...]]:
    """Join arrays (..., d) along the last axis.  Backward: cut the adjoint at the same places.

    See derivations 2.2e.
    """
    widths = tuple(part.shape[-1] for part in parts)
    if len(parts) == 1:
        return parts[0], widths
    concatenate = get_xp(*parts).concatenate
    if all(part.ndim == 2 and is_batch_last(part) for part in parts):
        return concatenate([part.T for part in parts]).T, widths
    return concatenate(list(parts), axis=-1), widths


def concat_backward(dy: Array, widths: tuple[int, ...]) -> list[Array]:
    """Return one adjoint per part (derivations 2.2e)."""
    return split(dy, widths)[0]


def split(x: Array, widths: Sequence[int]) -> tuple[list[Array], None]:
    """Cut the last axis of x (..., d) into parts of the given widths.  Backward: join the adjoints.

    See derivations 2.2e.

    Raises
    ------
    ValueError
        Unless the widths add up to d.
    """
    if sum(widths) != x.shape[-1]:
        raise ValueError(f"widths {tuple(widths)} must add up to {x.shape[-1]}, the last axis.")
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [x[..., end - width : end] for width, end in zip(widths, ends, strict=True)], None


def split_backward(d_parts: Sequence[Array], cache: None) -> Array:
    """Return ``dx`` (derivations 2.2e)."""
    return concat(d_parts)[0]


class Pair(NamedTuple):
    """A forward with its backward: one of several ways to compute the same thing."""

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Any]


class Activation(NamedTuple):
    """An element-wise forward with its backward."""

    forward: Callable[[Array], tuple[Array, object]]
    backward: Callable[..., Array]


def activation_backward(activation: Activation, dy: Array, cache: Any) -> Array:
    """Return ``dx`` where dy is a fresh array that nobody else reads: a ReLU takes its memory.

    See derivations 2.2c.
    """
    if activation.backward is not relu_backward:
        return activation.backward(dy, cache)
    if kernels.fuses(dy, cache):
        return kernels.relu_backward(dy, cache)
    return times_to(dy, cache)


def biased(P: Array, b: Array, activation: Activation) -> tuple[Array, Array, Any]:
    """Return A = P + b, in the memory of P, a fresh array; H = act(A); and the activation's cache.

    See derivations 2.2a, 2.2c.

    Backward: dA is the activation's dx of dH, db the sum of dA over the batch.

    Shapes
    ------
    P : (B, O)
    b : (O,)
    A : (B, O)
    H : (B, O)
    """
    if activation.forward is relu and P.ndim == 2 > b.ndim and kernels.fuses(P, b):
        if not is_batch_last(P):
            return kernels.bias_relu_batch_first(P, b)
        A, H, is_positive = kernels.bias_relu(P.T, b)
        return A.T, H.T, is_positive.T
    A = add_to(P, b)
    H, cache = activation.forward(A)
    return A, H, cache


def biased_backward(dH: Array, cache: Any, activation: Activation) -> tuple[Array, Array]:
    """Return ``dA, db``; dH is a fresh array that nobody else reads.

    See derivations 2.2b, 2.2c, 3.4a, 3.4b.
    """
    is_relu = activation.backward is relu_backward
    if is_relu and dH.ndim == 2 and kernels.fuses(dH, cache):
        if not is_batch_last(dH):
            return kernels.bias_relu_batch_first_backward(dH, cache)
        dA, db = kernels.bias_relu_backward(dH.T, cache.T)
        return dA.T, db
    dA = activation_backward(activation, dH, cache)
    return dA, sum_rows(dA)


# Add your own pair here to use it as the activation of any model.
ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(relu, relu_backward),
    "leaky_relu": Activation(leaky_relu, leaky_relu_backward),
    "tanh": Activation(tanh, tanh_backward),
    "sigmoid": Activation(sigmoid, sigmoid_backward),
    "softplus": Activation(softplus, softplus_backward),
    "silu": Activation(silu, silu_backward),
    "identity": Activation(identity, identity_backward),
}


def check_activation(name: str) -> None:
    """Check the name of an activation.

    Raises
    ------
    ValueError
        Unless ``name`` is in ``ACTIVATIONS``.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {tuple(ACTIVATIONS)}; got {name!r}.")
