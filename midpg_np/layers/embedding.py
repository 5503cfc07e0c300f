"""Embedding lookup: its gradient as a dense table (the lesson) and as rows (used in training)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import (
    Array,
    constant,
    gather_rows,
    get_xp,
    is_batch_last,
    is_on_host,
    scatter_add_rows,
)
from midpg_np.layers.dropout import dropout, dropout_backward
from midpg_np.layers.initial import EMBEDDING_STD
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.tree import Tree


class EmbeddingCache(NamedTuple):
    """Rows that were read, (B, F), the number of rows of the table, and the mask, if there was one.

    Shapes
    ------
    ids : (B, F)
    keep : (B, F*k)
    """

    ids: Array
    n_rows: int
    keep: Array | None = None


@dataclass(frozen=True)
class Embedding:
    """Tables T_f of all fields, one below the other in one array: E_{b,f} = T_f[code_{b,f}].

    One array instead of one per field: one gather, one sort and one optimiser pass per step.
    ``field_rows(f)`` says which rows are T_f.

    Parameters
    ----------
    vocab_sizes : tuple of int
        Number of codes V_f of each field.
    dim : int
        Embedding width k.
    """

    vocab_sizes: tuple[int, ...]
    dim: int

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row of each field's table."""
        return tuple(accumulate(self.vocab_sizes, initial=0))[:-1]

    def field_rows(self, field: int) -> slice:
        """Rows of the table of one field."""
        return slice(self.offsets[field], self.offsets[field] + self.vocab_sizes[field])

    @property
    def n_rows(self) -> int:
        """Rows of all tables together."""
        return sum(self.vocab_sizes)

    @property
    def n_params(self) -> int:
        """Entries of the table."""
        return self.n_rows * self.dim

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw the table from N(0, 0.01^2)."""
        return {"table": rng.normal(0.0, EMBEDDING_STD, size=(self.n_rows, self.dim))}

    def forward(
        self, params: Tree, codes: Array, last: bool = False, keep: Array | None = None
    ) -> tuple[Array, EmbeddingCache]:
        """Look up and concatenate the embeddings of all fields (derivations 2.1a).

        ``last``: E may be stored batch last; it is where a kernel makes it.  ``keep``: mask of the
        dropout on E, none at inference (derivations 2.8e).

        Shapes
        ------
        codes : (B, F)
        keep : (B, F*k)
        E : (B, F*k)
        """
        xp = get_xp(codes=codes, table=params["table"])
        ids = codes + constant(xp, self.offsets)
        if last and kernels.fuses(params["table"], ids):
            E = kernels.lookup(params["table"], ids).T
        else:
            E = gather_rows(params["table"], ids).reshape(codes.shape[0], -1)
        if keep is not None:
            E = dropout(E, keep)
        return E, EmbeddingCache(ids, self.n_rows, keep)

    def backward(self, dE: Array, cache: EmbeddingCache) -> Tree:
        """Gradient as rows: the adjoint of a row is the sum over all places that read it.

        See derivations 2.1b.
        """
        if cache.keep is not None:
            dE = dropout_backward(dE, cache.keep)
        if is_on_host(dE) and is_batch_last(dE) and kernels.fuses(dE, cache.ids):
            ids, sums = kernels.lookup_rows_backward(dE.T, cache.ids)
            return {"table": RowGradient(ids, sums, cache.n_rows)}
        rows, read = dE.reshape(-1, self.dim), cache.ids.reshape(-1)
        if is_on_host(dE):
            ids, sums = kernels.sum_by_id(read, rows)
            return {"table": RowGradient(ids, sums, cache.n_rows)}
        return {"table": RowGradient(read, rows, cache.n_rows, is_summed=False)}

    def backward_dense(self, dE: Array, cache: EmbeddingCache) -> Tree:
        """Gradient as a whole table by scatter-add: ``dT[v] += dE[b, f]`` for every code v read.

        See derivations 2.1b.
        """
        xp = get_xp(dE=dE, ids=cache.ids)
        if cache.keep is not None:
            dE = dropout_backward(dE, cache.keep)
        d_table = xp.zeros((cache.n_rows, self.dim), dtype=dE.dtype)
        scatter_add_rows(d_table, cache.ids.reshape(-1), dE.reshape(-1, self.dim))
        return {"table": d_table}
