"""Optimisers: Adam for dense parameters and for embedding tables, behind one small interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_on_host, to_numpy
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.adam_core import (
    BLOCK,
    FLUSH_EVERY,
    StepClock,
    StepSizes,
    accumulate,
    corrections,
    displace,
    flush,
)
from midpg_np.training.flat_params import common_vector, flat_views, is_table
from midpg_np.training.lr_schedule import LRSchedule
from midpg_np.training.missed_steps import MissedSteps, missed_steps
from midpg_np.training.row_adam import (
    catch_up,
    settle_table,
    update_rows,
    update_table,
)
from midpg_np.training.row_moments import TableMoments, beside_moments, table_moments, write_back
from midpg_np.tree import Tree, tree_flatten, tree_items, tree_set

EPS_MODES = ("corrected", "tf1")
TABLE_MODES = ("auto", "table", "rows", "replay")
# Where the two forms take the same time at 4,096 ids of width 16: on a CPU as measured; on a GPU,
# which passes over the table some 50 times as fast but waits for the host in the rows form, by
# that ratio.
AUTO_ROWS, AUTO_ROWS_GPU = 32_768, 1_500_000
_ALL_STEPS = 2**62


class Optimiser(Protocol):
    """What the training loop asks of an optimiser; write your own with these six methods.

    It may also have ``laid_out(params, fixed)``, which returns the same values where its steps find
    them soonest; without it dense leaves lie in one vector (``flat_views``).
    """

    def init(self, params: Tree, fixed: Collection[str] = ()) -> Any:
        """Return the state before the first step; leaves whose path is in ``fixed`` stay put."""

    def prepare(self, params: Tree, state: Any, rows: Mapping[str, Array]) -> None:
        """Make the rows of tables (by path) that the next forward reads up to date, in place."""

    def update(self, params: Tree, grads: Tree, state: Any) -> None:
        """Take one step: change the arrays of ``params`` and ``state`` in place."""

    def settle(self, params: Tree, state: Any) -> None:
        """Make every parameter up to date, in place: before evaluation or export."""

    def state_arrays(self, state: Any) -> dict[str, np.ndarray]:
        """Return the whole state as host arrays by name, for a checkpoint."""

    def restore(
        self, params: Tree, arrays: Mapping[str, np.ndarray], fixed: Collection[str] = ()
    ) -> Any:
        """Inverse of ``state_arrays``, on the device of ``params``."""


@dataclass
class AdamState:
    """Moments and the number of steps taken.

    The moments of all dense parameters are one flat vector each, so that a step is a handful of
    passes however many parameters there are; ``layout`` says which slice belongs to which path.
    ``gradient`` and ``scratch`` are room of the same size for a step to work in.  Where the leaves
    are views of one vector (``flat_params``) the step changes that ``vector``; ``leaves`` are those
    that were looked at.  On a GPU the ``clock`` counts the steps, too.
    """

    step: int
    m: Array
    v: Array
    layout: dict[str, slice]
    tables: dict[str, TableMoments]
    gradient: Array
    scratch: Array
    leaves: tuple[Array, ...] = ()
    vector: Array | None = None
    clock: StepClock | None = None


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015) with both places of epsilon and two exact forms for tables.

    Parameters
    ----------
    lr : float
        Learning rate.
    beta1, beta2 : float
        Decay of the moments; 0 <= beta1 <= beta2 < 1.
    eps : float
        Added to the root of the second moment; positive.
    eps_mode : str
        "corrected": after the bias correction (PyTorch, Keras); "tf1": before it (TensorFlow 1).
    table_mode : str
        "table": every row of a table moves at every step.  "rows": the same steps, added up for a
        row when it is next read; equal to rounding, and as fast for any number of rows.  "replay":
        the same, one by one; equal to the bit as long as weights move (see ``row_adam``).
        "auto": "table" for tables of up to 32,768 rows (on a GPU 1,500,000), else "rows".
        Tables are the leaves whose last key is "table"; their gradients are ``RowGradient``.
    schedule : LRSchedule or None
        Factors of ``lr`` by step; each form of the tables is as exact with it as without.

    Raises
    ------
    ValueError
        If a number is out of its range, or ``eps_mode`` or ``table_mode`` is no known name.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_mode: str = "corrected"
    table_mode: str = "table"
    schedule: LRSchedule | None = None

    def __post_init__(self) -> None:
        if not self.lr > 0.0:
            raise ValueError(f"lr must be positive; got {self.lr}.")
        if not 0.0 <= self.beta1 <= self.beta2 < 1.0:
            raise ValueError(
                f"Adam needs 0 <= beta1 <= beta2 < 1; got beta1 = {self.beta1}, "
                f"beta2 = {self.beta2}."
            )
        if not self.eps > 0.0:
            raise ValueError(f"eps must be positive; got {self.eps}.")
        if self.eps_mode not in EPS_MODES:
            raise ValueError(f"eps_mode must be one of {EPS_MODES}; got {self.eps_mode!r}.")
        if self.table_mode not in TABLE_MODES:
            raise ValueError(f"table_mode must be one of {TABLE_MODES}; got {self.table_mode!r}.")

    def laid_out(self, params: Tree, fixed: Collection[str] = ()) -> Tree:
        """Return the same values where a step finds them soonest; ``init`` takes any, too.

        Dense leaves lie in one vector (``flat_views``), and on a CPU the rows of a table that wait
        beside their moments.
        """
        params = flat_views(params, fixed)
        for path, leaf in tree_items(params):
            if is_table(path) and path not in fixed and is_on_host(leaf) and self._waits(leaf):
                params = tree_set(params, path, beside_moments(leaf))
        return params

    def init(self, params: Tree, fixed: Collection[str] = ()) -> AdamState:
        """Return zero moments for every leaf of ``params`` whose path is not in ``fixed``.

        Raises
        ------
        ValueError
            If the leaves do not share one floating dtype.
        """
        leaves = {path: leaf for path, leaf in tree_items(params) if path not in fixed}
        dtypes = {np.dtype(leaf.dtype) for leaf in leaves.values()}
        if len(dtypes) != 1 or any(dtype.kind != "f" for dtype in dtypes):
            raise ValueError(
                f"trained parameters must share one floating dtype; got {sorted(map(str, dtypes))}."
            )
        xp, dtype = get_xp(**{"params": next(iter(leaves.values()))}), dtypes.pop()
        layout, tables, end = {}, {}, 0
        for path, leaf in leaves.items():
            if is_table(path):
                tables[path] = table_moments(leaf, self._waits(leaf))
            else:
                layout[path] = slice(end, end + leaf.size)
                end += leaf.size
        m, v, gradient, scratch = (xp.zeros(end, dtype=dtype) for _ in range(4))
        state = AdamState(0, m, v, layout, tables, gradient, scratch)
        if not is_on_host(m) and kernels.fuses(m):
            state.clock = StepClock.beside(m, *self._corrections(_ALL_STEPS))
        return state

    def _corrections(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        settings = self.lr, self.beta1, self.beta2, self.eps, self.eps_mode
        return corrections(*settings, step, self.schedule)

    def _sizes(self, step: int) -> StepSizes:
        sizes = self._corrections(step)
        return StepSizes(self.beta1, self.beta2, *sizes, schedule=self.schedule)

    def _waits(self, table: Array) -> bool:
        if self.table_mode != "auto":
            return self.table_mode != "table"
        return bool(table.shape[0] > (AUTO_ROWS if get_xp(table) is np else AUTO_ROWS_GPU))

    def _missed(self, dtype: Any) -> tuple[MissedSteps, ...]:
        if self.table_mode == "replay":
            return ()
        settings = self.lr, self.beta1, self.beta2, self.eps, self.eps_mode
        return missed_steps(*settings, np.dtype(dtype), self.schedule)

    def prepare(self, params: Tree, state: AdamState, rows: Mapping[str, Array]) -> None:
        """Make up for the missed steps of rows about to be read; nothing to do in the table form.

        Parameters
        ----------
        params, state
            Changed in place.
        rows : mapping of path to array of row numbers, any shape, on the host or the device
            A table that is not named here is brought up to date as a whole.
        """
        waiting = {path: x for path, x in state.tables.items() if x.last is not None}
        if not waiting or state.step == 0:
            return
        leaves, sizes = tree_flatten(params), self._sizes(state.step)
        for path, moments in waiting.items():
            missed = self._missed(moments.m.dtype)
            if path in rows:
                catch_up(leaves[path], moments, rows[path], sizes, missed, state.step)
            else:
                settle_table(leaves[path], moments, sizes, missed, state.step)

    def settle(self, params: Tree, state: AdamState) -> None:
        """Bring every row of every table up to date, in place."""
        self.prepare(params, state, {})

    def update(self, params: Tree, grads: Tree, state: AdamState) -> None:
        """Take one step; the arrays of ``params`` and ``state`` change in place.

        Parameters
        ----------
        grads : tree of arrays or ``RowGradient``
            One leaf for every parameter that is not fixed.

        Raises
        ------
        ValueError
            If a parameter has no gradient.
        """
        leaves, gradients = tree_flatten(params), tree_flatten(grads)
        for path in (*state.layout, *state.tables):
            if path not in gradients:
                raise ValueError(
                    f"parameter {path} has no gradient; the model's backward lacks it."
                )
        state.step += 1
        sizes = self._sizes(state.step)
        if state.clock is not None:
            sizes = replace(sizes, on_device=state.clock.tick())
        if state.layout:
            self._update_dense(leaves, gradients, state, sizes)
        for path, moments in state.tables.items():
            table, gradient = leaves[path], gradients[path]
            if moments.last is not None:
                update_rows(table, moments, _as_rows(gradient, path).summed(), sizes, state.step)
            else:
                update_table(table, moments, gradient, sizes, state.step)

    def _update_dense(
        self,
        leaves: dict[str, Array],
        gradients: dict[str, Any],
        state: AdamState,
        sizes: StepSizes,
    ) -> None:
        xp, u = get_xp(m=state.m), state.gradient
        pieces = [_as_array(gradients[path]) for path in state.layout]
        mine = tuple(leaves[path] for path in state.layout)
        if len(mine) != len(state.leaves) or any(
            a is not b for a, b in zip(mine, state.leaves, strict=True)
        ):
            state.leaves, state.vector = mine, common_vector(mine)
        if state.vector is not None and kernels.fuses(state.vector, *pieces):
            now = self.beta1, self.beta2, sizes.now(state.step)
            kernels.adam_leaves(state.vector, state.m, state.v, *now, *pieces)
            return
        xp.concatenate([piece.reshape(-1) for piece in pieces], out=u)
        a, e = sizes.at(state.step)
        size = BLOCK if xp is np else max(u.size, 1)
        for start in range(0, u.size, size):
            block = slice(start, start + size)
            m, v, g = state.m[block], state.v[block], u[block]
            m *= self.beta1
            v *= self.beta2
            accumulate(m, v, g, sizes, state.scratch[block])
            displace(m, v, a, e, g)  # g becomes the displacement
            if state.vector is not None:
                state.vector[block] -= g
            if state.step % FLUSH_EVERY == 0:
                flush(m, v)
        if state.vector is None:
            for leaf, part in zip(mine, state.layout.values(), strict=True):
                leaf -= u[part].reshape(leaf.shape)

    def can_be_captured(self, state: AdamState) -> bool:
        """Whether ``update`` asks the host for nothing, and counts on the device."""
        waits = any(moments.last is not None for moments in state.tables.values())
        return state.clock is not None and not waits

    def state_arrays(self, state: AdamState) -> dict[str, np.ndarray]:
        """Return step and moments: "step", "m.PATH", "v.PATH" and, by row, "last.PATH".

        Rows that wait are saved as they wait: saving changes nothing.
        """
        arrays = {"step": np.asarray(state.step, dtype=np.int64)}
        m, v = to_numpy(state.m), to_numpy(state.v)
        for path, part in state.layout.items():
            arrays[f"m.{path}"], arrays[f"v.{path}"] = m[part], v[part]
        for path, moments in state.tables.items():
            write_back(moments)
            arrays[f"m.{path}"], arrays[f"v.{path}"] = to_numpy(moments.m), to_numpy(moments.v)
            if moments.last is not None:
                arrays[f"last.{path}"] = moments.last
        return arrays

    def restore(
        self, params: Tree, arrays: Mapping[str, np.ndarray], fixed: Collection[str] = ()
    ) -> AdamState:
        """Return the state that ``state_arrays`` described.

        Raises
        ------
        ValueError
            If a moment is missing or has another size than its parameter.
        """
        state = self.init(params, fixed)
        state.step = int(_find(arrays, "step", 1)[()])
        if state.clock is not None:
            state.clock.step[...] = state.step
        for path, part in state.layout.items():
            size = part.stop - part.start
            for name, flat in (("m", state.m), ("v", state.v)):
                stored = _find(arrays, f"{name}.{path}", size).reshape(-1)
                flat[part] = get_xp(flat).asarray(stored)
        for path, moments in state.tables.items():
            for name, table in (("m", moments.m), ("v", moments.v)):
                table[...] = get_xp(table).asarray(_find(arrays, f"{name}.{path}", table.size))
            if moments.last is not None:
                moments.last[...] = _find(arrays, f"last.{path}", moments.last.size)
        return state


def _as_array(gradient: Array | RowGradient) -> Array:
    return gradient.dense() if isinstance(gradient, RowGradient) else gradient


def _as_rows(gradient: Array | RowGradient, path: str) -> RowGradient:
    if isinstance(gradient, RowGradient):
        return gradient
    raise ValueError(
        f"deferred rows need a RowGradient for {path}; got a whole table. "
        "Return Embedding.backward, not backward_dense, or use table_mode 'table'."
    )


def _find(arrays: Mapping[str, np.ndarray], name: str, size: int) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"optimiser state lacks {name!r}; it was saved with other settings.")
    if arrays[name].size != size:
        raise ValueError(
            f"optimiser state {name!r} has {arrays[name].size} entries; the parameter has {size}."
        )
    return arrays[name]
