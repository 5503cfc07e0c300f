"""Adam and whole runs on the fake device: no host array meets a device array; Adam to the bit.

All of it twice: with operations on arrays, and with the CUDA kernels in their places.
"""

from dataclasses import replace

import numpy as np
import pytest
from cuda_shim import ShimModule, compiler
from fake_device import FakeArray, fake_xp, to_fake, unwrap, wrap
from toy import toy_dataset

from midpg_np import backend
from midpg_np.backend import to_numpy
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.models import make_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.flat_params import flat_views
from midpg_np.training.loop import fit
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_items

SCALES = np.array([1.0, 1.0, 1e-158])  # the last: second moments that are flushed at step 64


@pytest.fixture(params=["arrays", "kernels"])
def device(request, monkeypatch):
    """Teach the fake device what an optimiser needs beyond a model: writing in place."""
    has_kernels = request.param == "kernels"
    if has_kernels:
        if compiler() is None:
            pytest.skip("g++ is not installed")
        with_shim = replace(backend._BACKENDS[FakeArray], raw_module=ShimModule)
        monkeypatch.setitem(backend._BACKENDS, FakeArray, with_shim)
        monkeypatch.setattr(ShimModule, "launches", [])

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
    return has_kernels


def train(adam, params, move, n_steps=90, n_padding=0):
    """Take steps with gradients that come from one stream, each moved by ``move``."""
    rng = np.random.default_rng(5)
    state = adam.init(params)
    for _ in range(n_steps):
        ids = np.unique(rng.integers(0, 12, 2) ** 2 // 12)
        rows, dW = rng.normal(size=(ids.size, 3)) * SCALES, rng.normal(size=(2, 3)) * SCALES
        adam.prepare(params, state, {"table": ids})
        if n_padding:  # of segment_sum_padded
            ids = np.append(ids, np.full(n_padding, 12))
            rows = np.append(rows, np.zeros((n_padding, 3)), axis=0)
        gradient = RowGradient(move(ids), move(rows), 12)
        adam.update(params, {"table": gradient, "W": move(dW)}, state)
    adam.settle(params, state)
    return state


@pytest.mark.parametrize("table_mode", ["table", "rows", "replay"])
def test_the_device_gives_the_bits_of_the_host(device, table_mode):
    rng = np.random.default_rng(0)
    host = {"table": rng.normal(0, 0.01, (12, 3)), "W": rng.normal(size=(2, 3))}
    there = flat_views(to_fake(host))
    adam = Adam(table_mode=table_mode)
    s_host = train(adam, host, lambda array: array)
    s_there = train(adam, there, lambda array: FakeArray(array.copy()), n_padding=3 * device)
    assert s_there.vector is not None
    if device:
        table_step = "adam_table" if table_mode == "table" else "adam_rows"
        assert set(ShimModule.launches) == {"adam_tick", "adam_leaves", table_step}
    for path, leaf in tree_items(host):
        np.testing.assert_array_equal(to_numpy(dict(tree_items(there))[path]), leaf)
    restored = adam.restore(there, adam.state_arrays(s_there))
    stored, expected = adam.state_arrays(restored), adam.state_arrays(s_host)
    assert stored.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(stored[name], array)


@pytest.mark.parametrize("table_mode", ["table", "rows", "replay"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("star", {"aux_norm": True}),
        ("adasparse", {"schedule_steps": 20}),
        ("midpg", {"row_divisor": 4}),
    ],
)
def test_a_run_on_the_device_is_that_of_the_host(device, monkeypatch, kind, options, table_mode):
    """Batches, state without gradient and validations included; only losses are read on the way."""
    monkeypatch.setattr(backend, "_load_cupy", lambda: fake_xp)
    for name, read in (("__float__", float), ("__int__", int)):
        monkeypatch.setattr(FakeArray, name, lambda self, read=read: read(self._data))
    train, valid = toy_dataset(200), toy_dataset(80, 1)
    sizes = {"vocab_sizes": train.vocab_sizes, "n_aware": 1, "n_scenarios": 3}
    model = make_model(kind, **sizes, dim_embedding=4, hidden=(8,), **options)
    config = TrainConfig(
        epochs=2, batch_size=32, dtype="float64", loss_reduce="scenario_mean", table_mode=table_mode
    )
    host, other = (fit(model, train, valid, replace(config, device=d)) for d in ("cpu", "cuda"))
    want = dict(tree_items(host.params))
    for path, leaf in tree_items(other.params):
        np.testing.assert_allclose(leaf, want[path], rtol=1e-9, atol=1e-12, err_msg=path)
