"""Dense parameters in one vector: the same values, the same steps."""

import numpy as np
import pytest
from fake_device import to_fake
from toy import toy_dataset

from midpg_np.models.dnn import DNN
from midpg_np.training.config import TrainConfig
from midpg_np.training.flat_params import common_vector, flat_views, is_table
from midpg_np.training.optim import Adam
from midpg_np.training.resume import start_run
from midpg_np.tree import tree_astype, tree_copy, tree_flatten, tree_items, tree_map


def small_tree(rng):
    return {
        "embedding": {"table": rng.normal(size=(4, 2))},
        "layer": {"W": rng.normal(size=(2, 3)), "b": rng.normal(size=3)},
        "moving": {"mean": rng.normal(size=3)},
        "head": {"W": rng.normal(size=(3, 0)), "b": rng.normal(size=())},
    }


def dense_of(tree):
    return [leaf for path, leaf in tree_items(tree) if path.split(".")[0] in ("layer", "head")]


def test_values_and_structure_stay_and_dense_leaves_share_a_vector():
    tree = small_tree(np.random.default_rng(0))
    flat = flat_views(tree, fixed=("moving.mean",))
    for (path, leaf), (other_path, view) in zip(tree_items(tree), tree_items(flat), strict=True):
        assert path == other_path and view.shape == leaf.shape
        np.testing.assert_array_equal(view, leaf)
    vector = common_vector(dense_of(flat))
    assert vector.shape == (10,)
    vector[0] = 7.0
    assert flat["layer"]["W"][0, 0] == 7.0 and tree["layer"]["W"][0, 0] != 7.0
    assert flat["embedding"]["table"] is tree["embedding"]["table"]
    assert flat["moving"]["mean"] is tree["moving"]["mean"]


def test_leaves_that_are_not_one_vector_are_told_apart():
    tree = small_tree(np.random.default_rng(0))
    W, b, head_W, head_b = leaves = dense_of(flat_views(tree, fixed=("moving.mean",)))
    assert common_vector(leaves) is not None
    assert common_vector(dense_of(tree)) is None
    assert common_vector([b, W, head_W, head_b]) is None
    assert common_vector([W, b]) is None
    assert common_vector([W, b, head_W, head_b.copy()]) is None
    assert common_vector([W.T, b, head_W, head_b]) is None
    assert common_vector([]) is None
    assert common_vector(dense_of(to_fake(tree))) is None


def test_a_table_is_told_by_its_last_key():
    assert is_table("aux.domain.table") and is_table("table")
    assert not is_table("table.W") and not is_table("my_table")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_have_the_same_bits_in_one_vector_and_apart(dtype):
    rng, adam = np.random.default_rng(1), Adam(lr=1e-2)
    apart = tree_astype(small_tree(rng), dtype)
    together = flat_views(tree_copy(apart))
    states = adam.init(apart), adam.init(together)
    for _ in range(70):
        grads = tree_map(lambda leaf: rng.normal(size=leaf.shape).astype(dtype), apart)
        adam.update(apart, grads, states[0])
        adam.update(together, grads, states[1])
    assert states[0].vector is None and states[1].vector is not None
    for path, leaf in tree_items(apart):
        assert tree_flatten(together)[path].tobytes() == leaf.tobytes(), path


def test_leaves_that_were_exchanged_between_steps_are_looked_at_anew():
    adam, params = Adam(), flat_views({"W": np.ones(3), "b": np.ones(2)})
    state, grads = adam.init(params), {"W": np.ones(3), "b": np.ones(2)}
    adam.update(params, grads, state)
    old, params["b"] = params["b"], params["b"].copy()
    before = old.copy()
    adam.update(params, grads, state)
    np.testing.assert_array_equal(old, before)
    assert (params["b"] < before).all()


def test_a_run_trains_on_one_vector():
    train = toy_dataset(64)
    model = DNN(train.vocab_sizes, 1, 3, hidden=(8,))
    state = start_run(model, TrainConfig(), Adam())
    grads = {path: np.ones_like(leaf) for path, leaf in tree_items(state.params)}
    nested = tree_copy(state.params)
    for path, leaf in tree_items(nested):
        leaf[...] = grads[path]
    Adam().update(state.params, nested, state.optimiser)
    assert state.optimiser.vector is not None
