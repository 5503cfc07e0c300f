"""Parameter trees of JAX by path: the numbers of a case go in, the structure stays as it is.

JAX is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from midpg_np.tree import tree_unflatten
from midpg_np.verify.adapters.params import Arrays, Placement, written
from midpg_np.verify.case import StepCase
from midpg_np.verify.names import NameMap


@dataclass(frozen=True)
class ParamTree:
    """A tree taken apart.

    Parameters
    ----------
    paths : tuple of str
        Path of each leaf: keys, attributes and numbers with dots between them.
    leaves : tuple
        Arrays of numbers as NumPy arrays, whatever else there is as it was.
    structure
        JAX's description of the rest.
    """

    paths: tuple[str, ...]
    leaves: tuple[Any, ...]
    structure: Any

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The leaves that are arrays of numbers, by path."""
        pairs = zip(self.paths, self.leaves, strict=True)
        return {path: leaf for path, leaf in pairs if isinstance(leaf, np.ndarray)}

    @property
    def floats(self) -> list[str]:
        """Paths of the leaves that could learn."""
        return [path for path, array in self.arrays.items() if array.dtype.kind == "f"]

    def filled(self, values: Mapping[str, Any]) -> Any:
        """Return the tree with other arrays at some paths."""
        leaves = [values.get(path, leaf) for path, leaf in self._pairs()]
        return self._put_together(leaves)

    def only(self, values: Mapping[str, Any]) -> Any:
        """Return the tree with None at all other paths, which JAX takes for no leaf at all."""
        return self._put_together([values.get(path) for path in self.paths])

    def _pairs(self) -> list[tuple[str, Any]]:
        return list(zip(self.paths, self.leaves, strict=True))

    def _put_together(self, leaves: Sequence[Any]) -> Any:
        import jax

        return jax.tree_util.tree_unflatten(self.structure, leaves)


def by_path(tree: Any) -> tuple[dict[str, Any], Any]:
    """Return the leaves of a tree by path, and its structure.

    Raises
    ------
    ValueError
        If two leaves have one path.
    """
    import jax

    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    found: dict[str, Any] = {}
    for keys, leaf in pairs:
        path = ".".join(_text(key) for key in keys)
        if path in found:
            raise ValueError(f"two leaves of the tree have the path {path!r}; rename one.")
        found[path] = leaf
    return found, structure


def _text(key: Any) -> str:
    """Return what a key of JAX stands for: a key, a number or an attribute."""
    return str(next(getattr(key, at) for at in ("key", "idx", "name") if hasattr(key, at)))


def param_tree(tree: Any, dtype: str) -> ParamTree:
    """Take a tree apart; its numbers with a decimal point get another format.

    A leaf may be a ``jax.ShapeDtypeStruct``: it stands for zeros.
    """
    leaves, structure = by_path(tree)
    taken = tuple(_as_numpy(leaf, dtype) for leaf in leaves.values())
    return ParamTree(tuple(leaves), taken, structure)


def _as_numpy(leaf: Any, dtype: str) -> Any:
    """Return an array of numbers as one of NumPy, anything else as it is: keys, functions."""
    import jax
    import jax.numpy as jnp

    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return leaf
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    if not (is_float or jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool):
        return leaf
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    array = np.zeros(leaf.shape, leaf.dtype) if is_shape else np.asarray(leaf)
    return array.astype(dtype) if is_float else array


def case_tree(case: StepCase) -> Any:
    """Return parameters and state as the nested dictionaries that their names speak of."""
    return tree_unflatten(case.params | case.state)


def loaded(
    tree: ParamTree, case: StepCase, places: NameMap, ignore: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return all arrays of a tree with the case's numbers in them, and what is wrong with it.

    Raises
    ------
    ValueError
        If a parameter has no place in the tree, or does not fit there.
    """
    values = dict(tree.arrays)
    shapes = {path: array.shape for path, array in values.items()}
    keys = {path: path for path in values}
    arrays = Arrays(shapes, keys, "the tree", "array", "array")
    placement = Placement(case, places, arrays)
    for name, (paths, where) in placement.entries.items():
        for path in paths:
            if path not in tree.floats:
                raise ValueError(
                    f"{name}: {path} has dtype {values[path].dtype}; expected floating point."
                )
        parts = written([values[path] for path in paths], where, case.arrays[name])
        values |= {
            path: part.astype(values[path].dtype) for path, part in zip(paths, parts, strict=True)
        }
    return values, placement.problems + placement.left_over(tree.floats, ignore)
