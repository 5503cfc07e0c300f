"""Every op, layer and model runs on a device that refuses NumPy, and gives NumPy's result."""

import numpy as np
import pytest
from fake_device import FakeArray, fake_xp, to_fake
from small import (
    SMALL_MODELS,
    assert_close,
    named_model,
    numbered,
    partners,
    run,
    small_batch,
    upstream,
)
from strategies import generator

from midpg_np import backend, kernels, losses, ops
from midpg_np.backend import get_xp, segment_sum_padded, segment_sum_rows, to_numpy
from midpg_np.batch import Batch
from midpg_np.checks import dense_gradients, perturbed, perturbed_params
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.data.batches import Dataset
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.expansion import Expansion, RepeatShape
from midpg_np.layers.mir import MutualInformation
from midpg_np.layers.modulated_layer import modulated_bias, modulated_bias_backward
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.models.protocol import ModelOutput
from midpg_np.training.evaluate import predict_logits
from midpg_np.training.step import training_step
from midpg_np.tree import tree_flatten, tree_unflatten

# Cases that hold constants on the host (labels, codes, partners) are written out below.
HOST_CONSTANT = ("split", "cross_entropy", "embedding", "modulated_bias", "mir", "shuffle")
ON_ANY_DEVICE = [name for name in CASES if not name.startswith(HOST_CONSTANT)]


def to_host(tree):
    """Every leaf on the host; row gradients as tables, made on the device."""
    leaves = tree_flatten(tree)
    leaves = {k: leaf.dense() if hasattr(leaf, "dense") else leaf for k, leaf in leaves.items()}
    assert all(isinstance(leaf, FakeArray) for leaf in leaves.values())
    return {path: to_numpy(leaf) for path, leaf in leaves.items()}


def assert_same_on_both(function, *arrays):
    """``function(*arrays)`` returns a list of arrays; it is run on NumPy and on the fake device."""
    want = function(*arrays)
    got = function(*(to_fake(array) for array in arrays))
    assert_close(to_host(numbered(got)), numbered(want))


@pytest.mark.parametrize("name", ON_ANY_DEVICE)
def test_ops_and_layers(name):
    case = CASES[name](Sizes(), generator(1))
    outputs, cache = case.forward(case.inputs, None)
    d_outputs = upstream(outputs, generator(2))
    fake_outputs, fake_cache = case.forward(to_fake(case.inputs), None)
    fake_grads = case.backward(tuple(to_fake(d) for d in d_outputs), fake_cache)
    assert_close(to_host(numbered(fake_outputs)), numbered(outputs))
    assert_close(to_host(fake_grads), tree_flatten(case.backward(d_outputs, cache)))


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_models_in_training_and_at_inference(name):
    model, rng = named_model(name), generator(3)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    draws = {"partner": partners(rng, batch.n_rows)}
    on_fake = to_fake(params), Batch(*map(to_fake, batch)), to_fake(draws)
    loss = losses.CROSS_ENTROPIES["full"]
    want = training_step(model, loss, params, batch, draws)
    got = training_step(model, loss, *on_fake)
    want_grads = tree_flatten(dense_gradients(want.grads))
    assert_close(to_host(got.losses), want.losses)
    assert_close(to_host(got.grads), want_grads)
    logit = model.forward(*on_fake[:2])[0].logit
    assert_close({"logit": to_numpy(logit)}, {"logit": model.forward(params, batch)[0].logit})


@pytest.mark.parametrize("name", [n for n in SMALL_MODELS if hasattr(named_model(n), "advance")])
def test_state_moves_on_the_device(name):
    """Moving statistics and schedules: ``advance`` runs after every step, where the step ran."""
    model, rng = named_model(name), generator(3)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    want = model.advance(params, model.forward(params, batch, draws={})[1])
    on_fake = to_fake(params), Batch(*map(to_fake, batch))
    got = model.advance(on_fake[0], model.forward(*on_fake, draws={})[1])
    assert_close(to_host(got), tree_flatten(want))


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_predictions_of_a_data_set(name, monkeypatch):
    """Parameters and rows go to the device, logits come back."""
    monkeypatch.setattr(backend, "_load_cupy", lambda: fake_xp)
    model, rng = named_model(name), generator(4)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    sizes = model.vocab_sizes, model.n_aware, model.n_scenarios
    data = Dataset(*batch, *sizes, ("a", "b", "c"), tuple("wxyz"))
    want, got = (predict_logits(model, params, data, 4, device) for device in ("cpu", "cuda"))
    assert isinstance(got, np.ndarray)
    assert_close({"logit": got}, {"logit": want})


def test_an_adjoint_may_be_a_device_scalar():
    model, rng = named_model("midpg"), generator(4)
    params, batch = to_fake(model.init(rng)), Batch(*map(to_fake, small_batch(rng)))
    output, cache = model.forward(params, batch, draws={"partner": to_fake(partners(rng, 9))})
    d_output = ModelOutput(output.logit, {"mi": to_fake(0.5)})
    to_host(model.backward(d_output, cache))


@pytest.mark.parametrize("kind", losses.CROSS_ENTROPIES)
@pytest.mark.parametrize("reduce", losses.LOSS_REDUCTIONS)
def test_cross_entropies(kind, reduce):
    loss, weigh = losses.CROSS_ENTROPIES[kind], losses.LOSS_REDUCTIONS[reduce]

    def both(z, y, scenario):
        value, cache = loss.forward(z, y, weigh and weigh(scenario, z.dtype))
        return [value, loss.backward(0.7, cache)]

    z, y = generator(5).normal(size=6), np.array([0.0, 1, 1, 0, 0, 1])
    assert_same_on_both(both, z, y, np.array([3, 0, 0, 3, 0, 1]))


def test_split():
    def both(x):
        parts, cache = ops.split(x, (2, 3))
        return [*parts, ops.split_backward(parts, cache)]

    assert_same_on_both(both, generator(6).normal(size=(4, 5)))


def test_embedding():
    layer = Embedding((3, 4), 2)

    def both(table, codes, dE):
        E, cache = layer.forward({"table": table}, codes)
        gradient = layer.backward(dE, cache)["table"]
        assert gradient.is_summed == isinstance(dE, np.ndarray)
        rows, dense = gradient.summed(), layer.backward_dense(dE, cache)["table"]
        return [E, rows.ids, rows.rows, gradient.dense(), rows.dense(), dense]

    codes = np.array([[0, 1], [2, 1], [0, 3], [0, 1]])  # with repeats, without row 1
    table, dE = generator(7).normal(size=(7, 2)), generator(8).normal(size=(4, 4))
    assert_same_on_both(both, table, codes, dE)


def test_a_padded_gradient_has_the_distinct_rows_and_then_padding():
    """On the device the number of distinct rows stays unknown; table and steps are the same."""
    ids, rows = np.array([5, 2, 5, 0, 2, 5]), generator(8).normal(size=(6, 2))
    want_ids, want = segment_sum_rows(ids, rows)
    on_cpu = segment_sum_padded(ids, rows, 7)
    assert_close({"ids": on_cpu[0], "sums": on_cpu[1]}, {"ids": want_ids, "sums": want})
    padded, sums = segment_sum_padded(to_fake(ids), to_fake(rows), 7)
    assert to_numpy(padded).tolist() == [0, 2, 5, 7, 7, 7]
    assert_close({"sums": to_numpy(sums)[:3]}, {"sums": want})
    assert not to_numpy(sums)[3:].any()
    dense = RowGradient(want_ids, want, 7).dense()
    assert dense.shape == (7, 2)
    assert_close({"t": to_numpy(RowGradient(padded, sums, 7).dense())}, {"t": dense})
    steps = [generator(9).normal(size=(7, 2)) ** 2 for _ in range(3)]
    for step in (kernels.adam_table, kernels.adam_rows):
        now = 0.9, 0.999, (1e-3, 1e-8, False)
        one, other = ([x.copy() for x in steps] for _ in range(2))
        step(*one, want_ids, want, *now)
        step(*other, to_numpy(padded), to_numpy(sums), *now)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", ["block", "tile"])
def test_modulated_bias(mode):
    def both(b, Q, d_beta):
        beta, cache = modulated_bias(b, Q, mode)
        return [beta, *modulated_bias_backward(d_beta, cache)]

    rng = generator(8)
    shapes = (6,), (5, 2, 3), (5, 6)
    assert_same_on_both(both, *(rng.normal(size=shape) for shape in shapes))


@pytest.mark.parametrize("disc", ["mlp", "bilinear"])
@pytest.mark.parametrize("form", ["textbook", "grouped"])
@pytest.mark.parametrize("full", [False, True])
def test_regulariser(disc, form, full):
    expansion = Expansion((RepeatShape(2, 3, 4, 9),), "tile") if full else None
    layer = MutualInformation(3, 6, disc, (4,), expansion, form)
    params = tree_flatten(perturbed(layer.init(generator(9)), generator(10)))

    def both(e, e_neg, q, *leaves):
        tree = tree_unflatten(dict(zip(params, leaves, strict=True)))
        loss, cache = layer.forward(tree, e, e_neg, q)
        *d_inputs, grads = layer.backward(0.7, cache)
        return [loss, *d_inputs, *tree_flatten(grads).values()]

    rng = generator(11)
    e, e_neg, q = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.random((5, 6))
    assert_same_on_both(both, e, e_neg, q, *params.values())


# --- the fake device itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "mix",
    [
        lambda fake, host: fake + host,
        lambda fake, host: host + fake,
        lambda fake, host: host @ fake,
        lambda fake, host: host * fake,
        lambda fake, host: fake * host[0, 0],
        lambda fake, host: fake[host > 0],
        lambda fake, host: np.tanh(fake),
        lambda fake, host: np.asarray(fake),
        lambda fake, host: np.concatenate([fake, fake]),
        lambda fake, host: fake_xp.concatenate([fake, host]),
        lambda fake, host: get_xp(fake, host),
        lambda fake, host: fake.__setitem__(0, host[0]),
        lambda fake, host: float(fake.sum()),
        lambda fake, host: bool(fake.any()),
    ],
)
def test_the_fake_device_refuses_to_mix_with_numpy(mix):
    host = np.eye(2)
    with pytest.raises(TypeError):
        mix(to_fake(host), host)


def test_a_forgotten_namespace_shows(monkeypatch):
    case = CASES["sigmoid"](Sizes(), generator(12))
    monkeypatch.setattr(ops, "get_xp", lambda *arrays: np)
    run(case, rng=generator(13))  # on NumPy nobody notices
    with pytest.raises(TypeError):
        case.forward(to_fake(case.inputs), None)


def test_numbers_do_not_widen_float32_on_the_device():
    x = to_fake(np.ones(3, np.float32))
    for y in (x * 2.0, 2.0 * x, 1.0 - x, x / 3.0, x + 1, -0.5 * x.sum()):
        assert y.dtype == np.float32


def test_softmax_on_the_device_keeps_float32():
    x = to_fake(np.ones((2, 3), np.float32))
    assert ops.softmax(x)[0].dtype == np.float32
