"""Cores are read from the forward pass as they are, and the bound is the regulariser's own loss."""

import numpy as np
import pytest

from midpg_np.data.batches import Dataset, iterate_batches
from midpg_np.experiments.cores import (
    collect_cores,
    dependence_bounds,
    dependence_ceiling,
    scenario_means,
)
from midpg_np.layers.negatives import draw_partner
from midpg_np.models import make_model
from midpg_np.tree import tree_map

SIZES = {"vocab_sizes": (5, 3, 7), "n_aware": 2, "n_scenarios": 4}
MODEL = {"dim_embedding": 4, "hidden": (12, 6), "row_divisor": 2, "col_divisor": 3}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def rows(rng):
    """Rows of scenarios 0, 1 and 3; none of scenario 2."""
    scenario = rng.choice([0, 1, 3], size=70)
    codes = rng.integers(0, SIZES["vocab_sizes"], size=(70, 3))
    codes[:, 0] = scenario + 1
    names = {"field_names": ("a", "b", "c"), "scenario_names": tuple("abcd")}
    return Dataset(codes, scenario, None, **SIZES, **names)


def trained(name, rng, **options):
    """A model with parameters away from their start, in float32."""
    model = make_model(name, **SIZES, **MODEL, **options)
    params = tree_map(
        lambda leaf: (leaf + 0.3 * rng.normal(size=leaf.shape)).astype(np.float32), model.init(rng)
    )
    return model, params


@pytest.mark.parametrize("name", ["dpg", "midpg"])
@pytest.mark.parametrize("variant", ["r", "c", "rc", "non"])
def test_cores_are_those_of_the_forward_pass(name, variant, rows, rng):
    model, params = trained(name, rng, variant=variant)
    _, cache = model.forward(params, rows.batch())
    network = cache.network if name == "dpg" else cache.network.dpg
    cores = collect_cores(model, params, rows, batch_size=16)
    assert list(cores) == list(model.layers)
    for layer, Q in cores.items():
        weighting = model.layers[layer].weighting
        expected = network.layers[layer].weighting.Q
        assert expected.shape == (70, weighting.d_r, weighting.d_c)
        np.testing.assert_allclose(Q, expected.reshape(70, -1), rtol=1e-5)
        assert Q.dtype == np.float32


def test_means_are_over_the_rows_of_each_scenario(rows, rng):
    model, params = trained("dpg", rng)
    cores, means = collect_cores(model, params, rows), scenario_means(model, params, rows, 16)
    for layer, Q in cores.items():
        for d in (0, 1, 3):
            np.testing.assert_allclose(means[layer][d], Q[rows.scenario == d].mean(0), rtol=1e-5)
        assert np.isnan(means[layer][2]).all()


@pytest.mark.parametrize("options", [{}, {"disc_scope": "concat"}, {"disc": "bilinear"}])
def test_bound_is_what_the_regulariser_loses_less_than_by_guessing(options, rows, rng):
    model, params = trained("midpg", rng, **options)
    found = dependence_bounds(model, params, rows, np.random.default_rng(5), n_passes=1)
    same = np.random.default_rng(5)
    (order,) = iterate_batches(len(rows), 512, same)
    batch = rows.batch(order)
    partner = draw_partner(same, batch.scenario, "permutation")
    output, _ = model.forward(params, batch, draws={"partner": partner})
    assert list(found) == (["all"] if "disc_scope" in options else list(model.layers))
    mean = np.mean(list(found.values()))
    assert mean == pytest.approx(2 * np.log(2) - output.auxiliary["mi"], abs=1e-5)


def test_a_discriminator_that_guesses_gives_zero(rows, rng):
    model, params = trained("midpg", rng)
    for disc in params["discriminators"].values():
        disc["layer_2"] = {key: np.zeros_like(leaf) for key, leaf in disc["layer_2"].items()}
    bounds = dependence_bounds(model, params, rows, rng)
    assert bounds == pytest.approx(dict.fromkeys(model.layers, 0.0), abs=1e-6)


def test_a_perfect_discriminator_reaches_the_ceiling(rng):
    """Two contexts, a core that tells them, and T = logit of 1 / (1 + p) on matching pairs."""
    n = 4000
    codes = np.repeat([[1, 1, 1], [2, 1, 1]], n // 2, axis=0)
    names = {"field_names": ("a", "b", "c"), "scenario_names": tuple("abcd")}
    rows = Dataset(codes, codes[:, 0] - 1, None, **SIZES, **names)
    model, params = trained("midpg", rng, disc="bilinear", dwm_inputs="aw_only")
    E = params["embedding"]["table"]
    Q = collect_cores(model, params, rows)["layer_1"][[0, -1]].astype(np.float64)
    starts = np.cumsum((0, *SIZES["vocab_sizes"]))
    e = np.concatenate([E[starts[0] + codes[[0, -1], 0]], E[starts[1] + codes[[0, -1], 1]]], axis=1)
    # e M Q^T is log 2 where both are of one context, and far below 0 where they are not.
    wanted = np.where(np.eye(2), np.log(2.0), -30.0)
    M = np.linalg.pinv(e.astype(np.float64)) @ wanted @ np.linalg.pinv(Q.T)
    params["discriminators"]["layer_1"] = {"M": M, "b": np.zeros(1)}
    bound = dependence_bounds(model, params, rows, rng)["layer_1"]
    assert bound == pytest.approx(dependence_ceiling(codes[:, :2]), abs=0.02)


def test_errors(rows, rng):
    model = make_model("dnn", **SIZES, dim_embedding=4, hidden=(6,))
    with pytest.raises(ValueError, match="'dnn' has no weighting cores"):
        collect_cores(model, model.init(rng), rows)
    with pytest.raises(ValueError, match="'dnn' has no weighting cores"):
        scenario_means(model, model.init(rng), rows)
    dpg, params = trained("dpg", rng)
    with pytest.raises(ValueError, match="'dpg' has no discriminators"):
        dependence_bounds(dpg, params, rows, rng)
    midpg, params = trained("midpg", rng)
    with pytest.raises(ValueError, match="at least 2 rows; got 1"):
        dependence_bounds(midpg, params, rows.take(np.array([0])), rng)
