"""Backward passes that are wrong on purpose, each by one mistake that people make.

``WRONG`` names the mistake (derivations 3.9 and 14); ``check_gradients`` must reject every one.
Either the result of a right backward is spoilt, or one function that it calls is replaced while
it runs (``spoiling.py``).  ``wrong_models.py`` adds the mistakes that need a whole model.

No gradient check can see a wrong forward with a matching backward (2B pairs in both, tile for
block, input gate for output gate): the hand-computed values in test_ops.py, test_losses.py and
layers/ are there for those.
"""

from dataclasses import replace

import numpy as np
from spoiling import inside, op, parameter, result

from midpg_np.layers.core import product_of_sigmoids, sigmoid_of_product
from midpg_np.layers.expansion import Expansion
from midpg_np.layers.repeat import repeat_backward
from midpg_np.losses import jensen_shannon_backward
from midpg_np.ops import (
    Activation,
    Pair,
    identity_backward,
    product_backward,
    relu,
    scaled_sigmoid_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
)

REPEAT_BACKWARD = "checks.catalogue.weighting.repeat_backward"
GAIN = 1.5  # of the catalogue's generators
OTHER = {"block": "tile", "tile": "block"}


def reshaped(matrix):
    """Shape of the transpose, entries in the old order: what people get from reshape."""
    return matrix.reshape(*matrix.shape[:-2], matrix.shape[-1], matrix.shape[-2])


def one_entry_off(dW):
    """Make the smallest entry 5 % too large."""
    dW = dW.copy()
    dW.flat[np.abs(dW).argmin()] *= 1.05
    return dW


def with_nan(db):
    return np.where(np.arange(db.size) == 1, np.nan, db)


def rows_overwrite(target, ids, rows):
    target[ids] = rows


def repeated_rows_lost(target, ids, rows):
    target[ids] += rows


def rows_gathered(target, ids, rows):
    target += rows[ids]


def rows_in_place(target, ids, rows):
    target += rows


def first_of_each(ids, rows):
    ids, first = np.unique(ids, return_index=True)
    return ids, rows[first]


def mean_of_each(ids, rows):
    unique_ids, segment, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sums = np.zeros((unique_ids.size, rows.shape[1]))
    np.add.at(sums, segment, rows)
    return unique_ids, sums / counts[:, None]


def repeat_mean(dS, d_r, d_c, mode):
    return repeat_backward(dS, d_r, d_c, mode) * (d_r * d_c) / dS[0].size


def repeat_one_copy(dS, d_r, d_c, mode):
    return dS[:, :: dS.shape[1] // d_r, :: dS.shape[2] // d_c]


def repeat_other_layout(dS, d_r, d_c, mode):
    return repeat_backward(dS, d_r, d_c, OTHER[mode])


def mean_weighting(x):
    """Batch mean of the weighting matrix, in blocks."""
    f_r, f_c = (x["W"].shape[i] // x["Q"].shape[i + 1] for i in (0, 1))
    return np.kron(x["Q"].mean(axis=0), np.ones((f_r, f_c)))


def core_adjoint(x, dy, mode, with_W=True):
    dV = x["H"][:, :, None] * dy[:, None, :]
    return repeat_backward(dV * x["W"] if with_W else dV, *x["Q"].shape[1:], mode)


def factors_reshaped(dQ, cache, dQ_other=None, workspace=None):
    dP = sigmoid_backward(dQ * cache.gain, cache.Q / cache.gain)
    return dP @ reshaped(cache.C), reshaped(cache.R) @ dP


def factors_before_sigmoid(dQ, cache, dQ_other=None, workspace=None):
    """The cache holds the factors behind their sigmoid; the products need those."""
    dP, R, C = dQ * cache.gain, cache.R, cache.C
    dR = sigmoid_backward(dP @ logit(C).swapaxes(-1, -2), R)
    return dR, sigmoid_backward(logit(R).swapaxes(-1, -2) @ dP, C)


def logit(y):
    return np.log(y / (1.0 - y))


def first_half_alone_reaches_the_input(dy, cache):
    _, dW = product_backward(dy, cache)
    is_first = np.arange(dy.shape[1]) < dy.shape[1] // 2
    dx, _ = product_backward(dy * is_first, cache)
    return dx, dW


def times(factor, *names):
    """Multiply the gradients of inputs, or all of them, by a number or ``factor(dy)``."""

    def change(grads, dy, cache):
        return grads | {name: factor * grads[name] for name in names}

    return change


def contexts_swapped(grads, dy, cache):
    return grads | {"e": grads["e_neg"], "e_neg": grads["e"]}


def mi_backward(factor):
    return lambda d_loss, c: tuple(
        factor(len(c.t_pos)) * d for d in jensen_shannon_backward(d_loss, c)
    )


def soft(x):
    return softmax(x["x"])[0]


OPS = {
    "softmax returns zeros": op("softmax", x=lambda g, dy, x: 0.0 * dy),
    "softmax without the inner product": op("softmax", x=lambda g, dy, x: soft(x) * dy),
    "softmax sums over the batch": op(
        "softmax", x=lambda g, dy, x: soft(x) * (dy - (soft(x) * dy).sum(axis=0))
    ),
    "affine: W transposed by reshape": op("affine", x=lambda g, dy, x: dy @ reshaped(x["W"])),
    "affine: dW transposed by reshape": op("affine", W=lambda g, dy, x: reshaped(g["W"].T)),
    "affine: dW pairs the wrong rows": op(
        "affine", W=lambda g, dy, x: np.roll(x["x"], 1, axis=0).T @ dy
    ),
    "affine: dW is a mean over the batch": op("affine", W=lambda g, dy, x: g["W"] / len(dy)),
    "affine: bias forgotten": op("affine", b=lambda g, dy, x: 0.0 * g["b"]),
    "affine: bias from the first row": op("affine", b=lambda g, dy, x: dy[0]),
    "affine: bias keeps the batch axis": op("affine", b=lambda g, dy, x: dy),
    "affine: one entry 5 % off": op("affine", W=lambda g, dy, x: one_entry_off(g["W"])),
    "affine: one entry NaN": op("affine", b=lambda g, dy, x: with_nan(g["b"])),
    "affine: float32 comes back": op("affine", W=lambda g, dy, x: g["W"].astype(np.float32)),
    "affine: no gradient of W": result("affine", lambda g, dy, c: {"x": g["x"], "b": g["b"]}),
    "affine: gradient of a stranger": op("affine", bias=lambda g, dy, x: g["b"]),
    "relu: slope where dy > 0": op("relu", x=lambda g, dy, x: dy * (dy > 0)),
    "leaky relu: no leak": op("leaky_relu", x=lambda g, dy, x: dy * (x["x"] > 0)),
    "sigmoid: x (1 - x)": op("sigmoid", x=lambda g, dy, x: sigmoid_backward(dy, x["x"])),
    "tanh: 1 - y": op("tanh", x=lambda g, dy, x: dy * (1.0 - np.tanh(x["x"]))),
    "softplus: sigmoid(-x)": op("softplus", x=lambda g, dy, x: dy * sigmoid(-x["x"])[0]),
    "silu: half of the product rule": op("silu", x=lambda g, dy, x: dy * sigmoid(x["x"])[0]),
    "concat: cut at the wrong place": op("concat", b=lambda g, dy, x: dy[:, : g["b"].shape[1]]),
    "split: joined in the wrong order": result(
        "split", lambda g, dy, c: {"x": np.roll(g["x"], dy.shape[1], axis=1)}
    ),
    "cross-entropy: not divided by B": op(
        "cross_entropy full mean", z=lambda g, dy, x: g["z"] * 4.0
    ),
    "cross-entropy: y - sigmoid(z)": op("cross_entropy full mean", z=lambda g, dy, x: -g["z"]),
    "cross-entropy: sigmoid differentiated again": op(
        "cross_entropy full mean", z=lambda g, dy, x: sigmoid_backward(g["z"], sigmoid(x["z"])[0])
    ),
    "positive cross-entropy: negatives pull too": op(
        "cross_entropy positive_only mean", z=lambda g, dy, x: g["z"] + dy * sigmoid(x["z"])[0]
    ),
    "shuffled pairs pulled like matching ones": op(
        "jensen_shannon", t_neg=lambda g, dy, x: -g["t_neg"]
    ),
}

LAYERS = {
    "mlp: ReLU forgotten": inside(
        "mlp", "layers.mlp.ACTIVATIONS", {"relu": Activation(relu, identity_backward)}
    ),
    "embedding: repeated ids overwrite": inside(
        "embedding dense", "layers.embedding.scatter_add_rows", repeated_rows_lost
    ),
    "embedding: repeated ids dropped": inside("embedding rows", "kernels.sum_by_id", first_of_each),
    "embedding: repeated ids averaged": inside("embedding rows", "kernels.sum_by_id", mean_of_each),
    "embedding: off by one row": result(
        "embedding dense", lambda g, dy, c: {"table": np.roll(g["table"], 1, axis=0)}
    ),
    "repeat: averaged": inside("repeat block", REPEAT_BACKWARD, repeat_mean),
    "repeat: one copy picked": inside("repeat block", REPEAT_BACKWARD, repeat_one_copy),
    "repeat: block undone as tile": inside("repeat block", REPEAT_BACKWARD, repeat_other_layout),
    "repeat: tile undone as block": inside("repeat tile", REPEAT_BACKWARD, repeat_other_layout),
    "product: dW with the batch mean of S": op(
        "modulated textbook block", W=lambda g, dy, x: x["H"].T @ dy * mean_weighting(x)
    ),
    "product: dW without S": op("modulated row block", W=lambda g, dy, x: x["H"].T @ dy),
    "product: dH without S": op("modulated column tile", H=lambda g, dy, x: dy @ x["W"].T),
    "product: dQ without W": op(
        "modulated textbook block", Q=lambda g, dy, x: core_adjoint(x, dy, "block", with_W=False)
    ),
    "product: dQ in the other layout": op(
        "modulated row tile", Q=lambda g, dy, x: core_adjoint(x, dy, "block")
    ),
    "bias: column mean not divided": op(
        "modulated_bias block", Q=lambda g, dy, x: g["Q"] * x["Q"].shape[1]
    ),
    "bias: modulation forgotten": op("modulated_bias tile", b=lambda g, dy, x: dy.sum(axis=0)),
    "layer: dW left in the other layout": parameter(
        "modulated_layer out_in", "W", lambda dW, dy: reshaped(dW.T)
    ),
    "dwm: Q (1 - Q) whatever the gain": inside(
        "dwm r sigmoid on product",
        "layers.core.scaled_sigmoid_backward",
        lambda dQ, c, out: np.copyto(out, sigmoid_backward(dQ, c[0])),
    ),
    "dwm: gain forgotten": inside(
        "dwm non sigmoid on product",
        "layers.dwm.scaled_sigmoid_backward",
        lambda dQ, c, out: np.copyto(out, scaled_sigmoid_backward(dQ, c) / GAIN),
    ),
    "dwm: sigmoid of the factors forgotten": inside(
        "dwm c sigmoid on factors", "layers.core.sigmoid_backward", lambda dy, y: dy
    ),
    "dwm: factors taken before their sigmoid": inside(
        "dwm rc sigmoid on factors",
        "layers.dwm.CORES",
        {"factors": Pair(product_of_sigmoids, factors_before_sigmoid)},
    ),
    "dwm: factors transposed by reshape": inside(
        "dwm rc sigmoid on product",
        "layers.dwm.CORES",
        {"product": Pair(sigmoid_of_product, factors_reshaped)},
    ),
    "dwm: second generator's input forgotten": inside(
        "dwm rc sigmoid on product",
        "layers.side_by_side.product_backward",
        first_half_alone_reaches_the_input,
    ),
    "dwm: shared factor averaged over the batch": parameter(
        "dwm r sigmoid on product", "C_share", lambda dC, dy: dC / len(dy)
    ),
    "dwm: shared factor forgotten": parameter(
        "dwm c sigmoid on product", "R_share", lambda dR, dy: 0.0 * dR
    ),
    "shuffle: context stays in its row": inside(
        "shuffle", "layers.negatives.scatter_add_rows", rows_in_place
    ),
    "shuffle: context gathered": inside(
        "shuffle", "layers.negatives.scatter_add_rows", rows_gathered
    ),
    "shuffle: context overwrites": inside(
        "shuffle", "layers.negatives.scatter_add_rows", rows_overwrite
    ),
    "mir: mean over 2B": inside(
        "mir mlp grouped", "layers.mir.jensen_shannon_backward", mi_backward(lambda B: 0.5)
    ),
    "mir: sum over the batch": inside(
        "mir mlp textbook", "layers.mir.jensen_shannon_backward", mi_backward(lambda B: B)
    ),
    "mir: generator's sign flipped as in a GAN": result("mir mlp grouped", times(-1.0, "q")),
    "mir: core detached": result("mir bilinear textbook", times(0.0, "q")),
    "mir: shuffled context detached": result("mir mlp grouped", times(0.0, "e_neg")),
    "mir: contexts swapped": result("mir bilinear grouped", contexts_swapped),
    "mir: context detached": result("mir mlp textbook", times(0.0, "e")),
    "mir: discriminator learns from matching pairs only": inside(
        "mir mlp textbook", "layers.mir.tree_add", lambda positive, negative: positive
    ),
    "mir: M transposed by reshape": parameter(
        "mir bilinear textbook", "M", lambda dM, dy: reshaped(dM.T)
    ),
    "mir: folded in the other layout": inside(
        "mir mlp textbook full block",
        "layers.expansion.Expansion.fold",
        lambda self, s, fold=Expansion.fold: fold(replace(self, mode="tile"), s),
    ),
    "mir: unfolded as a mean": inside(
        "mir bilinear grouped full tile",
        "layers.expansion.Expansion.expand",
        lambda self, q, expand=Expansion.expand: expand(self, q) * q.shape[1] / self.dim_full,
    ),
}

WRONG = OPS | LAYERS
