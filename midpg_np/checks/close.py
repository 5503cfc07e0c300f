"""Say out loud that two arrays agree, or fail naming the entry where they differ most."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array, to_numpy


def expect_close(mine: Array, reference: Array, *, name: str = "value", tol: float = 1e-12) -> None:
    """Print ``ok  name  max rel err 3e-13``, or raise ``AssertionError`` naming the worst entry.

    Parameters
    ----------
    mine, reference : array or number
        Of the same shape, on any device.
    name : str
        What they are.
    tol : float
        Largest error allowed, relative to the largest entry of ``reference``.

    Raises
    ------
    AssertionError
        If shapes differ, or the largest error is above ``tol``.
    """
    got, want = _on_host(mine), _on_host(reference)
    if got.shape != want.shape:
        raise AssertionError(f"{name}: expected shape {want.shape}; got {got.shape}.")
    errors = np.abs(got - want)
    scale = float(np.abs(want).max(initial=0.0)) or 1.0
    error = float(errors.max(initial=0.0)) / scale
    if not error <= tol:
        worst = np.unravel_index(int(np.argmax(np.nan_to_num(errors, nan=np.inf))), errors.shape)
        place = f"[{', '.join(str(int(i)) for i in worst)}]" if worst else ""
        raise AssertionError(
            f"{name}{place}: expected {want[worst]:+.6e}; got {got[worst]:+.6e} "
            f"(error {error:.1e} of the largest entry, allowed {tol:.1e})."
        )
    print(f"ok  {name}  max rel err {error:.0e}")


def _on_host(x: Array | float) -> np.ndarray:
    return to_numpy(x) if hasattr(x, "dtype") else np.asarray(x)
