"""Derivatives of a function by evaluating it: the complex step and central differences.

The two are independent witnesses.  The complex step is exact to rounding but trusts that the
function is written analytically; differences are blunter but see the function as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np

from midpg_np.tree import Tree, tree_flatten, tree_set

COMPLEX_STEP = 1e-20
DIFFERENCE_STEPS = {2: 1e-5, 4: 1e-4}  # by order; best between truncation and rounding

Function = Callable[[Tree], complex]
Index = tuple[int, ...]
Value = Callable[[complex], complex]


def _values(f: Function, tree: Tree, path: str, dtype: type) -> Callable[[Index], Value]:
    """Return ``at(index)(delta)``: f with ``delta`` added to one entry of one leaf.

    All values share one copy of the leaf, changed in place and restored, so that what is around a
    forward pass costs little beside it.
    """
    start = tree_flatten(tree)[path]
    leaf = start.astype(np.result_type(start, dtype))
    point = tree_set(tree, path, leaf)

    def at(index: Index) -> Value:
        def value(delta: complex) -> complex:
            leaf[index] += delta
            result = f(point)
            leaf[index] = start[index]
            return result

        return value

    return at


def complex_steps(f: Function, tree: Tree, path: str, indices: Iterable[Index]) -> np.ndarray:
    """df/dx of some entries of one leaf: Im f(x + ih) / h with h = 1e-20, exact to rounding.

    See derivations 13.2a.

    No difference of nearly equal numbers is taken, so h can be so small that h^2 vanishes.  A
    ``ComplexWarning`` (somewhere the imaginary part was thrown away) is an error.
    """
    at = _values(f, tree, path, complex)
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        values = [np.imag(at(index)(COMPLEX_STEP * 1j)) for index in indices]
    return np.array(values, dtype=float) / COMPLEX_STEP


def central_differences(
    f: Function,
    tree: Tree,
    path: str,
    indices: Iterable[Index],
    step: float | None = None,
    order: int = 4,
) -> np.ndarray:
    """df/dx of some entries of one leaf by central differences of order 2 or 4 (derivations 13.2b).

    Order 2: [f(x+h) - f(x-h)] / 2h.  Order 4: (8 [f(x+h) - f(x-h)] - [f(x+2h) - f(x-2h)]) / 12h,
    twice the work.  Error O(h^order) + O(eps / h).
    """
    at = _values(f, tree, path, float)
    h = step or DIFFERENCE_STEPS[order]
    values = []
    for value in map(at, indices):
        near = np.real(value(h)) - np.real(value(-h))
        if order == 2:
            values.append(float(near / (2.0 * h)))
            continue
        far = np.real(value(2.0 * h)) - np.real(value(-2.0 * h))
        values.append(float((8.0 * near - far) / (12.0 * h)))
    return np.array(values)


def directional_complex_step(f: Function, tree: Tree, path: str, direction: np.ndarray) -> float:
    """Return <df/dx, direction> of the leaf x at ``path`` by a single complex step.

    ``direction`` has the same shape as the leaf of ``tree``; ``f`` takes such a tree.
    """
    leaf = tree_flatten(tree)[path]
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        value = f(tree_set(tree, path, leaf + 1j * COMPLEX_STEP * direction))
    return float(np.imag(value) / COMPLEX_STEP)
