"""An affine map whose output has one block per tower, of which a row uses its own.

The kernel is stored by block, W (T, I, O); side by side the blocks are the (I, T*O) kernel of the
paper.  *textbook* multiplies every row with all T blocks and picks one.  *grouped* multiplies the
rows of a scenario, which lie side by side, with the one block that they use: the work does not
grow with T.  *shared* is a single block that all rows use, stored without the block axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.layers.affine_set import AffineSetCache, affine_set, affine_set_backward
from midpg_np.layers.groups import Groups, of_present
from midpg_np.layers.scenario_mlp import (
    GroupedAffineCache,
    grouped_affine,
    grouped_affine_backward,
    rows_of,
)
from midpg_np.ops import AffineCache, Pair, affine, affine_backward


def own_block(H: Array, W: Array, b: Array, groups: Groups) -> tuple[Array, GroupedAffineCache]:
    """A_(d) = H_(d) W_d + b_d with block d for scenario d, rows sorted by scenario.

    See derivations 2.7a.

    Backward (derivations 2.7b): as ``grouped_affine``; blocks that no row used get no gradient.

    Shapes
    ------
    H : (B, I)
    W : (T, I, O)
    b : (T, O)
    A : (B, O)
    """
    return grouped_affine(H, of_present(W, groups), of_present(b, groups), groups)


def own_block_backward(dA: Array, cache: GroupedAffineCache) -> tuple[Array, Any, Any]:
    """Return ``dH, dW, db``, the last two as the rows of the scenarios present.

    See derivations 2.7b.
    """
    dH, dW, db = grouped_affine_backward(dA, cache)
    return dH, rows_of(dW, cache.groups), rows_of(db, cache.groups)


class AllBlocksCache(NamedTuple):
    """The maps of all blocks, and the block t of each row (B,)."""

    maps: AffineSetCache
    t: Array
    n_blocks: int


def all_blocks(H: Array, W: Array, b: Array, groups: Groups) -> tuple[Array, AllBlocksCache]:
    """Textbook form of ``own_block``: [A_1, ..., A_T] = H [W_1, ..., W_T] + b, then pick one.

    See derivations 2.7a.

    Shapes
    ------
    H : (B, I)
    W : (T, I, O)
    b : (T, O)
    A : (B, O)
    """
    xp = get_xp(H=H, W=W, b=b)
    t = groups.scenario
    A, maps = affine_set(H, W, b)
    return A[xp.arange(len(H)), t], AllBlocksCache(maps, t, len(W))


def all_blocks_backward(dA: Array, cache: AllBlocksCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db``: the adjoint of a block that a row did not use is zero.

    See derivations 2.7b.
    """
    xp = get_xp(dA=dA, H=cache.maps.H)
    n_rows, n_outputs = dA.shape
    d_blocks = xp.zeros((n_rows, cache.n_blocks, n_outputs), dtype=dA.dtype)
    d_blocks[xp.arange(n_rows), cache.t] = dA
    return affine_set_backward(d_blocks, cache.maps)


def shared_block(H: Array, W: Array, b: Array, groups: Groups | None) -> tuple[Array, AffineCache]:
    """One block for all rows: A = H W + b with W (I, O), b (O,)."""
    return affine(H, W, b)


BLOCK_FORMS: dict[str, Pair] = {
    "grouped": Pair(own_block, own_block_backward),
    "textbook": Pair(all_blocks, all_blocks_backward),
}
SHARED = Pair(shared_block, affine_backward)


def block_form(n_blocks: int | None, form: str) -> Pair:
    """Return the map of ``n_blocks`` blocks, None being a single one for all rows."""
    return SHARED if n_blocks is None else BLOCK_FORMS[form]
