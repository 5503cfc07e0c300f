"""The kernels as loops compiled by Numba, against their NumPy forms and in every model's step."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import NAMES, Sizes, assert_agrees, make_case, outcome
from small import SMALL_MODELS, WIDTHS, assert_close, named_model, partners, small_batch
from strategies import generator, seeds

from midpg_np import kernels
from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.data.batches import Dataset
from midpg_np.kernels import compiled_loops, dispatch
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import predict_logits
from midpg_np.training.loop import fit
from midpg_np.training.step import training_step
from midpg_np.tree import tree_flatten

pytest.importorskip("numba", reason="compiled loops need Numba (the extra 'fast')")


@pytest.fixture(scope="module")
def loops():
    """One set of loops, whose memory serves all tests of this file in turn."""
    return compiled_loops("compiled")


@st.composite
def sizes(draw):
    """Widths whose blocks are of 1, 2, 3 and 4, batches around the blocks of the loops."""
    d_r, d_c, d_k = (draw(st.integers(1, 3)) for _ in range(3))
    f_r, f_c = draw(st.sampled_from([(1, 2), (4, 1), (6, 2), (8, 4)]))
    batch = draw(st.sampled_from([1, 2, 7, 64, 65, 259, 512, 520]))
    return Sizes(d_r, d_c, d_k, f_r, f_c, batch, draw(st.sampled_from(["block", "tile"])))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(sizes=sizes(), seed=seeds)
def test_loops_compute_what_numpy_does(loops, name, dtype, sizes, seed):
    case = make_case(name, generator(seed), sizes, dtype)
    with loops:
        got = outcome(case, np.copy, np.asarray)
    assert_agrees(got, case, name, dtype)


@pytest.mark.parametrize(("n_rows", "width"), [(1500, 7), (256, 16), (257, 16), (3, 5000)])
def test_a_table_of_many_blocks_has_the_same_bits(loops, n_rows, width):
    """Also those of minus zero, which a flushed moment may be."""
    rng = generator(n_rows)
    p, m = (rng.normal(size=(n_rows, width)).astype(np.float32) for _ in range(2))
    m[rng.random(n_rows) < 0.5] = -0.0
    v = m * m
    ids = np.flatnonzero(rng.random(n_rows) < 0.5)
    rows = rng.normal(size=(ids.size, width)).astype(np.float32)
    got, want = ([x.copy() for x in (p, m, v)] for _ in range(2))
    now = 0.9, 0.999, (1e-3, 1e-8, False)
    kernels.adam_table(*want, ids, rows, *now)
    with loops:
        kernels.adam_table(*got, ids, rows, *now)
    for g, w, before in zip(got, want, (p, m, v), strict=True):
        np.testing.assert_array_equal(g.view(np.uint32), w.view(np.uint32))
        assert not np.array_equal(g, before)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_loops_is_served_by_them(loops, name, monkeypatch):
    find, served = dispatch._compiled_form, []

    def found(module, function_name):
        served.append(function_name)
        return find(module, function_name)

    monkeypatch.setattr(dispatch, "_compiled_form", found)
    function, _ = case = make_case(name, generator(1), Sizes(), np.float32)
    module = import_module(function.__module__.replace("kernels.", "kernels.compiled."))
    with loops:
        outcome(case, np.copy, np.asarray)
    assert (function.__name__ in served) == hasattr(module, function.__name__)


@pytest.mark.parametrize("name", NAMES)
def test_loops_take_memory_of_any_order_and_change_no_input(loops, name):
    """Inputs stored the other way round or read-only, but for those that are given up."""
    function, args = case = make_case(name, generator(1), Sizes(4, 3, 2, 4, 2, 70), np.float64)
    given_up = "adam", "bias_relu", "relu_backward", "pair_scores", "give_candidates"
    given_up += "gate", "prune"
    in_place = name.startswith((*given_up, "sum_missed"))

    def moved(x):
        if in_place:
            return x.copy()
        x = np.repeat(x, 2)[::2] if x.ndim == 1 else np.array(x, order="F")
        x.flags.writeable = False
        return x

    with loops:
        got = outcome((function, args), moved, np.asarray)
    assert_agrees(got, case, name, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_sigmoid_of_loops(loops, dtype):
    """Right to a few units of the last place, also far from zero, where its value is tiny."""
    x = np.linspace(-80.0, 80.0, 200_001).astype(dtype)
    want = 1.0 / (1.0 + np.exp(-x.astype(np.longdouble)))
    with loops:
        y = kernels.bounded(x, 1.0)
        extreme = kernels.bounded(np.array([-np.inf, -1e30, 1e30, np.inf, np.nan], dtype), 2.0)
    near, limit = x > -20.0, np.finfo(dtype).eps
    assert abs(y - want)[near].max() <= 1.5 * limit
    if dtype == np.float32:  # in float64 it is computed as the library does, by tanh
        assert (abs(y - want) / want).max() <= 4 * limit
    np.testing.assert_allclose(extreme[:4], [0.0, 0.0, 2.0, 2.0], atol=1e-30)
    assert np.isnan(extreme[4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_softplus_of_loops(loops, dtype):
    """By itself: the loss of one pair whose other half is certain, -log(sigmoid(t))."""
    x = np.concatenate([np.linspace(-80.0, 80.0, 2_001), [1e-8, 200.0, np.inf]]).astype(dtype)
    want = np.maximum(x, 0.0) + np.log1p(np.exp(-abs(x.astype(np.longdouble))))
    certain = np.full(1, -np.inf, dtype)  # softplus of it is nothing
    with loops:
        got = [float(kernels.jensen_shannon(-x[i : i + 1], certain)) for i in range(x.size)]
        assert np.isnan(kernels.jensen_shannon(np.full(1, np.nan, dtype), certain))
    np.testing.assert_allclose(got, want.astype(float), rtol=5 * np.finfo(dtype).eps, atol=1e-37)


def test_what_is_not_a_number_stays_one(loops):
    x = np.array([[np.nan, 1.0, -1.0, np.inf]], np.float32)
    with loops:
        A, H, is_positive = kernels.bias_relu(x.copy(), np.zeros(1, np.float32))
        y, _ = kernels.relu(x)
        w, c = np.ones(1, np.float32), np.zeros(1, np.float32)
        t, _ = kernels.pair_scores(x.copy(), np.zeros((1, 2), np.float32), c, w, c)
    np.testing.assert_array_equal(A, x)
    np.testing.assert_array_equal(H, [[np.nan, 1.0, 0.0, np.inf]])
    np.testing.assert_array_equal(y, H)
    np.testing.assert_array_equal(is_positive, [[False, True, False, True]])
    np.testing.assert_array_equal(np.isnan(t), [True, False, False, False])


def test_an_id_beyond_the_table_is_refused(loops):
    table = np.ones((3, 2))
    for bad in (3, -1):
        with loops, pytest.raises(IndexError, match=rf"ids must lie in \[0, 3\); got .*{bad}"):
            kernels.lookup(table, np.array([[1, bad]]))


def test_a_place_beyond_the_candidates_is_refused(loops):
    S, S_own = np.ones((2, 3, 4)), np.ones((2, 2, 4))
    for bad in (3, -1):
        places = np.array([[0, 1], [0, bad]])
        message = rf"places must lie in \[0, 3\); got .*{bad}"
        with loops, pytest.raises(IndexError, match=message):
            kernels.take_candidates(S, places)
        with loops, pytest.raises(IndexError, match=message):
            kernels.give_candidates(S_own, places, S.copy())


def one_step(name):
    model, rng = named_model(name), generator(1)
    params, batch = perturbed_params(model, rng), small_batch(rng, n_rows=40)
    draws = {"partner": partners(rng, 40)}
    step = training_step(model, CROSS_ENTROPIES["full"], params, batch, draws)
    return tree_flatten(dense_gradients(step.grads)) | step.losses | {"logit": step.output.logit}


def test_a_factor_that_is_not_a_number_stays(loops):
    """It is below the threshold, and yet no zero: the loss must tell."""
    P, H, alpha = np.array([[np.nan, 9.0]]), np.ones((1, 2)), np.ones(1)
    with loops:
        _, _, pi, is_kept, H_pruned = kernels.prune(P, np.zeros(2), H, alpha, 2.0, 0.25)
    assert np.isnan(pi[0, 0]) and np.isnan(H_pruned[0, 0])
    assert is_kept.tolist() == [[False, True]]


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_step_with_loops_is_a_step(loops, name):
    with loops:
        got = one_step(name)
    assert_close(got, one_step(name))


def small_dataset(n_rows):
    batch = small_batch(generator(4), n_rows=n_rows)
    return Dataset(*batch, WIDTHS["vocab_sizes"], 2, 4, tuple("abc"), tuple("wxyz"))


def trained(name="midpg", **options):
    dataset = small_dataset(800)
    config = TrainConfig(epochs=2, batch_size=300, **options)
    return fit(named_model(name), dataset, dataset, config)


@pytest.mark.parametrize("name", ["midpg", "dnn", "adasparse"])
def test_a_training_with_loops_is_that_without(name):
    got, want = (trained(name, kernels=k, dtype="float64") for k in ("compiled", "numpy"))
    assert_close(tree_flatten(got.params), tree_flatten(want.params), tol=1e-9)
    for g, w in zip(got.history, want.history, strict=True):
        assert g["train_loss"] == pytest.approx(w["train_loss"], rel=1e-10)


def test_threads_change_no_bit():
    """Threads work in copies of the context, and each with memory of its own."""
    one, three = (trained(kernels="compiled", tile_rows=50, threads=n) for n in (1, 3))
    for path, leaf in tree_flatten(one.params).items():
        np.testing.assert_array_equal(leaf, tree_flatten(three.params)[path])


def test_a_run_goes_on_with_the_kernels_that_it_began_with(tmp_path):
    dataset, run = small_dataset(400), {"run_dir": tmp_path}
    data = named_model("midpg"), dataset, dataset
    fit(*data, TrainConfig(epochs=1, kernels="compiled"), **run)
    with pytest.raises(ValueError, match="kernels = compiled, this run has kernels = numpy"):
        fit(*data, TrainConfig(epochs=2, kernels="numpy"), **run, resume=True)


def test_memory_that_somebody_holds_is_not_lent_again(loops):
    """A result stays as it is while the same loops work on other numbers."""
    rng = generator(2)
    with loops:
        kept = [kernels.relu(rng.normal(size=(30, 40)))[0] for _ in range(3)]
        before = [x.copy() for x in kept]
        addresses = {x.ctypes.data for x in kept}
        later = kernels.relu(rng.normal(size=(30, 40)))[0]
        assert later.ctypes.data not in addresses and len(addresses) == 3
        freed = kept.pop().ctypes.data
        again = kernels.relu(rng.normal(size=(30, 40)))[0]
    assert again.ctypes.data == freed
    for x, b in zip(kept, before, strict=False):
        np.testing.assert_array_equal(x, b)


def test_outside_the_block_and_for_other_arrays_numpy_computes(loops, monkeypatch):
    def no_loop(module, name):
        raise AssertionError(f"{name} was compiled")

    monkeypatch.setattr(dispatch, "_compiled_form", no_loop)
    x = np.ones((2, 3), np.float32)
    kernels.relu(x)
    with compiled_loops("numpy"):
        assert not kernels.fuses(x)
        kernels.relu(x)
    with loops:
        assert kernels.fuses(x) and not kernels.fuses(x * 1j)
        assert not kernels.fuses(x, x.astype(float)) and not kernels.fuses(1.0)
        with compiled_loops("numpy"):
            kernels.relu(x)
        with pytest.raises(AssertionError, match="relu was compiled"):
            kernels.relu(x)
    kernels.relu(x)


def test_few_rows_do_not_earn_a_compilation(monkeypatch):
    assert compiled_loops("auto").are_on
    assert compiled_loops("auto", 8192).are_on and not compiled_loops("auto", 8191).are_on
    assert compiled_loops("compiled", 10).are_on
    seen = []
    monkeypatch.setattr(dispatch, "_compiled_form", lambda *name: seen.append(name))
    model, rng = named_model("dnn"), generator(3)
    predict_logits(model, perturbed_params(model, rng), small_dataset(50))
    assert not seen


def test_without_numba(monkeypatch):
    monkeypatch.setattr(dispatch, "_has_numba", lambda: False)
    assert not compiled_loops("auto").are_on
    with pytest.raises(ImportError, match=r"Install the extra 'fast' \(pip install"):
        compiled_loops("compiled")
    with pytest.raises(ValueError, match=r"kernels must be one of .*; got 'fast'"):
        compiled_loops("fast")


def test_the_package_imports_numba_only_where_a_loop_runs():
    code = (
        "import sys, numpy as np; from midpg_np import kernels; x = np.ones(3)\n"
        "kernels.relu(x); assert 'numba' not in sys.modules\n"
        "with kernels.compiled_loops(): assert kernels.fuses(x) and 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
