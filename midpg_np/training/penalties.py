"""L2 on embeddings and weights, for any model: added to the loss and the gradients of a step.

    l2_embedding / (2 B) sum over rows b and fields f of |T_f[code_bf]|^2,
    l2_weights / 2 sum over kernels of |W - c|^2,  c = 0 unless the model says otherwise

The first counts what the batch reads, so neither it nor its gradient depends on the size of a
vocabulary, and rows may be deferred (``row_adam``).  Both read parameters alone and not what
dropout left of them (derivations 2.8).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from midpg_np.backend import Array
from midpg_np.layers.penalties import (
    ReadRowsCache,
    add_rows,
    penalise_kernel,
    penalise_kernel_backward,
    penalise_rows,
    penalise_rows_backward,
)
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.flat_params import is_table
from midpg_np.tree import Tree, tree_flatten, tree_unflatten

NAME = "l2"  # of the term among the losses of a step
# Last keys of biases, and of scales and shifts of normalisations, which have an axis more where
# there is one for each scenario.
NO_KERNELS = ("b", "a", "gamma", "beta", "scenario_gamma", "scenario_beta")


class PenaltyCache(NamedTuple):
    """Cache of each table and of each kernel, by path."""

    tables: dict[str, ReadRowsCache]
    kernels: dict[str, tuple[Array, float]]


@dataclass(frozen=True)
class Penalty:
    """The two strengths; 0 leaves a term out.

    Parameters
    ----------
    embedding, weights : float
        ``l2_embedding`` and ``l2_weights`` of ``TrainConfig``.
    """

    embedding: float = 0.0
    weights: float = 0.0

    def forward(
        self,
        params: Tree,
        rows: Mapping[str, Array],
        n_rows: int,
        fixed: Collection[str] = (),
        centres: Mapping[str, float] | None = None,
    ) -> tuple[Array, PenaltyCache]:
        """Return the sum of both terms and the cache.

        Parameters
        ----------
        rows : mapping of path to array of row numbers, any shape
            What the batch reads of each table, on the device of ``params``.
        n_rows : int
            Rows B of the batch.
        fixed : collection of str
            Leaves without gradient.
        centres : mapping of path to float, optional
            c of the kernels that have another than 0.

        Raises
        ------
        ValueError
            If the model does not say which rows of a table it reads.
        """
        total: Any = 0.0
        cache = PenaltyCache({}, {})
        leaves = tree_flatten(params)
        # By name: a tree that was read from a file has its leaves in another order, and the sum
        # shall have the same bits.
        for path in sorted(leaves.keys() - set(fixed)):
            leaf = leaves[path]
            if is_table(path):
                if not self.embedding:
                    continue
                ids = _rows_of(path, rows).reshape(-1)
                weight = self.embedding / n_rows
                value, cache.tables[path] = penalise_rows(leaf, ids, weight)
            elif self.weights and is_kernel(path, leaf):
                centre = (centres or {}).get(path, 0.0)
                value, cache.kernels[path] = penalise_kernel(leaf, self.weights, centre)
            else:
                continue
            total = total + value
        return total, cache

    def add_gradient(self, grads: Tree, d_loss: float, cache: PenaltyCache) -> Tree:
        """Return ``grads`` with d_loss times the derivative of ``forward`` added; none is changed.

        A kernel whose gradient is kept as the rows of the scenarios present gets one for all rows.
        """
        leaves = tree_flatten(grads)
        for path, c_table in cache.tables.items():
            leaves[path] = add_rows(leaves[path], penalise_rows_backward(d_loss, c_table))
        for path, c_kernel in cache.kernels.items():
            gradient = leaves[path]
            if isinstance(gradient, RowGradient):
                gradient = gradient.dense()
            leaves[path] = gradient + penalise_kernel_backward(d_loss, c_kernel)
        return tree_unflatten(leaves)


def is_kernel(path: str, leaf: Array) -> bool:
    """Whether a leaf, any shape, that is no table multiplies inputs.

    It does with two axes or more, unless its ``path`` ends in the name of a bias or a scale.
    """
    return leaf.ndim >= 2 and path.rpartition(".")[2] not in NO_KERNELS


def _rows_of(path: str, rows: Mapping[str, Array]) -> Array:
    if path not in rows:
        raise ValueError(
            f"l2_embedding needs the rows of {path} that a batch reads, and the model does not "
            "name them; give it rows_read(batch), or set l2_embedding to 0."
        )
    return rows[path]
