"""Parameter trees: nested dictionaries whose leaves are arrays.

A leaf is anything that is not a dictionary, so a gradient tree may hold a ``RowGradient`` where the
parameter tree holds a table.  Paths are written with dots: ``"layer_1.weighting.C_share"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from midpg_np.backend import Array, to_device

Tree = dict[str, Any]


def tree_items(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(path, leaf)`` for every leaf, in the order in which the tree was built."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from tree_items(value, f"{path}.")
        else:
            yield path, value


def tree_flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{path: leaf}``."""
    flat: dict[str, Any] = {}
    _collect(tree, "", flat)
    return flat


def _collect(tree: Mapping[str, Any], prefix: str, flat: dict[str, Any]) -> None:
    # An optimiser flattens two trees a step: this takes a third of the time of ``tree_items``.
    for key, value in tree.items():
        if isinstance(value, dict) or (
            not isinstance(value, np.ndarray) and isinstance(value, Mapping)
        ):
            _collect(value, f"{prefix}{key}.", flat)
        else:
            flat[prefix + key] = value


def tree_unflatten(flat: Mapping[str, Any]) -> Tree:
    """Inverse of ``tree_flatten``."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, last = path.split(".")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def tree_map(
    function: Callable[..., Any], tree: Mapping[str, Any], *others: Mapping[str, Any]
) -> Tree:
    """Apply ``function`` leaf by leaf to ``tree``, or to it and others of the same structure.

    Raises
    ------
    ValueError
        If the trees have different keys.
    """
    for other in others:
        if tree.keys() != other.keys():
            raise ValueError(f"trees differ: {sorted(tree)} against {sorted(other)}.")
    return {
        key: tree_map(function, value, *(other[key] for other in others))
        if isinstance(value, Mapping)
        else function(value, *(other[key] for other in others))
        for key, value in tree.items()
    }


def tree_add(a: Tree, b: Tree) -> Tree:
    """Return ``a + b``: the gradient of a parameter that is used twice."""
    return tree_map(lambda x, y: x + y, a, b)


def tree_astype(tree: Tree, dtype: Any) -> Tree:
    """Return a copy of the tree with every leaf in ``dtype``."""
    return tree_map(lambda leaf: leaf.astype(dtype), tree)


def tree_copy(tree: Tree) -> Tree:
    """Return a deep copy of the tree and its arrays."""
    return tree_map(lambda leaf: leaf.copy(), tree)


def tree_to_device(tree: Tree, device: str) -> Tree:
    """Return the tree with every leaf on ``device``."""
    return tree_map(lambda leaf: to_device(leaf, device), tree)


def tree_size(tree: Tree) -> int:
    """Count the scalars in the tree."""
    return sum(leaf.size for _, leaf in tree_items(tree))


def tree_set(tree: Tree, path: str, leaf: Array) -> Tree:
    """Return ``tree`` with ``leaf``, any shape, at ``path``; every other leaf is shared."""
    key, _, rest = path.partition(".")
    return tree | {key: tree_set(tree.get(key, {}), rest, leaf) if rest else leaf}
