"""Training steps on a GPU as launches of one CUDA graph.

At batch 512 the kernels of a step take less time than the host needs to start them one by one.  A
graph records them once and is started as one, over and over: the same kernels, on the same memory.
So what differs from step to step lies in the same places: the batch is copied into memory that the
graph reads, and the optimiser's counter is on the device (docs/decisions/0010-cuda-graph.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from midpg_np.backend import Array, Namespace, device_namespace
from midpg_np.batch import Batch
from midpg_np.models.protocol import Draws
from midpg_np.training.packed import Layout, batch_and_draws, unpack
from midpg_np.tree import Tree, tree_flatten

# Steps taken as they are before one is recorded: kernels are compiled, libraries find their
# memory, and the pool holds what a step needs.  None of it may happen while a graph is recorded.
N_PLAIN_STEPS = 2

Step = Callable[[Batch, Draws], Any]


@dataclass
class CapturedStep:
    """Takes steps of one layout of the batch; the stream that is current must not be the default.

    Parameters
    ----------
    step : callable
        ``step(batch, draws)`` gives work to the device and reads none of its values.  Its result
        may hold arrays; after each step they hold that step's values.
    count : callable
        Called for every step that the graph takes: what ``step`` does on the host besides.
    """

    step: Step
    count: Callable[[], None]
    xp: Namespace = field(default_factory=lambda: device_namespace("cuda"))
    n_taken: int = 0
    layout: Layout | None = None

    def __post_init__(self) -> None:
        # Memory of its own: nobody else is given what the graph works on.
        self._pool = self.xp.cuda.MemoryPool()
        self._graph: Any = None
        self._input: Array = None
        self._result: Any = None

    def __call__(self, packed: Array, layout: Layout) -> Any:
        """Take a step with what lies in ``packed``; return its result.

        Steps of another layout than the first (the last, smaller batch) are taken as they are.
        """
        if self.layout is None:
            self.layout = layout
        if layout != self.layout:
            return self.step(*batch_and_draws(unpack(packed, layout)))
        self.n_taken += 1
        with self.xp.cuda.using_allocator(self._pool.malloc):
            if self.n_taken <= N_PLAIN_STEPS:
                return self.step(*batch_and_draws(unpack(packed, layout)))
            if self._graph is None:
                self._record(packed)
            else:
                self._input[...] = packed
                self.count()
        self._graph.launch(self.xp.cuda.get_current_stream())
        return self._result

    def _record(self, packed: Array) -> None:
        """Record a step on a copy of ``packed``; recording does not take it."""
        assert self.layout is not None
        self._input = packed.copy()
        inputs = batch_and_draws(unpack(self._input, self.layout))
        stream = self.xp.cuda.get_current_stream()
        stream.begin_capture()
        try:
            self._result = self.step(*inputs)
        finally:
            self._graph = stream.end_capture()


def advance_in_place(model: Any, params: Tree, cache: Any) -> None:
    """Move the buffers of a model that has any as its ``advance`` says, but where they lie.

    A graph goes on reading there.
    """
    if not hasattr(model, "advance"):
        return
    leaves, advanced = tree_flatten(params), tree_flatten(model.advance(params, cache))
    for path in model.buffers:
        leaves[path][...] = advanced[path]
