"""Dropout on the embeddings: the mask, the lookup with it, and every model under one mask."""

import numpy as np
import pytest
from small import SMALL_MODELS, assert_close, named_model, partners, small_batch
from strategies import generator
from systems import SYSTEMS

from midpg_np.checks import (
    check_gradients,
    dense_gradients,
    model_case,
    perturbed_params,
    wake_units,
)
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.kernels import compiled_loops
from midpg_np.layers.dropout import EMBEDDING_KEEP, draw_keep, dropout, dropout_backward
from midpg_np.layers.embedding import Embedding
from midpg_np.models.protocol import ModelOutput, keep_of
from midpg_np.tree import tree_astype, tree_flatten

# The last two sort their rows, and so the mask, where the models by default need not.
FEW = [*SYSTEMS, "pepnet towers=per_scenario", "optmsm combine=select"]


def test_what_is_kept_is_made_larger_so_that_the_mean_stays():
    keep = draw_keep(generator(1), (400, 50), 0.3)
    assert sorted(set(keep.reshape(-1).tolist())) == [0.0, 1.0 / 0.7]
    assert abs((keep == 0.0).mean() - 0.3) < 0.01
    assert keep.dtype == np.float64
    assert (draw_keep(generator(1), (5, 4), 0.0) == 1.0).all()


def test_a_mask_multiplies_and_is_its_own_derivative():
    x, keep = np.array([[1.0, 2.0]]), np.array([[0.0, 2.0]])
    assert dropout(x, keep).tolist() == [[0.0, 4.0]]
    assert dropout_backward(x, keep).tolist() == [[0.0, 4.0]]
    assert x.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_of_x_stays(order):
    x = np.asarray(generator(2).normal(size=(7, 3)).astype(np.float32), order=order)
    y = dropout(x, np.ones((7, 3), np.float32))
    assert y.strides == x.strides and y.dtype == np.float32


def test_lookup_with_a_mask_by_hand():
    layer, table = Embedding((2, 3), 2), {"table": np.arange(10.0).reshape(5, 2)}
    keep = np.array([[2.0, 0.0, 2.0, 2.0], [0.0, 2.0, 2.0, 0.0]])
    E, cache = layer.forward(table, np.array([[1, 0], [1, 2]]), keep=keep)
    assert E.tolist() == [[4, 0, 8, 10], [0, 6, 16, 0]]
    dE = np.array([[1.0, 10, 100, 1000], [2.0, 20, 200, 2000]])
    want = [[0, 0], [2, 40], [200, 2000], [0, 0], [400, 0]]
    assert layer.backward(dE, cache)["table"].dense().tolist() == want
    assert layer.backward_dense(dE, cache)["table"].tolist() == want
    assert dE.tolist() == [[1, 10, 100, 1000], [2, 20, 200, 2000]]


def test_compiled_loops_drop_the_same_entries():
    pytest.importorskip("numba", reason="compiled loops need Numba")
    layer, rng = Embedding((5, 6), 4), generator(3)
    params, codes = tree_astype(layer.init(rng), np.float32), rng.integers(0, 5, size=(40, 2))
    keep = draw_keep(rng, (40, 8), 0.5).astype(np.float32)
    dE = np.asarray(rng.normal(size=(40, 8)).astype(np.float32), order="F")
    results = []
    for wanted in ("numpy", "compiled"):
        with compiled_loops(wanted):
            E, cache = layer.forward(params, codes, last=True, keep=keep)
            rows = layer.backward(dE, cache)["table"]
            results.append({"E": E.copy(), "rows": rows.rows.copy(), "ids": rows.ids})
    assert_close(*results, tol=1e-6)


WRONG = {
    "the mask is forgotten in the backward": lambda dy, keep: dy,
    "what is kept is not made larger in the backward": lambda dy, keep: dy * (keep > 0.0),
    "what was dropped learns": lambda dy, keep: dy * keep.max(),
    "the mask of another row": lambda dy, keep: dy * np.roll(keep, 1, axis=0),
}


@pytest.mark.parametrize("form", ["rows", "dense"])
@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_backwards_are_rejected(monkeypatch, mistake, form):
    case = CASES[f"embedding dropout {form}"](Sizes(), generator(8))
    check_gradients(case, generator(9)).raise_if_wrong()
    monkeypatch.setattr("midpg_np.layers.embedding.dropout_backward", WRONG[mistake])
    assert not check_gradients(case, generator(9)).ok


def test_a_penalty_that_counts_repeated_rows_once_is_rejected(monkeypatch):
    def first_of_each(ids, rows):
        distinct, first = np.unique(ids, return_index=True)
        return distinct, rows[first]

    case = CASES["l2 rows"](Sizes(), generator(8))
    check_gradients(case, generator(9)).raise_if_wrong()
    monkeypatch.setattr("midpg_np.kernels.sum_by_id", first_of_each)
    assert not check_gradients(case, generator(9)).ok


def dropped_case(name, n_rows=9):
    model, rng = named_model(name), generator(4)
    batch, params = small_batch(rng, n_rows), perturbed_params(model, rng)
    keep = draw_keep(rng, (n_rows, 6), 0.4)
    draws = {"partner": partners(rng, n_rows), EMBEDDING_KEEP: keep}
    return wake_units(model_case(model, params, batch, draws))


@pytest.mark.parametrize("name", FEW)
def test_every_model_under_a_mask(name):
    check_gradients(dropped_case(name), generator(5), max_entries=3).raise_if_wrong()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_option_under_a_mask(name):
    case = dropped_case(name)
    check_gradients(case, generator(5), differences=False, max_entries=8).raise_if_wrong()


@pytest.mark.parametrize("name", FEW)
def test_what_is_dropped_is_neither_read_nor_taught(name):
    """With entries 0 of all fields dropped, the first column of the table has no influence."""
    model, rng = named_model(name), generator(6)
    batch, params = small_batch(rng), perturbed_params(model, rng)
    keep = np.tile([0.0, 2.0], (9, 3))
    draws = {"partner": partners(rng, 9), EMBEDDING_KEEP: keep}
    output, cache = model.forward(params, batch, draws=draws)
    d_output = ModelOutput(output.logit, model.auxiliary_weights)
    grads = tree_flatten(dense_gradients(model.backward(d_output, cache)))
    assert (grads["embedding.table"][:, 0] == 0.0).all()
    assert (grads["embedding.table"][:, 1] != 0.0).any()
    other = params | {"embedding": {"table": params["embedding"]["table"] + [1.0, 0.0]}}
    again, _ = model.forward(other, batch, draws=draws)
    assert np.array_equal(again.logit, output.logit)
    assert not np.array_equal(model.forward(other, batch)[0].logit, output.logit)


@pytest.mark.parametrize("name", FEW)
def test_each_row_has_its_own_row_of_the_mask_whatever_the_model_sorts(name):
    """Scaling the tables of one row alone, which a batch of one does, is the mask of that row."""
    model, rng = named_model(name), generator(7)
    batch, params = small_batch(rng), perturbed_params(model, rng)
    if name.startswith("star"):  # its normalisation looks at the whole batch
        model = named_model("star pn=none")
        params = perturbed_params(model, generator(7))
    draws, keep = {"partner": partners(rng, 9)}, draw_keep(rng, (9, 6), 0.4)
    whole, _ = model.forward(params, batch, draws=draws | {EMBEDDING_KEEP: keep})
    for row in range(9):
        alone = batch._replace(**{k: v[[row]] for k, v in batch._asdict().items()})
        draws = {"partner": np.array([0]), EMBEDDING_KEEP: keep[[row]]}
        one, _ = model.forward(params, alone, draws=draws)
        np.testing.assert_allclose(one.logit[0], whole.logit[row], rtol=1e-12)


def test_there_is_no_mask_at_inference():
    assert keep_of(None) is None
    assert keep_of({"partner": np.arange(3)}) is None
    keep = np.arange(6.0).reshape(3, 2)
    assert keep_of({EMBEDDING_KEEP: keep}, np.array([2, 0, 1]))[0].tolist() == [4.0, 5.0]
