"""Rules that several models share: each operation with the adjoint derived for it by hand.

``dy`` is the adjoint of the output ``y``; the functions return one adjoint per input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from midpg_np.losses import cross_entropy, cross_entropy_backward
from midpg_np.ops import ACTIVATIONS, sigmoid, softplus
from midpg_np.verify.longhand.calculation import Rule


def table_rows(offsets: Sequence[int]) -> Rule:
    """Rows of the packed tables, one below the other, that the codes (B, F) name."""
    return Rule(lambda codes: codes + np.asarray(offsets), lambda dy, _, codes: (None,))


def _lookup_backward(dX: Any, _: Any, table: Any, rows: Any) -> tuple[Any, ...]:
    d_table = np.zeros_like(table)
    np.add.at(d_table, rows, dX.reshape(*rows.shape, -1))
    return d_table, None


LOOKUP = Rule(lambda table, rows: table[rows].reshape(len(rows), -1), _lookup_backward)
"""X_b = [T[rows_b1], T[rows_b2], ...]; a row of T gets the sum over the places where it was read
(derivations 2.1)."""


def columns(start: int, stop: int) -> Rule:
    """Take some columns; the others get adjoint zero."""

    def backward(dy: Any, _: Any, x: Any) -> tuple[Any, ...]:
        dx = np.zeros_like(x)
        dx[:, start:stop] = dy
        return (dx,)

    return Rule(lambda x: x[:, start:stop], backward)


def _concat_backward(dy: Any, _: Any, *parts: Any) -> tuple[Any, ...]:
    stops = np.cumsum([part.shape[1] for part in parts])
    return tuple(np.split(dy, stops[:-1], axis=1))


CONCAT = Rule(lambda *parts: np.concatenate(parts, axis=1), _concat_backward)
"""[x, y, ...] side by side; each gets the columns of the adjoint that it filled."""

AFFINE = Rule(
    lambda H, W, b: H @ W + b,
    lambda dA, _, H, W, b: (dA @ W.T, H.T @ dA, dA.sum(axis=0)),
)
"""A = H W + b (derivations 2.2)."""

MATMUL = Rule(
    lambda A, B: A @ B,
    lambda dy, _, A, B: (
        _sum_to(dy @ np.swapaxes(B, -1, -2), A.shape),
        _sum_to(np.swapaxes(A, -1, -2) @ dy, B.shape),
    ),
)
"""Matrix product; a factor that all rows share gets the sum over the rows."""

ADD = Rule(
    lambda x, y: x + y,
    lambda dy, _, x, y: (_sum_to(dy, np.shape(x)), _sum_to(dy, np.shape(y))),
)
"""x + y; what was repeated over an axis gets the sum along it."""

MULTIPLY = Rule(
    lambda x, y: x * y,
    lambda dy, _, x, y: (_sum_to(dy * y, np.shape(x)), _sum_to(dy * x, np.shape(y))),
)
"""x * y entry by entry."""


def _sum_to(dy: Any, shape: tuple[int, ...]) -> Any:
    """Adjoint of repeating an array along the axes that it lacks, or in which it has length 1."""
    dy = np.asarray(dy)
    dy = dy.sum(axis=tuple(range(dy.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and dy.shape[i] != 1)
    return dy.sum(axis=axes, keepdims=True)


def activation(name: str) -> Rule:
    """H = act(A), a name in ``ops.ACTIVATIONS`` (derivations 2.2); relu'(0) = 0."""
    act = ACTIVATIONS[name]

    def backward(dH: Any, _: Any, A: Any) -> tuple[Any, ...]:
        return (act.backward(dH, act.forward(A)[1]),)

    return Rule(lambda A: act.forward(A)[0], backward)


def scaled_sigmoid(gain: float) -> Rule:
    """Q = gain sigmoid(P); dP = dQ Q (1 - Q / gain) (derivations 2.3)."""
    return Rule(
        lambda P: gain * sigmoid(P)[0],
        lambda dQ, Q, P: (dQ * Q * (1.0 - Q / gain),),
    )


def reshape(*shape: int) -> Rule:
    """Give every row another shape."""
    return Rule(
        lambda x: x.reshape(len(x), *shape),
        lambda dy, _, x: (dy.reshape(x.shape),),
    )


FLATTEN = reshape(-1)
FIRST_COLUMN = Rule(lambda x: x[:, 0], lambda dy, _, x: (dy[:, None],))
"""(B, 1) -> (B,)."""

STOP = Rule(lambda x: x + 0.0, lambda dy, _, x: (None,), is_stop=True)
"""sg(x): the value passes, nothing comes back."""


def scale(factor: float) -> Rule:
    """y = factor x."""
    return Rule(lambda x: factor * x, lambda dy, _, x: (factor * dy,))


def weighted_sum(weights: Sequence[float]) -> Rule:
    """Sum of terms, each with a fixed weight: losses over layers, the joint objective (8)."""

    def forward(*terms: Any) -> Any:
        return np.asarray(sum(w * term for w, term in zip(weights, terms, strict=True)))

    return Rule(forward, lambda dy, _, *terms: tuple(w * dy for w in weights))


def _gather_backward(dy: Any, _: Any, x: Any, rows: Any) -> tuple[Any, ...]:
    dx = np.zeros_like(x)
    np.add.at(dx, rows, dy)
    return dx, None


GATHER = Rule(lambda x, rows: x[rows], _gather_backward)
"""y_b = x[rows_b]: row b of the adjoint belongs to row rows_b, where it is added (3.4)."""

CROSS_ENTROPY = Rule(
    lambda z, y: np.asarray(cross_entropy(z, y)[0]),
    lambda dy, _, z, y: (cross_entropy_backward(dy, cross_entropy(z, y)[1]), None),
)
"""Mean of sp(z) - y z; dz = (sigmoid(z) - y) / B (derivations 2.5)."""

JENSEN_SHANNON = Rule(
    lambda t_pos, t_neg: np.asarray((softplus(-t_pos)[0] + softplus(t_neg)[0]).mean()),
    lambda dy, _, t_pos, t_neg: (
        dy * (sigmoid(t_pos)[0] - 1.0) / len(t_pos),
        dy * sigmoid(t_neg)[0] / len(t_neg),
    ),
)
"""Mean over B of sp(-t_pos) + sp(t_neg): the regulariser of equation (7)."""
