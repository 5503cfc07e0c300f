"""One example's core, the weighting matrix that it is repeated to, and what that does to W."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.plots.style import heat_map, new_figure, save


def plot_weighting(
    Q: Any, d_m: int, d_n: int, mode: str = "block", W: Any = None, path: Any = None
) -> Any:
    """Draw the core Q of one example, S = psi(Q), and W and S * W if W is given.

    White lines in S go around the copies of one entry (block), or around each copy of the whole
    core (tile); derivations 3.2.  A pair of pictures has one scale, that of W with 0 in its middle.

    Parameters
    ----------
    Q : array
        Core of one example.
    d_m, d_n : int
        Size of S; multiples of d_r and d_c.
    mode : str
        "block" or "tile", as ``layers.repeat.repeat`` has it.
    W : array, optional
        Weights that S multiplies entry by entry.
    path : path or file, optional
        Where to save the picture (PNG).

    Shapes
    ------
    Q : (d_r, d_c)
    W : (d_m, d_n)

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If a shape or the mode is not as above.
    ImportError
        If matplotlib is missing.
    """
    from midpg_np.layers.repeat import repeat

    Q = np.asarray(Q, dtype=float)
    _check(Q, d_m, d_n, mode, W)
    S = repeat(Q[None], d_m, d_n, mode)[0]
    low, high = min(0.0, float(Q.min())), float(Q.max())
    pairs = [("factor", low, high, {"core Q": Q, "S = ψ(Q)": S})]
    if W is not None:
        W = np.asarray(W, dtype=float)
        top = float(max(np.abs(W).max(), np.abs(S * W).max()))
        pairs.append(("weight", -top, top, {"W": W, "S * W": S * W}))
    figure = new_figure(6.2 * len(pairs), 3.3)
    row = figure.subplots(1, 2 * len(pairs), squeeze=False)[0]
    for k, (what, low, high, matrices) in enumerate(pairs):
        both = row[2 * k : 2 * k + 2]
        for axes, (title, matrix) in zip(both, matrices.items(), strict=True):
            image = heat_map(axes, matrix, low, high)
            axes.set_title(f"{title}  ({matrix.shape[0]}, {matrix.shape[1]})", fontsize=10)
            axes.set_xlabel("column j")
            axes.set_ylabel("row i")
        _outline(both[1], S.shape, Q.shape, mode)
        figure.colorbar(image, ax=list(both), shrink=0.75, label=what)
    row[0].set_xlabel("column c")
    row[0].set_ylabel("row r")
    save(figure, path)
    return figure


def _check(Q: np.ndarray, d_m: int, d_n: int, mode: str, W: Any) -> None:
    from midpg_np.layers.repeat import REPEAT_MODES

    if mode not in REPEAT_MODES:
        raise ValueError(f"mode must be one of {REPEAT_MODES}; got {mode!r}.")
    if Q.ndim != 2 or not Q.size or d_m % Q.shape[0] or d_n % Q.shape[1]:
        raise ValueError(
            f"Q must be one core (d_r, d_c) whose sides divide ({d_m}, {d_n}); got shape {Q.shape}."
        )
    if W is not None and np.shape(W) != (d_m, d_n):
        raise ValueError(f"W must have the shape ({d_m}, {d_n}) of S; got {np.shape(W)}.")


def _outline(axes: Any, full: tuple[int, ...], core: tuple[int, ...], mode: str) -> None:
    """Draw lines between blocks of copies, or between the tiles."""
    steps = [n // d if mode == "block" else d for n, d in zip(full, core, strict=True)]
    width = min(2.0, 24.0 / max(n // step for n, step in zip(full, steps, strict=True)))
    for n, step, line in zip(full, steps, (axes.axhline, axes.axvline), strict=True):
        for place in range(step, n, step):
            line(place - 0.5, color="white", linewidth=width)
