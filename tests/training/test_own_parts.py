"""What users may bring: an optimiser of their own, and models with buffers."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from toy import toy_dataset

from midpg_np.models.adasparse import AdaSparse
from midpg_np.models.dnn import DNN
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit
from midpg_np.training.optim import RowGradient
from midpg_np.tree import tree_flatten, tree_items

CONFIG = TrainConfig(epochs=2, batch_size=32)


@dataclass(frozen=True)
class GradientDescent:
    """The smallest optimiser that the loop accepts."""

    lr: float

    def init(self, params, fixed=()):
        return {"step": np.zeros((), np.int64)}

    def prepare(self, params, state, rows):
        pass

    def update(self, params, grads, state):
        leaves = tree_flatten(params)
        for path, gradient in tree_items(grads):
            if isinstance(gradient, RowGradient):
                gradient = gradient.dense()
            leaves[path] -= self.lr * gradient
        state["step"] += 1

    def settle(self, params, state):
        pass

    def state_arrays(self, state):
        return state

    def restore(self, params, arrays, fixed=()):
        return dict(arrays)


def test_an_optimiser_of_ones_own_trains_and_resumes(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    model, sgd = DNN(train.vocab_sizes, 1, 3, hidden=(8,)), GradientDescent(0.1)
    straight = fit(model, train, valid, CONFIG, optimiser=sgd)
    once = TrainConfig(epochs=1, batch_size=32)
    fit(model, train, valid, once, optimiser=sgd, run_dir=tmp_path)
    resumed = fit(model, train, valid, CONFIG, optimiser=sgd, run_dir=tmp_path, resume=True)
    assert straight.history[-1]["train_loss"] < straight.history[0]["train_loss"]
    for path, leaf in tree_items(straight.params):
        np.testing.assert_array_equal(tree_flatten(resumed.params)[path], leaf)


@dataclass(frozen=True)
class Counting(DNN):
    """Keeps the mean of its inputs in a buffer, as batch normalisation does."""

    buffers = ("moving.mean",)

    def init(self, rng):
        return super().init(rng) | {"moving": {"mean": np.zeros(1)}}

    def advance(self, params, cache):
        mean = params["moving"]["mean"]
        new = mean + np.float32(0.1) * (cache.network.X.mean() - mean)
        return params | {"moving": {"mean": new}}


def test_buffers_are_advanced_saved_and_resumed(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    model = Counting(train.vocab_sizes, 1, 3, hidden=(8,))
    straight = fit(model, train, valid, CONFIG)
    once = TrainConfig(epochs=1, batch_size=32)
    fit(model, train, valid, once, run_dir=tmp_path)
    resumed = fit(model, train, valid, CONFIG, run_dir=tmp_path, resume=True)
    mean = straight.params["moving"]["mean"]
    assert mean.dtype == np.float32 and mean[0] != 0.0
    np.testing.assert_array_equal(resumed.params["moving"]["mean"], mean)


@pytest.mark.parametrize("table_mode", ["table", "rows"])
def test_a_schedule_counts_every_step_once(tmp_path, table_mode):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    model = AdaSparse(train.vocab_sizes, 1, 3, hidden=(8,), schedule_steps=15)
    config = replace(CONFIG, table_mode=table_mode)
    straight = fit(model, train, None, config)
    step = straight.params["schedule"]["step"]
    assert step.tolist() == [straight.n_steps] and step.dtype == np.float32
    best = fit(model, train, valid, config)
    assert best.params["schedule"]["step"].tolist() == [best.best_step]
    fit(model, train, None, replace(config, epochs=1), run_dir=tmp_path)
    resumed = fit(model, train, None, config, run_dir=tmp_path, resume=True)
    assert resumed.params["schedule"]["step"].tolist() == [straight.n_steps]
