"""Error of a numerical derivative against its step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from midpg_np.plots.style import STYLES, clean, new_figure, save


def plot_step_sizes(steps: Any, errors: Mapping[str, Any], path: Any = None) -> Any:
    """Draw the error of numerical derivatives against their step, both on logarithmic axes.

    Differences have a valley: a large step errs by the curvature, a small one by rounding.  The
    complex step has a plateau.

    Parameters
    ----------
    steps : array
        Step sizes, all above 0.
    errors : mapping of method to array
        Errors at ``steps``, none below 0; a zero is drawn on the lowest line, what is not finite
        is left out.
    path : path or file, optional
        Where to save the picture (PNG).

    Shapes
    ------
    steps : (K,)
    errors : (K,) each

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If there is no method, or more than line styles; if lengths differ; if a step is not above
        0 or an error below 0.
    ImportError
        If matplotlib is missing.
    """
    steps = np.asarray(steps, dtype=float)
    values = {name: np.asarray(error, dtype=float) for name, error in errors.items()}
    _check(steps, values)
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    for style, (name, error) in zip(STYLES, values.items(), strict=False):
        axes.plot(steps, error, label=name, linewidth=1.6, markersize=4, **style)
    axes.set_xscale("log")
    known = np.concatenate([error[np.isfinite(error)] for error in values.values()])
    positive = known[known > 0.0]
    least = 10.0 ** np.floor(np.log10(positive.min())) if positive.size else 1e-16
    if (known == 0.0).any():
        axes.set_yscale("symlog", linthresh=least)  # has a place for 0
        axes.set_ylim(0.0, 10.0 * max(known.max(), least))
        axes.yaxis.get_major_locator().set_params(numticks=10)
    else:
        axes.set_yscale("log")
    axes.set_xlabel("step size")
    axes.set_ylabel("error of the derivative")
    clean(axes)
    figure.legend(loc="outside upper left", ncols=len(values), frameon=False)
    save(figure, path)
    return figure


def _check(steps: np.ndarray, errors: Mapping[str, np.ndarray]) -> None:
    if not 1 <= len(errors) <= len(STYLES):
        raise ValueError(f"plot_step_sizes draws 1 to {len(STYLES)} methods; got {len(errors)}.")
    for name, error in errors.items():
        if steps.ndim != 1 or error.shape != steps.shape:
            raise ValueError(
                f"errors of {name!r} must have one value per step; got shape {error.shape} for "
                f"steps of shape {steps.shape}."
            )
        if (error < 0.0).any():
            raise ValueError(f"errors of {name!r} must not be below 0; got {error.min():g}.")
    if not (steps > 0.0).all():
        raise ValueError(f"steps must be above 0; got {steps.min():g}.")
