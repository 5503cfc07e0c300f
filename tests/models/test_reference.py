"""Every model agrees with its PyTorch version in values, intermediates, gradients and steps.

The reference (``tests/torch_reference``, one file per model) is written from docs/derivations, in
its most literal form, and differentiated by autograd.
"""

from dataclasses import asdict
from functools import cache
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from small import SMALL_MODELS, named_model, small_model
from strategies import models, seeds
from systems import SYSTEMS

from midpg_np.models import MODELS
from midpg_np.training.checkpoint import load_model, save_model
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_flatten

torch = pytest.importorskip("torch", reason="the independent reference needs PyTorch")

from torch_reference.comparison import (  # noqa: E402
    as_tensors,
    deviation,
    deviations,
    moved,
    package_step,
    random_batch,
    reference_step,
    strangers,
)
from wrong_systems import WRONG_FORWARDS  # noqa: E402

TOLERANCE = 1e-12
# Of 4 scenarios: 0 has five rows, 1 three, 3 one and 2 none.
SCENARIO = np.array([0, 1, 0, 0, 1, 3, 0, 1, 0])
PARTNER = np.array([1, 2, 0, 3, 5, 6, 7, 8, 4])
NAMED = {"dnn", "dpg", "midpg"}  # test_torch_agreement.py compares these name by name
UNNAMED = [name for name, (kind, _) in SMALL_MODELS.items() if kind not in NAMED]


def assert_agrees(model, training, scenario=SCENARIO, seed=0):
    partner = PARTNER if len(scenario) == 9 else np.arange(len(scenario))
    found = deviations(model, partner if training else None, scenario=scenario, seed=seed)
    wrong = {key: f"{value:.1e}" for key, value in found.items() if not value <= TOLERANCE}
    assert not wrong, f"{model} differs from the reference: {wrong}"


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_values_and_gradients(name, training):
    assert_agrees(named_model(name), training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_batch_of_one_row(name, training):
    assert_agrees(named_model(name), training, np.array([3]))


@given(model=models(), seed=seeds)
def test_any_combination_of_options(model, seed):
    assert_agrees(model, training=bool(seed % 2), seed=seed)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", UNNAMED)
def test_every_cached_value_is_one_of_the_reference(name, training):
    assert strangers(named_model(name), training, SCENARIO) == set()


@pytest.mark.parametrize("kind", SYSTEMS)
def test_steps_of_adam_with_a_save_and_a_load_between(kind, tmp_path):
    """Buffers (moving statistics, schedules) move along and survive the file."""
    rng, model = np.random.default_rng(0), small_model(kind)
    params, buffers = moved(model, rng), set(getattr(model, "buffers", ()))
    reference = import_module(f"torch_reference.{kind}")
    tensors, options = as_tensors(params), SimpleNamespace(**asdict(model))
    leaves = tree_flatten(tensors)
    trained = [leaf for path, leaf in leaves.items() if path not in buffers]
    theirs, ours = torch.optim.Adam(trained, lr=1e-2, foreach=False), Adam(lr=1e-2)
    state = ours.init(params, buffers)
    for scenario in (SCENARIO, SCENARIO[:4], np.arange(4), SCENARIO[::-1].copy()):
        batch = random_batch(rng, model, scenario)
        draws = {"partner": np.roll(np.arange(len(scenario)), 1)}
        step = package_step(model, params, batch, draws)
        ours.update(params, step.grads, state)
        if hasattr(model, "advance"):
            params = model.advance(params, step.cache)
        save_model(tmp_path / "model.safetensors", model, params)
        params = load_model(tmp_path / "model.safetensors").params
        theirs.zero_grad(set_to_none=True)
        expected = reference_step(kind, options, tensors, batch, draws)
        theirs.step()
        if buffers:
            with torch.no_grad():
                for path, new in reference.advance(leaves, expected.intermediates, options).items():
                    leaves[path].copy_(new)
        for path, leaf in tree_flatten(params).items():
            assert deviation(leaf, leaves[path]) <= TOLERANCE, path
    dz = np.ones(batch.n_rows)
    expected = reference_step(kind, options, tensors, batch, None, dz=dz)
    output, _ = model.forward(params, batch)
    assert deviation(output.logit, expected.values["logit"]) <= TOLERANCE


@cache
def assert_right_one_agrees(model, training, seed):
    """Many mistakes are of one right model."""
    assert_agrees(model, training, seed=seed)


@pytest.mark.parametrize(
    "draws", [range(4), pytest.param(range(4, 20), marks=pytest.mark.slow)], ids=["few", "all"]
)
@pytest.mark.parametrize("name", WRONG_FORWARDS)
def test_wrong_forwards_are_rejected_in_every_draw(name, draws):
    wrong = WRONG_FORWARDS[name]
    model = wrong.build()
    right = MODELS[wrong.system](**asdict(model))
    for seed in draws:
        partner = PARTNER if wrong.training else None
        found = deviations(model, partner, scenario=SCENARIO, seed=seed, kind=wrong.system)
        values = [value for key, value in found.items() if key.startswith("value")]
        assert any(not value <= 1e-6 for value in values), seed
        assert_right_one_agrees(right, wrong.training, seed)
