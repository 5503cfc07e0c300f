"""Every model's step with the kernels in their places, run on the CPU by ``cuda_shim``."""

from dataclasses import replace

import pytest
from cuda_shim import ShimModule, compiler
from fake_device import FakeArray, to_fake
from small import SMALL_MODELS, assert_close, named_model, partners, small_batch
from strategies import generator

from midpg_np import backend, losses
from midpg_np.backend import to_numpy
from midpg_np.batch import Batch
from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.layers.modulated import FORMS
from midpg_np.training.step import training_step
from midpg_np.tree import tree_flatten, tree_map

pytestmark = pytest.mark.skipif(compiler() is None, reason="g++ is not installed")


@pytest.fixture(scope="module", autouse=True)
def _shim():
    plain = backend._BACKENDS[FakeArray]
    backend.register_backend(FakeArray, replace(plain, raw_module=ShimModule))
    yield
    backend.register_backend(FakeArray, plain)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_a_step_with_kernels_is_a_step(name):
    model, rng = named_model(name), generator(3)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    draws = {"partner": partners(rng, batch.n_rows)}
    loss = losses.CROSS_ENTROPIES["full"]
    want = training_step(model, loss, params, batch, draws)
    ShimModule.launches = []
    got = training_step(model, loss, to_fake(params), Batch(*map(to_fake, batch)), to_fake(draws))
    ran = set(ShimModule.launches)
    assert "cross_entropy" in ran
    if name == "midpg":
        assert {"core_forward", "core_backward_shared", "jensen_shannon"} <= ran
        assert {"weighted_sum", "weighted_inputs"} & ran
    assert_close({n: to_numpy(x) for n, x in got.losses.items()}, want.losses)
    grads = tree_flatten(tree_map(to_numpy, dense_gradients(got.grads)))
    assert_close(grads, tree_flatten(dense_gradients(want.grads)))


@pytest.mark.parametrize("mode", ["block", "tile"])
@pytest.mark.parametrize("form", ["row", "column"])
def test_a_product_with_kernels_is_a_product(form, mode):
    rng = generator(4)
    H, W, Q = rng.normal(size=(9, 6)), rng.normal(size=(6, 8)), rng.normal(size=(9, 3, 4))
    A, cache = FORMS[form].forward(H, W, Q, mode)
    dA = rng.normal(size=A.shape)
    ShimModule.launches = []
    A_there, cache_there = FORMS[form].forward(*map(to_fake, (H, W, Q)), mode)
    there = A_there, *FORMS[form].backward(to_fake(dA), cache_there)
    kernel = {"row": "weighted_sum", "column": "weighted_inputs"}[form]
    assert ShimModule.launches == [kernel, f"{kernel}_backward"]
    names = ("A", "dH", "dW", "dQ")
    got = {name: to_numpy(x) for name, x in zip(names, there, strict=True)}
    assert_close(got, dict(zip(names, (A, *FORMS[form].backward(dA, cache)), strict=True)))
