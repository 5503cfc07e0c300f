"""STAR: moving statistics and all else that training steps change (derivations 6.1)."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from small import small_batch, small_model
from strategies import generator
from wrong_kinds import small_copy
from wrong_systems.star_values import WRONG_ADVANCES

from midpg_np.checks import perturbed_params
from midpg_np.data.batches import Dataset
from midpg_np.models import make_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit
from midpg_np.training.optim import Adam
from midpg_np.training.step import rows_read
from midpg_np.tree import tree_astype, tree_copy, tree_flatten

torch = pytest.importorskip("torch", reason="the independent reference needs PyTorch")

from torch_reference import star as reference  # noqa: E402
from torch_reference.comparison import (  # noqa: E402
    as_tensors,
    deviation,
    moved,
    random_batch,
    reference_step,
)

# Of 4 scenarios: 0 has five rows, 1 three, 3 one and 2 none.
SCENARIO = np.array([0, 1, 0, 0, 1, 3, 0, 1, 0])
BATCHES = (SCENARIO, np.array([3, 1, 3, 0]), np.arange(4))


# --- moving statistics ---------------------------------------------------------------------------


def step_cache(model, params, batch):
    """Return what a training step leaves behind."""
    return model.forward(params, batch, draws={})[1]


def advance_deviation(model, options, seed):
    """Largest deviation of the moving statistics from the reference after some steps."""
    rng = np.random.default_rng(seed)
    params = moved(model, rng)
    leaves = tree_flatten(as_tensors(params))
    worst = 0.0
    for scenario in BATCHES:
        batch = random_batch(rng, model, scenario)
        expected = reference_step("star", options, as_tensors(params), batch, {"partner": scenario})
        params = model.advance(params, step_cache(model, params, batch))
        new = reference.advance(leaves, expected.intermediates, options)
        assert new.keys() == set(model.buffers)
        leaves |= {path: leaf.detach() for path, leaf in new.items()}
        ours = tree_flatten(params)
        worst = max([worst, *(deviation(ours[path], leaf) for path, leaf in new.items())])
    return worst


@pytest.mark.parametrize("options", [{}, {"aux_norm": True}, {"momentum": 0.5}])
def test_moving_statistics_agree_with_the_reference(options):
    model = small_model("star", **options)
    for seed in range(20):
        assert advance_deviation(model, SimpleNamespace(**asdict(model)), seed) <= 1e-12


@pytest.mark.parametrize("name", WRONG_ADVANCES)
def test_wrong_moving_statistics_are_rejected_in_every_draw(name):
    model = small_copy(WRONG_ADVANCES[name], {})
    for seed in range(20):
        assert advance_deviation(model, SimpleNamespace(**asdict(model)), seed) > 1e-6, seed


def test_forward_moves_nothing_and_advance_only_the_statistics():
    model, rng = small_model("star", aux_norm=True), generator(8)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    before = tree_flatten(tree_copy(params))
    first = model.forward(params, batch)[0].logit
    cache = step_cache(model, params, batch)
    assert np.array_equal(model.forward(params, batch)[0].logit, first)
    after = tree_flatten(model.advance(params, cache))
    for path, leaf in tree_flatten(params).items():
        assert np.array_equal(leaf, before[path]), path
    changed = {path for path, leaf in after.items() if not np.array_equal(leaf, before[path])}
    assert changed == set(model.buffers)
    for path in changed:  # scenario 2 is absent, 3 has one row
        assert np.array_equal(after[path][2:], before[path][2:])


# --- training ------------------------------------------------------------------------------------


def steps(model, table_mode, dtype=np.float32):
    """Parameters after eight steps on batches that lack some codes and scenarios."""
    rng, adam = generator(9), Adam(lr=1e-2, table_mode=table_mode)
    params = tree_astype(model.init(rng), dtype)
    state = adam.init(params, model.buffers)
    for n_rows in (9, 2, 3, 9, 1, 4, 2, 9):
        batch = small_batch(rng, n_rows, dtype)
        adam.prepare(params, state, rows_read(model, batch))
        output, cache = model.forward(params, batch, draws={})
        adam.update(params, model.backward(output, cache), state)
        params = model.advance(params, cache)
    adam.settle(params, state)
    return tree_flatten(params), state


@pytest.mark.parametrize("options", [{}, {"aux": False}])
def test_rows_of_both_tables_may_wait(options):
    """``rows_read`` names what forward reads; the deferred steps then have the same bits."""
    model = small_model("star", **options)
    by_table, by_replay, by_sum = (steps(model, mode)[0] for mode in ("table", "replay", "rows"))
    for path, leaf in by_table.items():
        assert np.array_equal(by_replay[path], leaf), path
        np.testing.assert_allclose(by_sum[path], leaf, rtol=0, atol=1e-6)
        assert leaf.dtype == np.float32


def test_the_optimiser_holds_every_parameter_of_every_scenario():
    model = small_model("star", aux_norm=True)
    _, state = steps(model, "table")
    assert state.layout.keys() | state.tables.keys() == (
        tree_flatten(model.init(generator(1))).keys() - set(model.buffers)
    )
    assert state.tables.keys() == {"embedding.table", "aux.domain.table"}


def dataset(n_rows, seed):
    """Three scenarios in which the same field pulls in other directions."""
    rng = generator(seed)
    codes = rng.integers(0, (3, 5, 4), size=(n_rows, 3))
    scenario = codes[:, 0].copy()
    logit = 1.5 * (codes[:, 1] - 2) * (scenario - 1.0)
    label = (rng.random(n_rows) < 1 / (1 + np.exp(-logit))).astype(float)
    return Dataset(
        codes, scenario, label, (3, 5, 4), 1, 3, ("shop", "hour", "item"), ("a", "b", "c")
    )


@pytest.mark.parametrize("table_mode", ["table", "rows"])
def test_a_run_that_is_interrupted_has_the_same_bits(tmp_path, table_mode):
    model = make_model(
        "star", vocab_sizes=(3, 5, 4), n_aware=1, n_scenarios=3, dim_embedding=4, hidden=(8,)
    )
    config = TrainConfig(epochs=3, batch_size=50, checkpoint_every=2, table_mode=table_mode)
    data = dataset(400, 1), dataset(200, 2)

    def interrupt(progress):
        if progress.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, *data, config, run_dir=tmp_path, progress=interrupt)
    resumed = fit(model, *data, config, run_dir=tmp_path, resume=True)
    straight = fit(model, *data, config)
    want = tree_flatten(straight.params)
    for path, leaf in tree_flatten(resumed.params).items():
        assert leaf.tobytes() == want[path].tobytes(), path
    assert (want["norm.variance"] != np.float32(0.01**2)).all()
