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
DIFFERENCE_STEP = 1e-4

Function = Callable[[Tree], complex]
Index = tuple[int, ...]


def _with_entry(tree: Tree, path: str, leaf: np.ndarray, index: Index, delta: complex) -> Tree:
    changed = leaf.astype(np.result_type(leaf, type(delta)))
    changed[index] += delta
    return tree_set(tree, path, changed)


def complex_step(f: Function, tree: Tree, path: str, index: Index) -> float:
    """df/dx of one entry: Im f(x + ih) / h with h = 1e-20, exact to rounding.

    No difference of nearly equal numbers is taken, so h can be so small that h^2 vanishes.  A
    ``ComplexWarning`` (somewhere the imaginary part was thrown away) is an error.
    """
    leaf = tree_flatten(tree)[path]
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        value = f(_with_entry(tree, path, leaf, index, COMPLEX_STEP * 1j))
    return float(np.imag(value) / COMPLEX_STEP)


def central_difference(
    f: Function, tree: Tree, path: str, index: Index, step: float = DIFFERENCE_STEP
) -> float:
    """df/dx of one entry by the 4th-order central difference.

    (8 [f(x+h) - f(x-h)] - [f(x+2h) - f(x-2h)]) / 12h, error O(h^4) + O(eps / h).
    """
    leaf = tree_flatten(tree)[path]
    near, far = (
        np.real(f(_with_entry(tree, path, leaf, index, k * step)))
        - np.real(f(_with_entry(tree, path, leaf, index, -k * step)))
        for k in (1.0, 2.0)
    )
    return float((8.0 * near - far) / (12.0 * step))


def directional_complex_step(f: Function, tree: Tree, path: str, direction: np.ndarray) -> float:
    """Return <df/dx, direction> of one leaf by a single complex step."""
    leaf = tree_flatten(tree)[path]
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        value = f(tree_set(tree, path, leaf + 1j * COMPLEX_STEP * direction))
    return float(np.imag(value) / COMPLEX_STEP)


def gradient_at(
    method: Callable[[Function, Tree, str, Index], float],
    f: Function,
    tree: Tree,
    path: str,
    indices: Iterable[Index],
) -> np.ndarray:
    """Return the derivatives of the given entries of one leaf."""
    return np.array([method(f, tree, path, index) for index in indices])
