"""Embedding lookup: where a code lands, and what repeated codes do to the gradient."""

import numpy as np
from strategies import generator

from midpg_np.layers.embedding import Embedding
from midpg_np.layers.row_gradient import RowGradient

LAYER = Embedding((2, 3), 2)
TABLE = {"table": np.arange(10.0).reshape(5, 2)}
CODES = np.array([[1, 0], [1, 2], [0, 2]])


def test_lookup_by_hand():
    E, cache = LAYER.forward(TABLE, CODES)
    assert E.tolist() == [[2, 3, 4, 5], [2, 3, 8, 9], [0, 1, 8, 9]]
    assert cache.ids.tolist() == [[1, 2], [1, 4], [0, 4]]
    assert cache.n_rows == 5


def test_fields_lie_one_below_the_other():
    assert LAYER.n_rows == 5
    assert LAYER.field_rows(0) == slice(0, 2)
    assert LAYER.field_rows(1) == slice(2, 5)


def test_repeated_codes_add_up():
    _, cache = LAYER.forward(TABLE, CODES)
    dE = np.array([[1.0, 0, 10, 0], [2.0, 0, 20, 0], [4.0, 0, 40, 0]])
    want = [[4, 0], [3, 0], [10, 0], [0, 0], [60, 0]]
    rows = LAYER.backward(dE, cache)["table"]
    assert isinstance(rows, RowGradient)
    assert rows.ids.tolist() == [0, 1, 2, 4]  # row 3 was not read
    assert rows.dense().tolist() == want
    assert LAYER.backward_dense(dE, cache)["table"].tolist() == want


def test_both_gradients_agree_on_many_rows():
    rng = generator(1)
    layer = Embedding((50, 7, 20), 3)
    codes = rng.integers(0, layer.vocab_sizes, size=(400, 3))
    _, cache = layer.forward(layer.init(rng), codes)
    dE = rng.normal(size=(400, 9))
    rows, dense = (f(dE, cache)["table"] for f in (layer.backward, layer.backward_dense))
    np.testing.assert_allclose(rows.dense(), dense, rtol=0, atol=1e-12)
    assert rows.rows.dtype == np.float64
    assert layer.backward(dE.astype(np.float32), cache)["table"].dense().dtype == np.float32


def test_initial_values_have_the_documented_spread():
    table = Embedding((5000,), 8).init(generator(2))["table"]
    assert abs(table.std() - 0.01) < 2e-4
    assert abs(table.mean()) < 2e-4


def test_a_gradient_of_all_rows_is_dense_as_it_is():
    rows = np.arange(6.0).reshape(3, 2)
    assert RowGradient(np.arange(3), rows, 3).dense() is rows
    # As many rows, but the last is padding; or one that repeats.
    padded = RowGradient(np.array([0, 1, 3]), rows, 3).dense()
    assert padded.tolist() == [[0, 1], [2, 3], [0, 0]]
    read = RowGradient(np.array([2, 0, 2]), rows, 3, is_summed=False).dense()
    assert read.tolist() == [[2, 3], [0, 0], [4, 6]]
    assert RowGradient(np.arange(0), np.zeros((0, 2)), 0).dense().shape == (0, 2)
