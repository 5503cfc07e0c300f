"""Inverted dropout with a mask that is drawn beforehand (derivations 2.8)."""

from __future__ import annotations

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_batch_last

EMBEDDING_KEEP = "embedding_keep"  # name of the mask of X among the draws of a training step


def draw_keep(rng: np.random.Generator, shape: tuple[int, ...], rate: float) -> np.ndarray:
    """Draw a mask on the host: 0 with probability ``rate``, else 1 / (1 - rate) (derivations 2.8e).

    What is kept is made larger in training, so that the mean stays and a prediction needs nothing.

    Parameters
    ----------
    rate : float
        In [0, 1).

    Returns
    -------
    float64 array of that shape
        Drawn from 32 random bits per entry, whatever the dtype of the parameters.
    """
    return (rng.random(shape, dtype="float32") >= rate) * (1.0 / (1.0 - rate))


def dropout(x: Array, keep: Array) -> Array:
    """y = x * keep, entry by entry, stored as x is (derivations 2.8e).

    Shapes
    ------
    x : (B, d)
    keep : (B, d)
    y : (B, d)
    """
    xp, (n_rows, width) = get_xp(x=x, keep=keep), x.shape
    # The layout of a product would be that of either factor; kernels look at the layout of X.
    if is_batch_last(x):
        y = kernels.empty(xp, (width, n_rows), x.dtype).T
    else:
        y = kernels.empty(xp, (n_rows, width), x.dtype)
    return xp.multiply(x, keep, out=y)


def dropout_backward(dy: Array, keep: Array) -> Array:
    """Return ``dx``: the mask is a constant, so its entries are the derivatives.

    See derivations 2.8f.
    """
    return dropout(dy, keep)
