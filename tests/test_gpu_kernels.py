"""Kernels, batches sent ahead and a short training on a GPU; skipped, with the reason, without one.

The kernels' sources also run on the CPU (``test_kernels``): what is left to see here is the device.
"""

import numpy as np
import pytest
from kernel_cases import ATOMIC, ON_DEVICE, Sizes, assert_agrees, make_case, outcome
from small import WIDTHS, assert_close, named_model, partners, small_batch
from strategies import generator

from midpg_np.backend import (
    DeviceError,
    check_device,
    matmul,
    segment_sum_padded,
    to_device,
    to_numpy,
)
from midpg_np.checks import perturbed_params
from midpg_np.data.batches import Dataset, iterate_batches
from midpg_np.kernels import dispatch, launch
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import MODELS
from midpg_np.training.config import TrainConfig
from midpg_np.training.flat_params import flat_views
from midpg_np.training.loop import fit
from midpg_np.training.optim import Adam
from midpg_np.training.prefetch import prepared_batches
from midpg_np.training.step import training_step
from midpg_np.tree import tree_flatten, tree_to_device

pytestmark = pytest.mark.gpu

SIZES = {
    "small, block": Sizes(n_samples=37),
    "small, tile": Sizes(n_samples=300, mode="tile"),
    "one sample": Sizes(1, 1, 1, 1, 1, n_samples=1),
    "two chunks": Sizes(3, 2, 1, 2, 4, n_samples=launch.CHUNK + 3, mode="tile"),
    "wide": Sizes(16, 8, 2, 8, 8, n_samples=512),
    "a large batch": Sizes(4, 2, 1, 2, 4, n_samples=65_536),
}


@pytest.fixture(autouse=True)
def _cuda():
    try:
        check_device("cuda")
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ON_DEVICE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_kernel_agrees_with_its_numpy_form(name, dtype, sizes):
    case = make_case(name, generator(1), sizes, dtype)
    assert dispatch.fuses(*(to_device(x, "cuda") for x in case[1] if isinstance(x, np.ndarray)))
    assert_agrees(outcome(case, lambda x: to_device(x, "cuda"), to_numpy), case, name, dtype)


@pytest.mark.parametrize("name", [name for name in ON_DEVICE if name not in ATOMIC])
def test_a_kernel_gives_the_same_bits_again(name):
    case = make_case(name, generator(2), Sizes(n_samples=launch.CHUNK + 3), np.float32)
    first, second = (outcome(case, lambda x: to_device(x, "cuda"), to_numpy) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_distinct_rows_are_found_without_the_host():
    rng = generator(3)
    ids, rows = rng.integers(0, 50, 4096), rng.normal(size=(4096, 16))
    want_ids, want = segment_sum_padded(ids, rows, 50)
    got_ids, got = segment_sum_padded(to_device(ids, "cuda"), to_device(rows, "cuda"), 50)
    n = len(want_ids)
    np.testing.assert_array_equal(to_numpy(got_ids)[:n], want_ids)
    assert (to_numpy(got_ids)[n:] == 50).all() and not to_numpy(got)[n:].any()
    assert_close({"sums": to_numpy(got)[:n]}, {"sums": want})


def small_dataset(n_rows):
    batch = small_batch(generator(4), n_rows=n_rows)
    return Dataset(*batch, WIDTHS["vocab_sizes"], 2, 4, tuple("abc"), tuple("wxyz"))


def test_batches_sent_ahead_are_those_of_the_cpu():
    """Forty batches, read at the end, when their memory has long been asked for again."""
    dataset, model, seen = small_dataset(2000), named_model("midpg"), {}
    for device in ("cpu", "cuda"):
        order = iterate_batches(len(dataset), 50, generator(5))
        items = prepared_batches(model, dataset, order, generator(6), "float32", device)
        seen[device] = [[*item.batch, *item.draws.values()] for item in items]
    for want, got in zip(seen["cpu"], seen["cuda"], strict=True):
        for w, g in zip(want, got, strict=True):
            assert g.dtype == w.dtype
            np.testing.assert_array_equal(to_numpy(g), w)


def trained(name, device, **options):
    """Twelve whole batches and a smaller one per epoch; on a GPU the whole ones are captured."""
    dataset = small_dataset(800)
    config = TrainConfig(epochs=2, batch_size=64, dtype="float64", device=device, **options)
    return fit(named_model(name), dataset, dataset, config)


CAPTURED = (
    *("dnn", "apg", "adasparse", "pepnet"),
    *("dpg", "midpg", "dpg variant=c", "midpg variant=rc", "midpg variant=non"),
)


@pytest.mark.parametrize(
    ("name", "table_mode"), [*((name, "table") for name in CAPTURED), ("midpg", "rows")]
)
def test_a_short_training_is_that_of_the_cpu(name, table_mode):
    want, got = (trained(name, device, table_mode=table_mode) for device in ("cpu", "cuda"))
    for w, g in zip(want.history, got.history, strict=True):
        assert g["train_loss"] == pytest.approx(w["train_loss"], rel=1e-8)
        assert g["valid_logloss"] == pytest.approx(w["valid_logloss"], rel=1e-8)
    assert_close(tree_flatten(got.params), tree_flatten(want.params), tol=1e-6)


def test_a_training_goes_on_after_an_interruption(tmp_path):
    """The counter on the device is set, and a new graph recorded."""
    whole = trained("midpg", "cuda", checkpoint_every=5)

    class StoppedError(Exception):
        pass

    def stop(progress):
        if progress.step == 9:
            raise StoppedError

    dataset, model = small_dataset(800), named_model("midpg")
    config = TrainConfig(
        epochs=2, batch_size=64, dtype="float64", device="cuda", checkpoint_every=5
    )
    with pytest.raises(StoppedError):
        fit(model, dataset, dataset, config, run_dir=tmp_path, progress=stop)
    resumed = fit(model, dataset, dataset, config, run_dir=tmp_path, resume=True)
    assert_close(tree_flatten(resumed.params), tree_flatten(whole.params), tol=1e-8)


SHAPES = [
    ((5, 7), (7, 3)),
    ((4, 5, 7), (4, 7, 3)),
    ((4, 5, 7), (7, 3)),
    ((5, 7), (4, 7, 3)),
    ((7,), (7, 3)),
    ((5, 7), (7,)),
    ((1, 7), (7, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_those_of_numpy(shapes, dtype):
    a, b = (generator(8).normal(size=shape).astype(dtype) for shape in shapes)
    want, tol = a @ b, 1e-5 if dtype == np.float32 else 1e-13
    for turn_a in (False, True):
        for turn_b in (False, True):
            got = matmul(
                *(
                    to_device(np.asfortranarray(x) if turn else x, "cuda")
                    for x, turn in ((a, turn_a), (b, turn_b))
                )
            )
            np.testing.assert_allclose(to_numpy(got), want, rtol=0, atol=tol * abs(want).max())


@pytest.mark.filterwarnings("ignore:cupyx.allow_synchronize")
@pytest.mark.parametrize("name", MODELS)
def test_a_step_waits_for_nothing(name):
    """Forward, backward and optimiser only give work to the device; CuPy raises where one waits."""
    cupyx = pytest.importorskip("cupyx")
    model, rng = named_model(name), generator(7)
    buffers = getattr(model, "buffers", ())
    params = flat_views(tree_to_device(perturbed_params(model, rng), "cuda"), buffers)
    batch = small_batch(rng, n_rows=64).to("cuda")
    draws = {"partner": to_device(partners(rng, 64), "cuda")}
    step = (model, CROSS_ENTROPIES["full"], params, batch, draws)
    adam = Adam()
    state = adam.init(params, buffers)
    adam.update(params, training_step(*step).grads, state)  # compiles
    with cupyx.allow_synchronize(False):
        result = training_step(*step)
        adam.update(params, result.grads, state)
    assert np.isfinite(float(result.losses["loss"]))
