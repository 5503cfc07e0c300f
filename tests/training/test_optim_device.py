"""Adam and whole runs on the fake device: no host array meets a device array; Adam to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from fake_device import FakeArray, fake_xp, to_fake, unwrap, wrap
from toy import toy_dataset

from midpg_np import backend
from midpg_np.backend import to_numpy
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.models import make_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_items


@pytest.fixture
def device(monkeypatch):
    """Teach the fake device what an optimiser needs beyond a model: writing in place."""

    def in_place(name):
        def operate(self, other):
            getattr(self._data, name)(unwrap(other))
            return self

        return operate

    def walled(function):
        def call(*args, **kwargs):
            host = {name: unwrap(value) for name, value in kwargs.items()}
            return wrap(function(*unwrap(args), **host))

        return call

    for name in ("__iadd__", "__isub__", "__imul__", "__itruediv__"):
        monkeypatch.setattr(FakeArray, name, in_place(name), raising=False)
    for name in (
        "multiply",
        "divide",
        "subtract",
        "power",
        "abs",
        "zeros_like",
        "ascontiguousarray",
    ):
        monkeypatch.setattr(fake_xp, name, walled(getattr(np, name)), raising=False)
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(fake_xp, name, walled(getattr(np, name)), raising=False)


def train(adam, params, move, n_steps=90):
    """Take steps with gradients that come from one stream, each moved by ``move``."""
    rng = np.random.default_rng(5)
    state = adam.init(params)
    for _ in range(n_steps):
        ids = np.unique(rng.integers(0, 12, 2) ** 2 // 12)
        gradient = RowGradient(move(ids), move(rng.normal(size=(ids.size, 3))), 12)
        adam.prepare(params, state, {"table": ids})
        adam.update(params, {"table": gradient, "W": move(rng.normal(size=(2, 2)))}, state)
    adam.settle(params, state)
    return state


@pytest.mark.parametrize("table_mode", ["table", "rows", "replay"])
def test_the_device_gives_the_bits_of_the_host(device, table_mode):
    rng = np.random.default_rng(0)
    host = {"table": rng.normal(0, 0.01, (12, 3)), "W": rng.normal(size=(2, 2))}
    there = to_fake(host)
    adam = Adam(table_mode=table_mode)
    s_host = train(adam, host, lambda array: array)
    s_there = train(adam, there, lambda array: FakeArray(array.copy()))
    for path, leaf in tree_items(host):
        np.testing.assert_array_equal(to_numpy(dict(tree_items(there))[path]), leaf)
    restored = adam.restore(there, adam.state_arrays(s_there))
    stored, expected = adam.state_arrays(restored), adam.state_arrays(s_host)
    assert stored.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(stored[name], array)


@pytest.mark.parametrize("table_mode", ["table", "rows", "replay"])
@pytest.mark.parametrize(
    ("kind", "options"), [("star", {"aux_norm": True}), ("adasparse", {"schedule_steps": 20})]
)
def test_a_run_on_the_device_is_that_of_the_host(device, monkeypatch, kind, options, table_mode):
    """Batches, state without gradient and validations included; only losses are read on the way."""
    monkeypatch.setattr(backend, "_load_cupy", lambda: fake_xp)
    for name, read in (("__float__", float), ("__int__", int)):
        monkeypatch.setattr(FakeArray, name, lambda self, read=read: read(self._data))
    train, valid = toy_dataset(200), toy_dataset(80, 1)
    model = make_model(
        kind, vocab_sizes=train.vocab_sizes, n_aware=1, n_scenarios=3, hidden=(8,), **options
    )
    config = TrainConfig(
        epochs=2, batch_size=32, dtype="float64", loss_reduce="scenario_mean", table_mode=table_mode
    )
    host, other = (fit(model, train, valid, replace(config, device=d)) for d in ("cpu", "cuda"))
    want = dict(tree_items(host.params))
    for path, leaf in tree_items(other.params):
        np.testing.assert_allclose(leaf, want[path], rtol=1e-9, atol=1e-12, err_msg=path)
