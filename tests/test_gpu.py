"""The same values and gradients on a GPU as on the CPU; skipped, with the reason, without one."""

import numpy as np
import pytest
from small import SMALL_MODELS, assert_close, named_model, partners, small_batch
from strategies import generator

from midpg_np.backend import DeviceError, check_device, get_xp, to_device, to_numpy
from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.layers.embedding import Embedding
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.step import training_step
from midpg_np.tree import tree_astype, tree_flatten, tree_map, tree_to_device

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda():
    try:
        check_device("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


def step_on(device, name, dtype):
    """Losses, logits and gradients of one training step, on the host."""
    model, rng = named_model(name), generator(1)
    params = tree_astype(perturbed_params(model, rng), dtype)
    batch = small_batch(rng, n_rows=64, dtype=dtype).to(device)
    draws = {"partner": to_device(partners(rng, 64), device)}
    loss = CROSS_ENTROPIES["full"]
    step = training_step(model, loss, tree_to_device(params, device), batch, draws)
    grads = tree_flatten(tree_map(to_numpy, dense_gradients(step.grads)))
    losses = {name: np.asarray(value.item(), value.dtype) for name, value in step.losses.items()}
    return grads | losses | {"logit": to_numpy(step.output.logit)}


@pytest.mark.parametrize("name", SMALL_MODELS)
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_a_training_step_agrees_with_the_cpu(name, dtype, tol):
    got, exact = step_on("cuda", name, dtype), step_on("cpu", name, np.float64)
    assert {np.asarray(value).dtype for value in got.values()} == {np.dtype(dtype)}
    assert_close(got, exact, tol=tol)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_predictions_agree_with_the_cpu(name):
    model, rng = named_model(name), generator(2)
    params, batch = perturbed_params(model, rng), small_batch(rng, n_rows=64)
    on_gpu = model.forward(tree_to_device(params, "cuda"), batch.to("cuda"))[0].logit
    assert_close({"logit": to_numpy(on_gpu)}, {"logit": model.forward(params, batch)[0].logit})


def test_repeated_codes_add_up_on_the_gpu():
    layer, rng = Embedding((7, 5), 4), generator(3)
    codes, dE = rng.integers(0, 5, size=(500, 2)), rng.normal(size=(500, 8))
    params = layer.init(rng)
    _, cache = layer.forward(params, codes)
    _, cache_gpu = layer.forward(tree_to_device(params, "cuda"), to_device(codes, "cuda"))
    want = layer.backward_dense(dE, cache)["table"]
    dE = to_device(dE, "cuda")
    rows = layer.backward(dE, cache_gpu)["table"].dense()
    dense = layer.backward_dense(dE, cache_gpu)["table"]
    assert_close({"rows": to_numpy(rows), "dense": to_numpy(dense)}, {"rows": want, "dense": want})


def test_a_mixture_is_refused():
    on_gpu = to_device(np.ones(2), "cuda")
    with pytest.raises(TypeError, match="W is a cupy array but x is a numpy array"):
        get_xp(x=np.ones(2), W=on_gpu)
    assert isinstance(to_numpy(on_gpu), np.ndarray)
    assert to_device(on_gpu, "cuda") is on_gpu
