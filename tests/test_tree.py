"""Parameter trees."""

import numpy as np
import pytest

from midpg_np.tree import (
    tree_add,
    tree_astype,
    tree_copy,
    tree_flatten,
    tree_items,
    tree_map,
    tree_set,
    tree_size,
    tree_to_device,
    tree_unflatten,
)


def small_tree():
    return {"b": {"W": np.ones((2, 3)), "deep": {"x": np.arange(2.0)}}, "a": np.zeros(4)}


def test_paths_have_dots_and_the_order_of_building():
    assert [path for path, _ in tree_items(small_tree())] == ["b.W", "b.deep.x", "a"]


def test_unflatten_undoes_flatten():
    tree = small_tree()
    again = tree_unflatten(tree_flatten(tree))
    assert list(again) == ["b", "a"]
    assert again["b"]["deep"]["x"] is tree["b"]["deep"]["x"]
    assert tree_flatten(again).keys() == tree_flatten(tree).keys()


def test_map_takes_several_trees():
    doubled = tree_map(lambda x, y: x + y, small_tree(), small_tree())
    assert doubled["b"]["deep"]["x"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize("other", [{"a": 1.0}, {"a": 1.0, "b": {"W": 1.0}}])
def test_trees_that_differ_are_named(other):
    with pytest.raises(ValueError, match="trees differ"):
        tree_map(lambda x, y: x, small_tree(), other)


def test_add_sums_leaf_by_leaf_and_changes_neither():
    a, b = small_tree(), small_tree()
    total = tree_add(a, b)
    assert total["b"]["W"].tolist() == (2 * np.ones((2, 3))).tolist()
    assert (a["b"]["W"] == 1).all()
    assert (b["b"]["W"] == 1).all()


def test_astype_and_copy_give_new_arrays():
    tree = small_tree()
    assert {leaf.dtype for _, leaf in tree_items(tree_astype(tree, np.float32))} == {
        np.dtype(np.float32)
    }
    copy = tree_copy(tree)
    copy["a"][0] = 5.0
    assert tree["a"][0] == 0.0


def test_size_counts_scalars():
    assert tree_size(small_tree()) == 6 + 2 + 4


def test_set_replaces_one_leaf_and_shares_the_others():
    tree = small_tree()
    changed = tree_set(tree, "b.deep.x", np.array([7.0, 8.0]))
    assert changed["b"]["deep"]["x"].tolist() == [7.0, 8.0]
    assert tree["b"]["deep"]["x"].tolist() == [0.0, 1.0]
    assert changed["b"]["W"] is tree["b"]["W"]
    assert list(changed) == list(tree)
    added = tree_set(tree, "c.y", np.ones(1))
    assert added["c"]["y"].tolist() == [1.0] and "c" not in tree


def test_moving_to_the_cpu_copies_nothing():
    tree = small_tree()
    assert tree_to_device(tree, "cpu")["a"] is tree["a"]
