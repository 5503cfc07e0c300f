import datetime

import numpy as np
import pytest

from midpg_np.data.categories import factorise


def objects(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("values", "distinct", "inverse"),
    [
        (np.array([7, 3, 7]), [3, 7], [1, 0, 1]),
        (np.array([-(2**62), 2**62]), [-(2**62), 2**62], [0, 1]),
        (np.array([7.0, np.nan, 3.0]), [3, 7], [1, -1, 0]),
        (np.array([7.5, 3.0, np.nan]), ["3", "7.5"], [1, 0, -1]),
        (np.array(["7", "3"]), [3, 7], [1, 0]),
        (np.array(["7.0", "x"]), ["7", "x"], [0, 1]),
        (np.array(["007", "7", "+7", " 7"]), [" 7", "+7", "007", "7"], [2, 3, 1, 0]),
        (objects(7, 7.0, "7", None, np.nan, "7.0"), [7], [0, 0, 0, -1, -1, 0]),
        (objects("b", None, "a"), ["a", "b"], [1, -1, 0]),
        (objects(9148482949976129397, None), [9148482949976129397], [0, -1]),
        (objects(2**64, 1), ["1", "18446744073709551616"], [1, 0]),
        (np.array([2**64 - 1], dtype=np.uint64), ["18446744073709551615"], [0]),
        (np.array(["9999999999999999999"]), ["9999999999999999999"], [0]),
        (np.array([True, False]), ["False", "True"], [1, 0]),
        (np.array(["TRUE", "false"]), ["False", "True"], [1, 0]),
        (np.array(["", "a"]), ["", "a"], [0, 1]),
        (np.array([np.inf, 1.0]), ["1", "inf"], [1, 0]),
        (np.array([2, np.nan, 1], dtype=np.float16), [1, 2], [1, -1, 0]),
        (np.array([0.1, -0.0], dtype=np.float32), ["-0.0", "0.1"], [1, 0]),
        (np.array(["2020-01-02", "NaT"], dtype="datetime64[D]"), ["2020-01-02"], [0, -1]),
        (objects(datetime.date(2020, 1, 2)), ["2020-01-02"], [0]),
        (objects(b"ab", "ab"), ["ab"], [0, 0]),
        (np.array([], dtype=np.int64), [], []),
        (np.array([np.nan, np.nan]), [], [-1, -1]),
        (objects(None), [], [-1]),
    ],
)
def test_factorise(values, distinct, inverse):
    factors = factorise(values, "x")
    assert factors.distinct.tolist() == distinct
    assert factors.inverse.tolist() == inverse


def test_dense_and_sparse_integers_agree():
    rng = np.random.default_rng(0)
    dense = rng.integers(-50, 50, size=1000)
    sparse = dense * 10**12
    by_table, by_sorting = factorise(dense, "x"), factorise(sparse, "x")
    np.testing.assert_array_equal(by_table.distinct * 10**12, by_sorting.distinct)
    np.testing.assert_array_equal(by_table.inverse, by_sorting.inverse)


def test_long_identifiers_read_as_floats_are_refused():
    with pytest.raises(ValueError, match=r"column 'item' holds .* at row 1 as a float"):
        factorise(np.array([1.0, 9148482949976129397.0]), "item")


def test_lists_are_no_categories():
    with pytest.raises(ValueError, match="column 'tags' holds values that are no categories"):
        factorise(objects([1, 2], [3]), "tags")
