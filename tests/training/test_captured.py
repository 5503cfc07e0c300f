"""Steps recorded once and replayed: which are taken how, and that replays see new numbers.

``RecordingCuda`` stands for CUDA's capture: between its beginning and its end nothing is done but
written down, and a launch does what was written down, on the memory that it was written down with.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from fake_device import fake_xp, to_fake
from small import named_model, partners, small_batch
from strategies import generator

from midpg_np.backend import to_numpy
from midpg_np.models import MODELS, make_model
from midpg_np.training.captured import N_PLAIN_STEPS, CapturedStep, advance_in_place
from midpg_np.training.packed import batch_and_draws, layout_of, named_arrays, pack, unpack


class RecordingCuda:
    """One stream; ``do`` gives it work."""

    def __init__(self):
        self.recorded, self.pools, self.allocators, self.n_launches = None, 0, [], 0

    def do(self, work):
        work() if self.recorded is None else self.recorded.append(work)

    def MemoryPool(self):  # noqa: N802
        self.pools += 1
        return SimpleNamespace(malloc=f"pool {self.pools}")

    @contextmanager
    def using_allocator(self, malloc):
        self.allocators.append(malloc)
        yield

    def get_current_stream(self):
        return self

    def begin_capture(self):
        self.recorded = []

    def end_capture(self):
        works, self.recorded = self.recorded, None

        def launch(stream):
            assert stream is self
            self.n_launches += 1
            for work in works:
                work()

        return SimpleNamespace(launch=launch)


def packed(value, n_rows=4):
    """A batch whose codes are all ``value``, in one piece of the device's memory."""
    batch = small_batch(generator(1), n_rows=n_rows)._replace(codes=np.full((n_rows, 2), value))
    arrays = named_arrays(batch, {"partner": np.arange(n_rows)[::-1].copy()})
    places, n_bytes = layout_of(arrays)
    memory = np.zeros(n_bytes, np.uint8)
    pack(arrays, places, memory)
    return to_fake(memory), places


def test_steps_are_recorded_once_and_see_each_batch():
    cuda, counted, total, python_calls = RecordingCuda(), [], to_fake(np.zeros(2)), []

    def step(batch, draws):
        python_calls.append(batch.n_rows)
        result = to_fake(np.zeros(1))

        def work():
            total._data += (batch.codes._data.sum(), 1.0)
            result._data[...] = batch.codes._data[0, 0] + draws["partner"]._data[0]

        cuda.do(work)
        return result

    take = CapturedStep(step, lambda: counted.append(1), SimpleNamespace(cuda=cuda))
    seen = []
    for value in range(1, 7):
        seen.append(to_numpy(take(*packed(value))).item())
        if value == 4:  # a smaller batch comes between: taken as it is
            assert to_numpy(take(*packed(10, n_rows=3))).item() == 12
    assert seen == [value + 3 for value in range(1, 7)]
    np.testing.assert_array_equal(to_numpy(total), [2 * 4 * 21 + 2 * 3 * 10, 7])
    # Two steps as they are, one recorded, the rest are launches; a launch of the recorded one too.
    assert python_calls == [4] * (N_PLAIN_STEPS + 1) + [3]
    assert cuda.n_launches == 6 - N_PLAIN_STEPS and len(counted) == 6 - N_PLAIN_STEPS - 1
    assert set(cuda.allocators) == {"pool 1"}


def test_a_failure_while_recording_ends_the_recording():
    cuda = RecordingCuda()

    def step(batch, draws):
        if cuda.recorded is not None:
            raise ValueError("a value was read")

    take = CapturedStep(step, lambda: None, SimpleNamespace(cuda=cuda))
    for value in range(N_PLAIN_STEPS):
        take(*packed(value))
    with pytest.raises(ValueError, match="a value was read"):
        take(*packed(9))
    assert cuda.recorded is None


def test_packing_is_undone_by_unpacking():
    batch = small_batch(generator(2), n_rows=7, dtype=np.float32)
    draws = {"partner": partners(generator(3), 7), "noise": np.asfortranarray(np.eye(3))}
    arrays = named_arrays(batch, draws)
    places, n_bytes = layout_of(arrays)
    memory = np.zeros(n_bytes, np.uint8)
    pack(arrays, places, memory)
    got_batch, got_draws = batch_and_draws(unpack(memory, places))
    for got, want in zip(got_batch, batch, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    assert got_draws.keys() == draws.keys()
    for name, want in draws.items():
        np.testing.assert_array_equal(got_draws[name], want)


def test_an_array_of_constants_is_sent_once(monkeypatch):
    """Else every step would copy from the host, which a graph cannot hold."""
    sent = []
    plain = fake_xp.asarray
    monkeypatch.setattr(fake_xp, "asarray", lambda x, **k: sent.append(x) or plain(x, **k))
    model = make_model("dnn", vocab_sizes=(17, 19), n_aware=1, n_scenarios=2, hidden=(4,))
    params = to_fake(model.init(generator(1)))
    batch = small_batch(generator(2), n_rows=5)._replace(codes=np.ones((5, 2), int))
    for _ in range(3):
        model.forward(params, type(batch)(*map(to_fake, batch)))
    assert sent.count((0, 17)) == 1


def test_buffers_move_where_they_lie():
    model = named_model("adasparse")
    params = to_fake(model.init(generator(1)))
    counter = params["schedule"]["step"]
    for _ in range(3):
        advance_in_place(model, params, None)
    assert to_numpy(counter).tolist() == [3.0]
    assert params["schedule"]["step"] is counter


def test_which_models_give_the_device_the_same_work():
    fixed = {name for name in MODELS if getattr(named_model(name), "has_fixed_work", False)}
    assert fixed == set(MODELS)
    assert not named_model("ple own textbook").has_fixed_work
    for option in ({"form": "row"}, {"sigmoid_on": "factors"}, {"disc": "bilinear"}):
        sizes = {"vocab_sizes": (3, 3), "n_aware": 1, "n_scenarios": 2, "dim_embedding": 8}
        assert not make_model("midpg", **sizes, hidden=(8,), **option).has_fixed_work
