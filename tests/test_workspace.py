"""A workspace gives memory back only when nobody can see it any more, and changes no result."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import assert_close, partners, small_batch, small_model
from strategies import generator

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.layers.modulated import FORMS
from midpg_np.models.protocol import ModelOutput
from midpg_np.tree import tree_flatten
from midpg_np.workspace import ALIGNMENT, Workspace, empty

SHAPE = (3, 5)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("workspace", [None, Workspace()], ids=["fresh", "workspace"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_memory_is_aligned_to_cache_lines(workspace, dtype):
    held = [empty(np, (n, 3), dtype, workspace) for n in range(1, 20)]
    assert all(address(array) % ALIGNMENT == 0 for array in held)
    assert all(array.dtype == dtype and array.flags.c_contiguous for array in held)


def test_memory_is_used_again_once_nobody_holds_it():
    workspace = Workspace()
    first = workspace.empty(np, SHAPE, np.float32)
    where = address(first)
    del first
    assert address(workspace.empty(np, SHAPE, np.float32)) == where
    assert workspace.n_bytes == 3 * 5 * 4


VIEWS = {
    "itself": lambda x: x,
    "a slice": lambda x: x[1:, ::2],
    "a transposed view": lambda x: x.T,
    "a view of a view": lambda x: x.reshape(5, 3)[2:][0],
    "its real part": lambda x: x.view(np.complex64)[..., 0].real if x.size % 2 == 0 else x.real,
    "inside a cache": lambda x: {"cache": (x[0],)},
}


@pytest.mark.parametrize("view", VIEWS)
def test_memory_that_somebody_can_see_is_not_lent_again(view):
    workspace = Workspace()
    lent = workspace.empty(np, SHAPE, np.float32)
    where, kept = address(lent), VIEWS[view](lent)
    del lent
    assert address(workspace.empty(np, SHAPE, np.float32)) != where
    del kept
    assert address(workspace.empty(np, SHAPE, np.float32)) == where


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=30))
def test_arrays_lent_at_the_same_time_never_overlap(requests):
    workspace, held = Workspace(), []
    for width, keep in requests:
        array = workspace.empty(np, (2, width), np.float64)
        assert not any(np.shares_memory(array, other) for other in held)
        if keep:
            held.append(array)


@pytest.mark.parametrize("form", ["row", "column"])
@pytest.mark.parametrize("mode", ["block", "tile"])
def test_results_stay_as_they_are_while_later_calls_use_the_workspace(form, mode):
    workspace, rng = Workspace(), generator(1)
    H, W, Q = rng.normal(size=(7, 4)), rng.normal(size=(4, 6)), rng.random((7, 2, 3))
    dA = rng.normal(size=(7, 6))
    A, cache = FORMS[form].forward(H, W, Q, mode, workspace)
    want_A = A.copy()
    want = [d.copy() for d in FORMS[form].backward(dA, cache, workspace)]
    for _ in range(3):  # the same shapes again, with other numbers
        _, other = FORMS[form].forward(2.0 * H, W, 3.0 * Q, mode, workspace)
        FORMS[form].backward(dA, other, workspace)
    assert np.array_equal(A, want_A)
    for d, d_want in zip(FORMS[form].backward(dA, cache, workspace), want, strict=True):
        assert np.array_equal(d, d_want)


@pytest.mark.parametrize("name", ["dpg", "midpg"])
@pytest.mark.parametrize("variant", ["r", "c", "rc", "non"])
def test_a_model_gives_the_same_bits_with_and_without(name, variant):
    """Two batches are in flight at once; the first one's cache must survive the second."""
    model, rng, workspace = small_model(name, variant=variant), generator(2), Workspace()
    params = perturbed_params(model, rng)
    passes = []
    for _ in range(2):
        batch = small_batch(rng)
        inputs, _ = model.embed(params, batch, {"partner": partners(rng, batch.n_rows)})
        d_output = ModelOutput(rng.normal(size=batch.n_rows), model.auxiliary_weights)
        output, cache = model.network(params, inputs, None, workspace)
        passes.append((inputs, d_output, output, cache))
    for inputs, d_output, output, cache in passes:
        got = model.network_backward(d_output, cache, workspace)
        want_output, want_cache = model.network(params, inputs, None)
        want = model.network_backward(d_output, want_cache)
        assert np.array_equal(output.logit, want_output.logit)
        assert all(np.array_equal(a, b) for a, b in zip(got[0], want[0], strict=True))
        assert_close(tree_flatten(dense_gradients(got[1])), tree_flatten(want[1]), tol=0.0)
