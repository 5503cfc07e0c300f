"""The CUDA sources, run on the CPU by ``cuda_shim``, against their NumPy forms."""

from dataclasses import replace

import numpy as np
import pytest
from cuda_shim import ShimModule, compiler
from fake_device import FakeArray, to_fake
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import ATOMIC, ON_DEVICE, Sizes, assert_agrees, make_case, on_host, outcome
from strategies import generator, seeds

from midpg_np import backend, kernels
from midpg_np.backend import to_numpy
from midpg_np.kernels import launch

needs_compiler = pytest.mark.skipif(compiler() is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def shim():
    """The fake device, with a compiler of CUDA sources."""
    plain = backend._BACKENDS[FakeArray]
    backend.register_backend(FakeArray, replace(plain, raw_module=ShimModule))
    yield
    backend.register_backend(FakeArray, plain)


@st.composite
def sizes(draw):
    """Widths that differ, batches below, at and above a block, and one of two chunks."""
    widths = [draw(st.integers(1, 4)) for _ in range(5)]
    batch = draw(st.sampled_from([1, 2, 31, 33, 256, 257, launch.CHUNK + 3]))
    if batch > 1000:  # one wide batch is slow enough
        widths = [min(width, 2) for width in widths]
    return Sizes(*widths, batch, draw(st.sampled_from(["block", "tile"])))


def on_shim(case, is_reversed=False):
    """Outcome on the shim; the kernels must have been started."""
    ShimModule.is_reversed, ShimModule.launches = is_reversed, []
    got = outcome(case, lambda x: to_fake(x), to_numpy)
    assert ShimModule.launches, "no kernel ran"
    return got


@needs_compiler
@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("name", ON_DEVICE)
@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
@given(sizes=sizes(), seed=seeds)
def test_the_source_computes_what_numpy_does(name, dtype, sizes, seed):
    case = make_case(name, generator(seed), sizes, dtype)
    assert_agrees(on_shim(case), case, name, dtype)


@needs_compiler
@pytest.mark.usefixtures("shim")
@pytest.mark.parametrize("name", [name for name in ON_DEVICE if name not in ATOMIC])
def test_the_order_of_threads_changes_no_bit(name):
    """Threads and blocks in falling order: a race or a missing barrier would show."""
    case = make_case(name, generator(1), Sizes(n_samples=300, mode="tile"), np.float64)
    for rising, falling in zip(on_shim(case), on_shim(case, is_reversed=True), strict=True):
        np.testing.assert_array_equal(rising, falling)


@needs_compiler
@pytest.mark.usefixtures("shim")
def test_a_missing_barrier_shows():
    """The shim can fail: without its barriers the sum of a block depends on the order."""
    broken = launch.COMMON.replace("__syncthreads();", "")
    source = 'extern "C" __global__ void f(const REAL* x, REAL* y)'
    source += "{ REAL sum = block_sum(x[threadIdx.x]); if (threadIdx.x == 0) y[0] = sum; }"
    x, sums = np.arange(256.0), {}
    for text in (launch.COMMON, broken):
        kernel = ShimModule(text + source, ("-DREAL=double",)).get_function("f")
        for ShimModule.is_reversed in (False, True):
            y = to_fake(np.zeros(1))
            kernel((1, 1), (256,), (to_fake(x), y))
            sums[text == broken, ShimModule.is_reversed] = to_numpy(y)[0]
    assert sums[False, False] == sums[False, True] == x.sum()
    assert sums[True, False] != sums[True, True]


@needs_compiler
@pytest.mark.usefixtures("shim")
def test_extreme_logits_stay_finite():
    t = np.array([-1e4, -100.0, 0.0, 100.0, 1e4], np.float32)
    y = np.ones(5, np.float32)
    for function, args in (
        (kernels.jensen_shannon, (t, t)),
        (kernels.jensen_shannon_backward, (1.0, t, t)),
        (kernels.cross_entropy, (t, y)),
        (kernels.bounded, (t, 1.0)),
    ):
        want = on_host((function, args))
        for g, w in zip(on_shim((function, args)), want, strict=True):
            assert np.isfinite(g).all()
            np.testing.assert_allclose(g, w, rtol=1e-6)


@needs_compiler
@pytest.mark.usefixtures("shim")
def test_a_moment_that_is_not_a_number_stays_one():
    p, g, m, v = (np.ones(4, np.float32) for _ in range(4))
    m[0], v[1], g[2] = np.nan, np.nan, np.inf
    case = kernels.adam_step, (p, g, m, v, 0.9, 0.999, (1e-3, 1e-8, True))
    with np.errstate(invalid="ignore"):
        for got, want in zip(on_shim(case), on_host(case), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.usefixtures("shim")
def test_who_gets_a_kernel():
    x = np.ones(3)
    assert not kernels.fuses(x)
    assert kernels.fuses(to_fake(x)) and kernels.fuses(0.5, to_fake(x.astype(np.float32)))
    assert not kernels.fuses(to_fake(x * 1j))
    assert not kernels.fuses(to_fake(x), to_fake(x.astype(np.float32)))
    assert not kernels.fuses(0.5)
    with pytest.raises(TypeError, match="argument 2 is a fake array but argument 1 is a numpy"):
        kernels.fuses(x, to_fake(x))


@needs_compiler
@pytest.mark.usefixtures("shim")
def test_views_are_read_but_not_written():
    """A transposed input is copied; a parameter that is a view is refused, not silently missed."""
    H, Q = generator(2).normal(size=(5, 4)), generator(3).normal(size=(5, 2, 3))
    W = generator(4).normal(size=(6, 4)).T
    got = kernels.modulated_product(
        to_fake(H).T, to_fake(W), to_fake(Q).transpose(1, 2, 0), "block"
    )
    want = kernels.modulated_product(H.T, W, Q.transpose(1, 2, 0), "block")
    np.testing.assert_allclose(to_numpy(got), want)
    flat = [to_fake(np.ones(8)) for _ in range(4)]
    with pytest.raises(ValueError, match="m is changed in place and must be contiguous"):
        kernels.adam_step(flat[0], flat[1], flat[2][::2], flat[3], 0.9, 0.999, (1e-3, 1e-8, False))


@pytest.mark.usefixtures("shim")
def test_a_batch_beyond_the_grid_is_refused():
    device = launch.launcher_for(to_fake(np.ones(1)))
    with pytest.raises(ValueError, match="core_forward: a grid of"):
        device.rows(launch.Source(""), "core_forward", 1, 2**25)
