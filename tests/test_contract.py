"""One contract for every op, layer and model."""

from dataclasses import replace

import numpy as np
import pytest
from small import (
    SMALL_MODELS,
    arrays_in,
    assert_close,
    freeze,
    named_model,
    numbered,
    run,
    training_case,
    upstream,
)
from strategies import generator

from midpg_np.checks import check_gradients
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.tree import tree_flatten, tree_map

MODULES = [*CASES, *SMALL_MODELS]


def case_of(name, n_rows=9, seed=1):
    if name in CASES:
        return CASES[name](Sizes(B=n_rows), generator(seed))
    return training_case(named_model(name), generator(seed), n_rows)


@pytest.mark.parametrize("name", MODULES)
def test_gradients_look_like_what_they_are_gradients_of(name):
    case = case_of(name)
    _, grads = run(case, rng=generator(2))
    inputs = tree_flatten(case.inputs)
    assert {k: (g.shape, g.dtype) for k, g in grads.items()} == {
        k: (x.shape, x.dtype) for k, x in inputs.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_nothing_given_is_changed(name):
    case = case_of(name)
    freeze(case.inputs)
    outputs, cache = case.forward(case.inputs, None)
    d_outputs = upstream(outputs, generator(2))
    before = [array.copy() for array in arrays_in((outputs, cache))]
    freeze((outputs, cache, d_outputs))
    case.backward(d_outputs, cache)
    after = arrays_in((outputs, cache))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", MODULES)
def test_gradients_are_fresh_arrays(name):
    """Writing into a gradient must not reach parameters, the cache or another gradient."""
    case = case_of(name)
    outputs, cache = case.forward(case.inputs, None)
    d_outputs = upstream(outputs, generator(2))
    grads = list(arrays_in(case.backward(d_outputs, cache)))
    if name in SMALL_MODELS:
        others = list(arrays_in((case.inputs, cache)))
        assert not any(np.shares_memory(g, other) for g in grads for other in others)
    assert not any(np.shares_memory(g, h) for i, g in enumerate(grads) for h in grads[:i])


@pytest.mark.parametrize("name", MODULES)
def test_same_seed_same_bits(name):
    (first, g_first), (second, g_second) = (run(case_of(name), rng=generator(2)) for _ in range(2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    assert all(g_first[path].tobytes() == g_second[path].tobytes() for path in g_first)


@pytest.mark.parametrize("name", MODULES)
def test_two_forwards_then_two_backwards_in_any_order(name):
    case = case_of(name)
    other = replace(case, inputs=tree_map(lambda x: x * 0.5, case.inputs))
    (y_1, c_1), (y_2, c_2) = (c.forward(c.inputs, None) for c in (case, other))
    d = upstream(y_1, generator(2))
    d_inputs = [tree_flatten(case.backward(d, c)) for c in (c_1, c_2, c_1)]
    assert_close(d_inputs[2], d_inputs[0], tol=0.0)
    assert_close(d_inputs[0], run(case, d)[1], tol=0.0)
    assert_close(d_inputs[1], run(other, d)[1], tol=0.0)
    assert all(np.shape(a) == np.shape(b) for a, b in zip(y_1, y_2, strict=True))


def with_gaps(array):
    """Equal array whose entries do not lie side by side in memory."""
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan)
    wide[..., ::2] = array
    return wide[..., ::2]


@pytest.mark.parametrize("name", MODULES)
def test_inputs_need_not_be_contiguous(name):
    case = case_of(name)
    outputs, grads = run(case, rng=generator(2))
    gaps = replace(case, inputs=tree_map(with_gaps, case.inputs))
    outputs_gaps, grads_gaps = run(gaps, rng=generator(2))
    assert_close(grads_gaps | numbered(outputs_gaps), grads | numbered(outputs))


@pytest.mark.parametrize("name", MODULES)
def test_a_batch_of_one_row(name):
    case = case_of(name, n_rows=1)
    check_gradients(case, generator(2), differences=False, max_entries=4).raise_if_wrong()


# Cases that keep something of the batch (labels, codes, partners, scenarios) to themselves; the
# models' own test in test_invariants.py covers those.
OWN_ROWS = ("cross_entropy", "embedding", "shuffle", "scenario_", "star_")
OWN_ROWS += ("generated_tower by scenario", "shared_embeddings select")
OWN_ROWS += ("routed_affine", "own_rows", "expert", "extraction")


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(OWN_ROWS)])
def test_permuting_the_batch_permutes_the_outputs(name):
    case, order = case_of(name), generator(3).permutation(9)  # nothing but the batch is 9 long

    def moved(array):
        return array[order] if np.shape(array)[:1] == (9,) else array

    outputs, _ = case.forward(case.inputs, None)
    d_outputs = upstream(outputs, generator(2))
    _, grads = run(case, d_outputs)
    permuted = replace(case, inputs=tree_map(moved, case.inputs))
    outputs_permuted, grads_permuted = run(permuted, tuple(map(moved, d_outputs)))
    assert_close(numbered(outputs_permuted), numbered(map(moved, outputs)))
    assert_close(grads_permuted, {path: moved(g) for path, g in grads.items()})
