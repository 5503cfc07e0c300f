"""The repeat operator psi: from the core Q (d_r, d_c) to the weighting matrix S (d_m, d_n).

Two layouts.  Block (derivations 3.2d): entry (i, j) copies Q[i // f_r, j // f_c].  Tile
(derivations 3.2e): entry (i, j) copies Q[i % d_r, j % d_c].  ``split_axis`` hides the difference
from everything else: it cuts an axis into (group, member), where all members of a group copy the
same core entry.
"""

from __future__ import annotations

from midpg_np.backend import Array, get_xp

REPEAT_MODES = ("block", "tile")


def split_axis(x: Array, axis: int, n_groups: int, mode: str) -> Array:
    """Cut an axis of x of length n_groups * f into two: (n_groups, f) (derivations 3.2d, 3.2e).

    Block: the members of group g are g*f ... g*f + f - 1.  Tile: they are g, g + n_groups, ...
    """
    axis %= x.ndim
    before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    n_members = length // n_groups
    if mode == "block":
        return x.reshape(*before, n_groups, n_members, *after)
    return x.reshape(*before, n_members, n_groups, *after).swapaxes(axis, axis + 1)


def merge_axis(x: Array, axis: int, mode: str) -> Array:
    """Inverse of ``split_axis``: joins the axes (..., n_groups, f, ...) of x, from ``axis`` on."""
    axis %= x.ndim
    if mode == "tile":
        x = x.swapaxes(axis, axis + 1)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def repeat(Q: Array, d_m: int, d_n: int, mode: str) -> Array:
    """Weighting matrix S = psi(Q): every core entry is copied f_r * f_c times.

    See derivations 3.2d, 3.2e.

    Backward: dQ[r, c] is the sum (not the mean) of dS over the copies of entry (r, c).

    Shapes
    ------
    Q : (B, d_r, d_c)
    S : (B, d_m, d_n)
    """
    xp = get_xp(Q=Q)
    d_r, d_c = Q.shape[1:]
    if mode == "tile":
        return xp.tile(Q, (1, d_m // d_r, d_n // d_c))
    return xp.repeat(xp.repeat(Q, d_m // d_r, axis=1), d_n // d_c, axis=2)


def repeat_backward(dS: Array, d_r: int, d_c: int, mode: str) -> Array:
    """Return ``dQ`` (B, d_r, d_c) (derivations 3.4f)."""
    dS = split_axis(split_axis(dS, 2, d_c, mode), 1, d_r, mode)
    return dS.sum(axis=(2, 4))
