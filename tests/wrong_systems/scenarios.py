"""Mistakes in what several models share: routing by scenario, and the softmax mixture."""

import numpy as np
from spoiling import op, result

from midpg_np.ops import softmax


def weights(x):
    return softmax(x["alpha"])[0]


def shifted(g):
    """Gradients given to the next scenario."""
    return np.roll(g, 1, axis=0)


WRONG = {
    "mixture: gate without the inner product": op(
        "mixture",
        alpha=lambda g, dy, x: weights(x) * np.einsum("bq,beq->be", dy, x["S"]),
    ),
    "mixture: inner product over the batch": op(
        "mixture",
        alpha=lambda g, dy, x: (
            weights(x)
            * (
                np.einsum("bq,beq->be", dy, x["S"])
                - (weights(x) * np.einsum("bq,beq->be", dy, x["S"])).sum(axis=0)
            )
        ),
    ),
    "mixture: every candidate gets the whole adjoint": op(
        "mixture", S=lambda g, dy, x: np.repeat(dy[:, None, :], x["S"].shape[1], axis=1)
    ),
    "mixture: candidates averaged": op(
        "mixture",
        S=lambda g, dy, x: np.repeat(dy[:, None, :], x["S"].shape[1], axis=1) / x["S"].shape[1],
    ),
    "scenario affine: gradients of the next scenario": op(
        "scenario_affine grouped", W=lambda g, dy, x: shifted(g["W"])
    ),
    "scenario affine: one gradient for all": op(
        "scenario_affine grouped",
        W=lambda g, dy, x: np.broadcast_to(g["W"].sum(axis=0), g["W"].shape).copy(),
    ),
    "scenario affine: bias divided by the rows of the scenario": op(
        "scenario_affine grouped", b=lambda g, dy, x: g["b"] / len(dy)
    ),
    "scenario affine: rows sent through the first scenario's weights": op(
        "scenario_affine grouped", H=lambda g, dy, x: dy @ x["W"][0].T
    ),
    "scenario mlp: rows in the order of the batch": result(
        "scenario_mlp grouped", lambda g, dy, c: g | {"H": g["H"][c.groups.place]}
    ),
}
