"""Every model's step with the kernels in their places, run on the CPU by ``cuda_shim``."""

from dataclasses import replace

import pytest
from cuda_shim import ShimModule, compiler
from fake_device import FakeArray, fake_xp, to_fake
from small import SMALL_MODELS, assert_close, named_model, partners, small_batch
from strategies import generator

from midpg_np import backend, losses
from midpg_np.backend import to_numpy
from midpg_np.batch import Batch
from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.training.captured import advance_in_place
from midpg_np.training.step import rows_read, training_step
from midpg_np.tree import tree_flatten, tree_map

pytestmark = pytest.mark.skipif(compiler() is None, reason="g++ is not installed")


@pytest.fixture(scope="module", autouse=True)
def _shim():
    plain = backend._BACKENDS[FakeArray]
    backend.register_backend(FakeArray, replace(plain, raw_module=ShimModule))
    yield
    backend.register_backend(FakeArray, plain)


JOINED = {
    "pepnet": {"gate", "gate_backward", "bias_relu_batch_first_backward"},
    "adasparse": {"prune", "prune_backward"},
}


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
        assert {"core_forward", "core_backward_shared", "jensen_shannon", "pair_scores"} <= ran
        assert {"product_forward", "product_dH_dQ", "product_dW", "bias_relu", "lookup"} <= ran
    if name in JOINED:
        assert JOINED[name] <= ran
    assert_close({n: to_numpy(x) for n, x in got.losses.items()}, want.losses)
    grads = tree_flatten(tree_map(to_numpy, dense_gradients(got.grads)))
    assert_close(grads, tree_flatten(dense_gradients(want.grads)))


FIXED = [name for name in SMALL_MODELS if getattr(named_model(name), "has_fixed_work", False)]


def refuse(*args, **options):
    raise AssertionError("a graph cannot hold this")


@pytest.mark.parametrize("name", FIXED)
def test_fixed_work_is_what_a_graph_can_hold(name, monkeypatch):
    """No product but the backend's, nothing sent from the host, no value read on it."""
    model, rng = named_model(name), generator(1)
    batch, draws = small_batch(rng, n_rows=12), {"partner": partners(rng, 12)}
    params = to_fake(perturbed_params(model, rng))
    inputs = params, Batch(*map(to_fake, batch)), to_fake(draws)

    def step():
        rows_read(model, inputs[1])
        result = training_step(model, losses.CROSS_ENTROPIES["full"], *inputs)
        advance_in_place(model, params, result.cache)
        return dense_gradients(result.grads)

    step()  # makes the constants
    product = fake_xp.matmul
    plain = backend._BACKENDS[FakeArray]
    of_backend = replace(plain, matmul=lambda a, b, out=None: product(a, b, out=out))
    monkeypatch.setitem(backend._BACKENDS, FakeArray, of_backend)
    for owner, name_ in ((fake_xp, "matmul"), (fake_xp, "einsum"), (FakeArray, "__matmul__")):
        monkeypatch.setattr(owner, name_, refuse)
    monkeypatch.setattr(fake_xp, "asarray", lambda x, **_: x if type(x) is FakeArray else refuse())
    step()
