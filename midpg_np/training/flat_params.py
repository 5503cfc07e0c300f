"""Dense parameters as views of one vector, so that an optimiser step is one pass over them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from midpg_np.backend import Array, address, get_xp
from midpg_np.tree import Tree, tree_flatten, tree_unflatten

TABLE = "table"


def is_table(path: str) -> bool:
    """Whether the leaf at this path is an embedding table: its last key is "table"."""
    return path.rpartition(".")[2] == TABLE


def flat_views(params: Tree, fixed: Collection[str] = ()) -> Tree:
    """Return the same values, with all dense leaves lying one after the other in one vector.

    Tables, the leaves named in ``fixed`` and leaves of another dtype than the first dense one stay
    the arrays they are.  Any code may read and write the views as the arrays they stand for.
    """
    leaves = tree_flatten(params)
    dense = {p: leaf for p, leaf in leaves.items() if not is_table(p) and p not in fixed}
    if not dense:
        return params
    first = next(iter(dense.values()))
    dense = {path: leaf for path, leaf in dense.items() if leaf.dtype == first.dtype}
    vector = get_xp(first).concatenate([leaf.reshape(-1) for leaf in dense.values()])
    end = 0
    for path, leaf in dense.items():
        leaves[path] = vector[end : end + leaf.size].reshape(leaf.shape)
        end += leaf.size
    return tree_unflatten(leaves)


def common_vector(leaves: Sequence[Array]) -> Array | None:
    """Return the vector of which the leaves, one after the other, are all; None if there is none.

    Shapes
    ------
    vector : (n,)
    """
    leaves = [leaf for leaf in leaves if leaf.size]  # a reshaped view of nothing is no view
    vector = getattr(leaves[0], "base", None) if leaves else None
    if vector is None or not hasattr(vector, "dtype") or vector.ndim != 1:
        return None
    size = sum(leaf.size for leaf in leaves)
    if vector.size != size or vector.dtype != leaves[0].dtype or not vector.flags.c_contiguous:
        return None
    end = address(vector)
    for leaf in leaves:
        if leaf.base is not vector or address(leaf) != end or not leaf.flags.c_contiguous:
            return None
        end += leaf.nbytes
    return vector
