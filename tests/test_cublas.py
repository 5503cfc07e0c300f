"""Arguments of cuBLAS's products, against a stand-in that uses memory as cuBLAS does."""

import ctypes

import numpy as np
import pytest
from fake_device import fake_xp, to_fake
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds

from midpg_np import cublas
from midpg_np.backend import to_numpy
from midpg_np.cublas import Cublas, CublasError

REALS = {"S": ctypes.c_float, "D": ctypes.c_double}


def number(argument):
    """What C would receive: the value of a number or pointer, or what a reference refers to."""
    if hasattr(argument, "_obj"):
        return argument._obj.value
    return getattr(argument, "value", argument)


def matrices(real, address, lead, step, n_rows, n_columns, n_matrices):
    """View of column-major matrices in memory, (n_matrices, n_rows, n_columns)."""
    n = (n_matrices - 1) * step + (n_columns - 1) * lead + n_rows
    memory = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(real)), (n,))
    item = memory.itemsize
    shape, strides = (n_matrices, n_rows, n_columns), (step * item, item, lead * item)
    return np.lib.stride_tricks.as_strided(memory, shape, strides)


class Library:
    """Functions of cuBLAS as this package calls them; ``calls`` are their names, in order."""

    def __init__(self):
        self.calls, self.stream, self.has_workspace = [], None, False

    def __getattr__(self, name):
        return lambda *args: self._call(name, [number(x) for x in args])

    def _call(self, name, args):
        self.calls.append(name)
        if name == "cublasSetStream_v2":
            self.stream, self.has_workspace = args[1], False  # as cuBLAS does
        elif name == "cublasSetWorkspace_v2":
            self.has_workspace = args[2] == cublas.WORKSPACE_BYTES and args[1] != 0
        elif "gemm" in name:
            assert self.has_workspace, "without one cuBLAS asks for memory, and capture fails"
            self._product(name, *args[1:])
        return 0

    def _product(self, name, transposes_a, transposes_b, m, n, k, one, *rest):
        assert one == 1.0
        real = REALS[name.removeprefix("cublas")[0]]
        if name.endswith("StridedBatched"):
            a, lead_a, step_a, b, lead_b, step_b, zero, c, lead_c, step_c, count = rest
        else:
            (a, lead_a, b, lead_b, zero, c, lead_c), count = rest, 1
            step_a = step_b = step_c = 0
        assert zero == 0.0
        shapes = [(k, m) if transposes_a else (m, k), (n, k) if transposes_b else (k, n)]
        for lead, (n_rows, _) in zip((lead_a, lead_b, lead_c), (*shapes, (m, n)), strict=True):
            assert lead >= max(1, n_rows), "cuBLAS refuses such a leading dimension"
        A = matrices(real, a, lead_a, step_a, *shapes[0], count)
        B = matrices(real, b, lead_b, step_b, *shapes[1], count)
        A, B = (x.swapaxes(1, 2) if t else x for x, t in ((A, transposes_a), (B, transposes_b)))
        matrices(real, c, lead_c, step_c, m, n, count)[...] = A @ B


def products(library, stream=lambda: 7):
    return Cublas(lambda shape, dtype: fake_xp.empty(shape, dtype=dtype), stream, library)


def stored(x, order):
    """The same numbers, stored by rows, by columns, as part of a larger array, or with gaps."""
    if x.ndim < 2 or order == "rows":
        return to_fake(x)
    if order == "columns":
        return to_fake(np.ascontiguousarray(x.swapaxes(-1, -2))).swapaxes(-1, -2)
    wide = np.zeros((*x.shape[:-2], x.shape[-2] + 2, 2 * x.shape[-1] + 3), x.dtype)
    step = 1 if order == "part" else 2
    wide[..., 1:-1, 1 : 1 + step * x.shape[-1] : step] = x
    return to_fake(wide)[..., 1:-1, 1 : 1 + step * x.shape[-1] : step]


ORDERS = st.sampled_from(["rows", "columns", "part", "gaps"])


@given(
    seed=seeds,
    sizes=st.tuples(*(st.integers(1, 4) for _ in range(4))),
    kinds=st.sampled_from([(2, 2), (3, 3), (3, 2), (2, 3), (1, 2), (1, 3), (2, 1), (1, 1)]),
    orders=st.tuples(ORDERS, ORDERS),
    out_order=st.sampled_from([None, "rows", "columns", "part"]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_products_are_those_of_numpy(seed, sizes, kinds, orders, out_order, dtype):
    rng, (G, M, N, K) = generator(seed), sizes
    a = rng.normal(size={1: (K,), 2: (M, K), 3: (G, M, K)}[kinds[0]]).astype(dtype)
    b = rng.normal(size={1: (K,), 2: (K, N), 3: (G, K, N)}[kinds[1]]).astype(dtype)
    want, out = a @ b, None
    if out_order is not None and min(kinds) > 1:
        out = stored(np.zeros_like(want), out_order)
    got = products(Library()).matmul(stored(a, orders[0]), stored(b, orders[1]), out)
    assert got.shape == want.shape and got.dtype == want.dtype
    for result in (got, *([] if out is None else [out])):
        np.testing.assert_allclose(to_numpy(result), want, rtol=1e-5, atol=1e-6)


def test_a_matrix_that_is_one_row_many_times():
    row = to_fake(np.arange(3.0))
    a = fake_xp.broadcast_to(row, (4, 3))
    got = products(Library()).matmul(a, to_fake(np.eye(3)))
    np.testing.assert_array_equal(to_numpy(got), np.tile(np.arange(3.0), (4, 1)))


def test_each_stream_gets_the_workspace():
    library, stream = Library(), [1]
    blas, x = products(library, lambda: stream[0]), to_fake(np.eye(2))
    for stream[0] in (1, 1, 2):
        blas.matmul(x, x)
        assert library.stream == stream[0]
    assert library.calls.count("cublasSetStream_v2") == 2
    assert library.calls.count("cublasSetWorkspace_v2") == 2


def test_a_failure_names_the_function_and_the_status(monkeypatch):
    library = Library()
    blas = products(library)
    library._call = lambda name, args: 13 * ("gemm" in name)
    with pytest.raises(CublasError, match="cublasDgemm_v2 failed with status 13"):
        blas.matmul(to_fake(np.eye(2)), to_fake(np.eye(2)))
    monkeypatch.setattr(cublas, "LIBRARIES", ("libnothing.so.1",))
    with pytest.raises(CublasError, match=r"none of libnothing\.so\.1 was found"):
        cublas.find_library()
