"""Batches sent ahead are those of the CPU, in the same order, and no stream reads them too early.

``SimulatedCuda`` stands for CUDA's streams and events: work given to a stream is done later, in an
order that is as bad as the events allow.
"""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from fake_device import FakeArray, fake_xp, to_fake
from small import WIDTHS, named_model, small_batch
from strategies import generator

from midpg_np import backend
from midpg_np.backend import to_numpy
from midpg_np.data.batches import Dataset, iterate_batches
from midpg_np.training.prefetch import MAX_IN_FLIGHT, prepared_batches
from midpg_np.training.step import host_numbers


def small_dataset(n_rows=40):
    model, batch = named_model("midpg"), small_batch(generator(1), n_rows=n_rows)
    names = tuple("abc"), tuple("wxyz")
    return model, Dataset(*batch, WIDTHS["vocab_sizes"], 2, 4, *names)


def items(device, rng):
    model, dataset = small_dataset()
    order = iterate_batches(len(dataset), 9, generator(2))
    return prepared_batches(model, dataset, order, rng, "float32", device)


def host_copy(item):
    """Everything a step reads, on the host."""
    arrays = [*item.batch, *item.draws.values()]
    return [np.array(to_numpy(x)) for x in arrays], item.draws_after


class Event:
    def __init__(self, cuda):
        self.cuda, self.done = cuda, False

    def synchronize(self):
        self.cuda.n_waits += 1
        while not self.done:
            self.cuda.work(1)


class Stream:
    def __init__(self, cuda, non_blocking=False):
        assert non_blocking or not cuda.streams, "a second stream must not wait for the first"
        self.cuda, self.queue = cuda, deque()
        cuda.streams.append(self)

    def record(self):
        event = Event(self.cuda)
        self.queue.append(lambda: setattr(event, "done", True))
        return event

    def wait_event(self, event):
        self.queue.append(event)

    def do_one(self):
        """Do the first thing in the queue, if it may be done; say whether."""
        if not self.queue or (isinstance(self.queue[0], Event) and not self.queue[0].done):
            return False
        thing = self.queue.popleft()
        if not isinstance(thing, Event):
            thing()
        return True


class SimulatedCuda:
    """Streams that work when told to; the one at index ``eager`` goes first."""

    def __init__(self, eager):
        self.streams, self.eager, self.n_waits = [], eager, 0
        self.main = Stream(self)
        self.Stream = lambda non_blocking: Stream(self, non_blocking)
        self.memory = []

    def get_current_stream(self):
        return self.main

    def alloc_pinned_memory(self, n_bytes):
        self.memory.append(bytearray(n_bytes))
        return self.memory[-1]

    def work(self, n):
        for _ in range(n):
            order = [self.streams[self.eager], *self.streams]
            if not any(stream.do_one() for stream in order):
                return


@pytest.fixture(params=[0, 1], ids=["the work first", "the copies first"])
def cuda(request, monkeypatch):
    simulated = SimulatedCuda(request.param)
    xp = SimpleNamespace(**vars(fake_xp), cuda=simulated)
    monkeypatch.setattr(backend, "_load_cupy", lambda: xp)

    def set_later(self, array, stream):
        assert array.base is not None and stream is not simulated.main
        stream.queue.append(lambda: self._data.__setitem__(slice(None), array))

    monkeypatch.setattr(FakeArray, "set", set_later, raising=False)
    return simulated


def test_the_cpu_draws_as_it_goes():
    """Each item is what the model draws for it, and the caller's stream is not touched."""
    model, dataset = small_dataset()
    rng, own = generator(3), generator(3)
    for rows, item in zip(
        iterate_batches(len(dataset), 9, generator(2)), items("cpu", rng), strict=True
    ):
        want = model.draw(own, item.host)
        np.testing.assert_array_equal(item.draws["partner"], want["partner"])
        np.testing.assert_array_equal(item.host.codes, dataset.codes[rows])
        assert item.batch.codes is item.host.codes and item.host.label.dtype == np.float32
        assert item.draws_after == own.bit_generator.state
    assert rng.bit_generator.state == generator(3).bit_generator.state


def test_a_device_without_streams_gets_plain_copies(monkeypatch):
    monkeypatch.setattr(backend, "_load_cupy", lambda: fake_xp)
    got, want = ([host_copy(i) for i in items(d, generator(3))] for d in ("cuda", "cpu"))
    np.testing.assert_equal(got, want)


def test_copies_and_work_keep_their_order(cuda):
    """Each step reads its own batch, however far the other stream lags behind or runs ahead."""
    want = [host_copy(item) for item in items("cpu", generator(3))]
    got, n_ahead = [], []
    for item in items("cuda", generator(3)):
        cuda.main.queue.append(lambda item=item: got.append(host_copy(item)))
        n_ahead.append(len(cuda.memory) - len(n_ahead))
        cuda.work(1)
    cuda.work(1000)
    assert not any(stream.queue for stream in cuda.streams)
    np.testing.assert_equal(got, want)
    assert n_ahead == [2] * (len(want) - 1) + [1], "each batch is sent one step early"


def test_a_copy_waits_for_the_work_before_it(cuda, monkeypatch):
    """Memory that the host gives back is used anew at once, though a step may yet read it."""
    want = [host_copy(item) for item in items("cpu", generator(3))]
    free, used_anew, got, previous = [], [], [], None

    def empty(shape, dtype):
        fits = [memory for memory in free if memory.shape == shape]
        used_anew.append(bool(fits))
        return FakeArray(fits[0] if fits else np.empty(shape, dtype))

    monkeypatch.setattr(backend._load_cupy(), "empty", empty)
    for item in items("cuda", generator(3)):
        cuda.main.queue.append(lambda item=item: got.append(host_copy(item)))
        free[:] = [] if previous is None else [previous]
        previous = item.batch.codes._data.base
        assert previous.dtype == np.uint8
    cuda.work(1000)
    assert sum(used_anew) >= 2
    np.testing.assert_equal(got, want)


def test_the_host_runs_ahead_by_a_few_steps_only(cuda):
    """Without a device that works, the host stops at the fifth copy and waits for the first."""
    taken = items("cuda", generator(3))
    for _ in range(MAX_IN_FLIGHT - 1):
        next(taken)
    assert cuda.n_waits == 0
    next(taken)
    assert cuda.n_waits == 1


def test_losses_come_home_in_one_transfer(monkeypatch):
    calls = []
    plain = fake_xp.stack
    monkeypatch.setattr(fake_xp, "stack", lambda parts: calls.append(len(parts)) or plain(parts))
    steps = [{"loss": 0.25, "ce": np.float32(0.1)}, {"loss": 0.5, "ce": np.float32(3.0)}]
    on_device = [{k: to_fake(np.float32(v)) for k, v in step.items()} for step in steps]
    want = [{"loss": 0.25, "ce": float(np.float32(0.1))}, {"loss": 0.5, "ce": 3.0}]
    assert host_numbers(on_device) == host_numbers(steps) == want
    assert calls == [4]
    mixed = [{"loss": to_fake(np.float32(2.0)), "mi": 0.0}]
    assert host_numbers(mixed) == [{"loss": 2.0, "mi": 0.0}]
