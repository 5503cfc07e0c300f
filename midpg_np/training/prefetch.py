"""Batches on their way to the device: the next one travels while the device works on this one."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, Namespace, device_namespace, to_device
from midpg_np.batch import Batch
from midpg_np.data.batches import Dataset
from midpg_np.models.protocol import Draws
from midpg_np.training.packed import (
    Layout,
    batch_and_draws,
    layout_of,
    named_arrays,
    pack,
    unpack,
)
from midpg_np.training.step import host_batch

# Copies whose memory on the host is kept; the host waits for the device before it takes more.
MAX_IN_FLIGHT = 4

Wait = Callable[[], None]


class Prepared(NamedTuple):
    """What a step reads.

    Parameters
    ----------
    host : Batch
        The batch on the host, labels in the dtype of the parameters.
    batch, draws : Batch, Draws
        The same and the model's random numbers, on the device.
    packed : (n,) array of bytes and its layout, or None
        The memory that holds both, if they came in one piece.
    draws_after : dict
        State of the stream of random numbers after this step's were drawn.
    """

    host: Batch
    batch: Batch
    draws: Draws
    packed: tuple[Array, Layout] | None
    draws_after: dict[str, Any]


def prepared_batches(
    model: Any,
    dataset: Dataset,
    batches: Iterable[np.ndarray],
    rng: np.random.Generator,
    dtype: str,
    device: str,
    more_draws: Callable[[int, int], Draws] | None = None,
) -> Iterator[Prepared]:
    """Yield each batch with its draws, on the device; on a GPU each is sent one step early.

    ``rng`` itself stays as it is, because a checkpoint must not hold a stream that has run ahead:
    whoever takes a step sets it to ``draws_after``.

    Parameters
    ----------
    model : Model
        Its ``draw`` is called once per batch, in order.
    batches : iterable of (B,) arrays
        Positions of the rows of each batch.
    more_draws : callable, optional
        ``more_draws(i, B)``: what the i-th of these batches needs besides, i = 0, 1, ...
    """
    stream = copy.deepcopy(rng)
    send = _sender(device)
    waiting: tuple[Prepared, Wait] | None = None
    for i, rows in enumerate(batches):
        host = host_batch(dataset.batch(rows), dtype)
        draws = dict(model.draw(stream, host))
        if more_draws is not None:
            draws |= more_draws(i, host.n_rows)
        after = dict(stream.bit_generator.state)
        in_dtype = {name: _in_dtype(x, dtype) for name, x in draws.items()}
        moved, packed, wait = send(named_arrays(host, in_dtype))
        here = Prepared(host, *batch_and_draws(moved), packed, after)
        if device == "cpu":
            yield here
            continue
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = here, wait
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(item: Prepared, wait: Wait) -> Prepared:
    wait()
    return item


def _in_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    return x.astype(dtype) if x.dtype.kind == "f" else x


Sent = tuple[dict[str, Array], tuple[Array, Layout] | None, Wait]
Sender = Callable[[dict[str, np.ndarray]], Sent]


def _sender(device: str) -> Sender:
    xp = device_namespace(device)
    if hasattr(xp, "cuda"):
        return StreamSender(xp).send
    return lambda arrays: ({n: to_device(x, device) for n, x in arrays.items()}, None, lambda: None)


@dataclass
class StreamSender:
    """Copies from page-locked memory on a stream of its own, beside the work of the device.

    Three orders must hold, and the host waits for none of them:

    - the copy starts after all work given so far, which may still use the memory it writes to
      (CuPy hands out freed memory at once, for the stream that used it);
    - the step that reads starts after the copy (``wait``);
    - the page-locked memory lives until the copy is done (``in_flight``).
    """

    xp: Namespace
    stream: Any = None
    in_flight: deque[tuple[Any, np.ndarray]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.stream = self.xp.cuda.Stream(non_blocking=True)

    def send(self, arrays: dict[str, np.ndarray]) -> Sent:
        """Return the arrays on the device, their memory, and what to call before they are read."""
        self._forget()
        places, n_bytes = layout_of(arrays)
        cuda = self.xp.cuda
        packed = np.frombuffer(cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)
        pack(arrays, places, packed)
        buffer = self.xp.empty((n_bytes,), dtype=np.uint8)
        self.stream.wait_event(cuda.get_current_stream().record())
        buffer.set(packed, stream=self.stream)
        done = self.stream.record()
        self.in_flight.append((done, packed))
        wait = partial(_wait_for, cuda, done)
        return unpack(buffer, places), (buffer, places), wait

    def _forget(self) -> None:
        while self.in_flight and self.in_flight[0][0].done:
            self.in_flight.popleft()
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            self.in_flight.popleft()[0].synchronize()


def _wait_for(cuda: Any, event: Any) -> None:
    cuda.get_current_stream().wait_event(event)
