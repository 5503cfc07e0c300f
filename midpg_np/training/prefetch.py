"""Batches on their way to the device: the next one travels while the device works on this one."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, Namespace, device_namespace, to_device
from midpg_np.batch import Batch
from midpg_np.data.batches import Dataset
from midpg_np.models.protocol import Draws
from midpg_np.training.step import host_batch

ALIGNMENT = 256  # bytes; that of CUDA's allocations
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
    draws_after : dict
        State of the stream of random numbers after this step's were drawn.
    """

    host: Batch
    batch: Batch
    draws: Draws
    draws_after: dict[str, Any]


def prepared_batches(
    model: Any,
    dataset: Dataset,
    batches: Iterable[np.ndarray],
    rng: np.random.Generator,
    dtype: str,
    device: str,
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
    """
    stream = copy.deepcopy(rng)
    send = _sender(device)
    waiting: tuple[Prepared, Wait] | None = None
    for rows in batches:
        host = host_batch(dataset.batch(rows), dtype)
        draws = model.draw(stream, host)
        after = dict(stream.bit_generator.state)
        arrays = {f"batch {name}": x for name, x in host._asdict().items()}
        arrays |= {f"draw {name}": _in_dtype(x, dtype) for name, x in draws.items()}
        moved, wait = send(arrays)
        batch = Batch(*(moved[f"batch {name}"] for name in host._fields))
        here = Prepared(host, batch, {name: moved[f"draw {name}"] for name in draws}, after)
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


Sender = Callable[[dict[str, np.ndarray]], tuple[dict[str, Array], Wait]]


def _sender(device: str) -> Sender:
    xp = device_namespace(device)
    if hasattr(xp, "cuda"):
        return StreamSender(xp).send
    return lambda arrays: ({n: to_device(x, device) for n, x in arrays.items()}, lambda: None)


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

    def send(self, arrays: dict[str, np.ndarray]) -> tuple[dict[str, Array], Wait]:
        """Return the arrays on the device and what to call before the work that reads them."""
        self._forget()
        places, n_bytes = {}, 0
        for name, x in arrays.items():
            places[name] = slice(n_bytes, n_bytes + x.nbytes)
            n_bytes += -(-x.nbytes // ALIGNMENT) * ALIGNMENT
        cuda = self.xp.cuda
        packed = np.frombuffer(cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)
        for name, x in arrays.items():
            packed[places[name]] = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        buffer = self.xp.empty((n_bytes,), dtype=np.uint8)
        self.stream.wait_event(cuda.get_current_stream().record())
        buffer.set(packed, stream=self.stream)
        done = self.stream.record()
        self.in_flight.append((done, packed))
        moved = {
            name: buffer[places[name]].view(x.dtype).reshape(x.shape) for name, x in arrays.items()
        }
        return moved, lambda: cuda.get_current_stream().wait_event(done)

    def _forget(self) -> None:
        while self.in_flight and self.in_flight[0][0].done:
            self.in_flight.popleft()
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            self.in_flight.popleft()[0].synchronize()
