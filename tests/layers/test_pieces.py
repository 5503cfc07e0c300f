"""The forms that work in pieces of the cache's size give the same with pieces of any size."""

import numpy as np
import pytest
from small import SMALL_MODELS, assert_close, named_model, partners, small_batch
from strategies import generator

from midpg_np import workspace
from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.layers.core import CORES
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.repeat import REPEAT_MODES
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.step import training_step
from midpg_np.tree import tree_flatten
from midpg_np.workspace import groups_at_once, slices

SIZES = [1, 700, 2000]  # bytes: one group at a time; pieces with a rest; almost everything


def numbered(arrays):
    return {str(i): array for i, array in enumerate(arrays)}


def test_groups_at_once(monkeypatch):
    monkeypatch.setattr(workspace, "CACHE_BYTES", 1000)
    assert [groups_at_once(np, 8, size) for size in (1, 300, 2000)] == [8, 3, 1]
    assert groups_at_once("another device", 8, 2000) == 8
    assert slices(8, 3) == [slice(0, 3), slice(3, 6), slice(6, 8)]


@pytest.mark.parametrize("n_bytes", SIZES)
@pytest.mark.parametrize("form", ["row", "column"])
@pytest.mark.parametrize("mode", REPEAT_MODES)
def test_the_modulated_product(n_bytes, form, mode, monkeypatch):
    rng = generator(1)
    H, W, Q = rng.normal(size=(7, 10)), rng.normal(size=(10, 8)), rng.random((7, 5, 4))
    dA = rng.normal(size=(7, 8))
    want, cache = FORMS["textbook"].forward(H, W, Q, mode)
    want_adjoints = FORMS["textbook"].backward(dA, cache)
    monkeypatch.setattr(workspace, "CACHE_BYTES", n_bytes)
    got, cache = FORMS[form].forward(H, W, Q, mode)
    assert_close({"A": got}, {"A": want})
    assert_close(numbered(FORMS[form].backward(dA, cache)), numbered(want_adjoints))


@pytest.mark.parametrize("n_bytes", SIZES)
@pytest.mark.parametrize("sigmoid_on", CORES)
@pytest.mark.parametrize("shared", ["R", "C", None])
def test_the_core(n_bytes, sigmoid_on, shared, monkeypatch):
    """Against the whole at once; ``tests/layers/test_dwm.py`` ties that to the formula."""
    rng = generator(2)
    R, C = rng.normal(size=(7, 5, 2)), rng.normal(size=(7, 2, 4))
    R, C = (R[0] if shared == "R" else R), (C[0] if shared == "C" else C)
    dQ, dQ_other = rng.normal(size=(2, 7, 5, 4))
    want, cache = CORES[sigmoid_on].forward(R, C, 1.5)
    want_adjoints = CORES[sigmoid_on].backward(dQ + dQ_other, cache)
    monkeypatch.setattr(workspace, "CACHE_BYTES", n_bytes)
    got, cache = CORES[sigmoid_on].forward(R, C, 1.5)
    assert_close({"Q": got}, {"Q": want})
    assert_close(numbered(CORES[sigmoid_on].backward(dQ, cache, dQ_other)), numbered(want_adjoints))


@pytest.mark.parametrize("name", [name for name in SMALL_MODELS if "dpg" in name])
def test_whole_models(name, monkeypatch):
    model, rng = named_model(name), generator(3)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    draws = {"partner": partners(rng, batch.n_rows)}
    want = training_step(model, CROSS_ENTROPIES["full"], params, batch, draws)
    monkeypatch.setattr(workspace, "CACHE_BYTES", 100)
    got = training_step(model, CROSS_ENTROPIES["full"], params, batch, draws)
    assert_close(got.losses, want.losses)
    got, want = dense_gradients(got.grads), dense_gradients(want.grads)
    assert_close(tree_flatten(got), tree_flatten(want))
