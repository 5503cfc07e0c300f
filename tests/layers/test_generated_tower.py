"""Generated towers: values by hand, both forms, by scenario and by row."""

import numpy as np
import pytest
from hypothesis import given
from small import assert_close, run
from strategies import generator, seeds, sizes

from midpg_np.checks import expect_close, perturbed
from midpg_np.checks.catalogue import CASES
from midpg_np.layers.generated_tower import TOWER_FORMS, GeneratedTower
from midpg_np.layers.groups import group_rows
from midpg_np.layers.hypernetwork import HYPERS, Hypernetwork, TowerShape
from midpg_np.tree import tree_flatten

SCENARIO = np.array([0, 0, 0, 1, 3])  # sorted; a group of one row, and one without
GROUPS = group_rows(SCENARIO, 4)


@pytest.mark.parametrize("form", TOWER_FORMS)
@pytest.mark.parametrize("per_row", [False, True])
def test_by_hand(per_row, form):
    """Code 2 makes of (1, -3, 1, 0) and omega_0 = (0, 0, 1, 5): relu(2 h - 6) 3 + 5."""
    shape = TowerShape(1, 1)
    layer = GeneratedTower(Hypernetwork(1, shape), per_row, form=form)
    omega_0 = shape.unpack(np.array([0.0, 0.0, 1.0, 5.0]))
    params = {"Omega": np.array([[1.0, -3.0, 1.0, 0.0]]), "omega_0": omega_0}
    H, groups = np.array([[4.0], [1.0]]), group_rows(np.array([0, 0]), 1)
    Z = np.array([[2.0], [2.0]]) if per_row else np.array([[2.0]])
    z, cache = layer.forward(params, H, Z, groups)
    assert z.tolist() == [[11.0], [5.0]]
    dH, dZ, grads = layer.backward(np.array([[1.0], [1.0]]), cache)
    assert dH.tolist() == [[6.0], [0.0]]
    # dW_1 = 4 * 3, db_1 = 3, dW_2 = 2, db_2 = 2; dZ = <d_theta, Omega> = 12 - 9 + 2.
    assert shape.pack(grads["omega_0"]).tolist() == [12.0, 3.0, 2.0, 2.0]
    assert grads["Omega"].tolist() == [[24.0, 6.0, 4.0, 4.0]]
    assert dZ.sum() == 5.0


@pytest.mark.parametrize("hyper", HYPERS)
def test_a_code_per_row_that_is_its_scenario_s_is_the_tower_of_the_scenario(hyper):
    hypernetwork, rng = Hypernetwork(3, TowerShape(4, 5), hyper, rank=2), generator(1)
    by_scenario, by_row = (GeneratedTower(hypernetwork, per_row) for per_row in (False, True))
    params = perturbed(hypernetwork.init(rng), rng)
    H, Z, dz = (rng.normal(size=shape) for shape in ((5, 4), (4, 3), (5, 1)))
    z, cache = by_scenario.forward(params, H, Z[GROUPS.ids], GROUPS)
    z_row, cache_row = by_row.forward(params, H, Z[SCENARIO])
    expect_close(z_row, z)
    dH, dZ, grads = by_scenario.backward(dz, cache)
    dH_row, dZ_row, grads_row = by_row.backward(dz, cache_row)
    expect_close(dH_row, dH)
    for m, d in enumerate(GROUPS.present):
        expect_close(dZ_row[d == SCENARIO].sum(axis=0), dZ[m])
    assert_close(tree_flatten(grads_row), tree_flatten(grads))


@pytest.mark.parametrize("route", ["scenario", "row"])
@pytest.mark.parametrize("hyper", HYPERS)
@given(sizes=sizes(), seed=seeds)
def test_both_forms_are_equal(route, hyper, sizes, seed):
    results = []
    for form in TOWER_FORMS:
        case = CASES[f"generated_tower by {route} {hyper} {form}"](sizes, generator(seed))
        outputs, grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"z": outputs[0]})
    assert_close(*results)


def test_only_scenarios_with_rows_get_weights():
    layer = GeneratedTower(Hypernetwork(3, TowerShape(4, 5)))
    params = layer.init(generator(2))
    _, cache = layer.forward(params, np.ones((5, 4)), np.ones((3, 3)), GROUPS)
    assert cache.layer_1.W.shape == (3, 4, 5)  # of 4 scenarios


def test_a_code_per_row_needs_no_weights_per_row():
    """The largest array is (B, R + 1, h), not (B, I, h)."""
    layer = GeneratedTower(Hypernetwork(2, TowerShape(40, 5)), per_row=True)
    _, cache = layer.forward(layer.init(generator(3)), np.ones((9, 40)), np.ones((9, 2)))
    assert cache.layer_1.T.shape == (9, 3, 5)


def test_wrong_options():
    hypernetwork = Hypernetwork(2, TowerShape(1, 1))
    with pytest.raises(ValueError, match=r"form must be one of .*'textbook'.*; got 'slow'"):
        GeneratedTower(hypernetwork, form="slow")
    with pytest.raises(ValueError, match=r"activation must be one of .*; got 'rleu'"):
        GeneratedTower(hypernetwork, activation="rleu")
