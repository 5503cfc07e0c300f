"""L2 and dropout in training: the derivative of the whole loss, for every model and every way."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from fake_device import to_fake
from small import SMALL_MODELS, WIDTHS, assert_close, named_model, partners, small_batch
from strategies import generator
from systems import SYSTEMS
from test_own_parts import Counting
from test_resume import InterruptionError, same_bits, without_seconds
from toy import toy_dataset, toy_midpg, toy_model

from midpg_np.backend import DeviceError, check_device, to_numpy
from midpg_np.batch import Batch
from midpg_np.checks import Case, check_gradients, dense_gradients, perturbed_params
from midpg_np.data.batches import Dataset
from midpg_np.kernels import compiled_loops
from midpg_np.layers.dropout import EMBEDDING_KEEP, draw_keep
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.penalties import add_rows, penalise_rows, penalise_rows_backward
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models.dnn import DNN
from midpg_np.models.star import STAR
from midpg_np.training.config import TrainConfig
from midpg_np.training.embedding_dropout import EmbeddingDropout
from midpg_np.training.evaluate import evaluate
from midpg_np.training.loop import fit
from midpg_np.training.penalties import NO_KERNELS, Penalty, is_kernel
from midpg_np.training.step import rows_read, training_step
from midpg_np.training.tiles import Tiles
from midpg_np.tree import (
    tree_astype,
    tree_flatten,
    tree_items,
    tree_map,
    tree_set,
    tree_unflatten,
)

BOTH = Penalty(embedding=0.3, weights=0.2)
L2 = {"l2_embedding": 0.3, "l2_weights": 1e-3}
FULL = CROSS_ENTROPIES["full"]


def inputs(name, dtype="float64"):
    model, rng = named_model(name), generator(1)
    params, batch = tree_astype(perturbed_params(model, rng), dtype), small_batch(rng, dtype=dtype)
    keep = draw_keep(rng, (9, 6), 0.4).astype(dtype)
    return model, params, batch, {"partner": partners(rng, 9), EMBEDDING_KEEP: keep}


# --- the terms -----------------------------------------------------------------------------------


def test_the_penalty_by_hand():
    model = DNN((2, 3), 1, 1, dim_embedding=1, hidden=(2,))
    params = tree_map(np.ones_like, model.init(generator(1)))
    params["embedding"]["table"][:] = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    rows = {"embedding.table": np.array([[0, 2], [0, 3]])}
    loss, cache = Penalty(embedding=0.1, weights=0.5).forward(params, rows, 2)
    # Read are 1, 3, 1, 4; kernels of 2 x 2 and 2 x 1 ones.
    np.testing.assert_allclose(loss, 0.1 / 4 * (1 + 9 + 1 + 16) + 0.5 / 2 * 6)
    zero = tree_map(np.zeros_like, params)
    grads = Penalty().add_gradient(zero, 1.0, cache)
    table = 0.1 / 2 * np.array([[2 * 1.0], [0.0], [3.0], [4.0], [0.0]])
    np.testing.assert_allclose(grads["embedding"]["table"], table)
    assert grads["mlp"]["layer_1"]["W"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert not grads["mlp"]["layer_1"]["b"].any()
    assert not any(leaf.any() for _, leaf in tree_items(zero))


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_penalty_of_every_model(name):
    model, params, batch, _ = inputs(name)
    fixed = getattr(model, "buffers", ())
    leaves = {path: leaf for path, leaf in tree_items(params) if path not in fixed}
    rows = rows_read(model, batch)
    assert {path for path in leaves if path.endswith(".table")} == rows.keys()

    def forward(inputs, frozen):
        value, cache = BOTH.forward(inputs, rows, 9, fixed, getattr(model, "l2_centres", None))
        return (value,), (cache, inputs)

    def backward(d_outputs, cache):
        zeros = tree_map(np.zeros_like, cache[1])
        return BOTH.add_gradient(zeros, d_outputs[0], cache[0])

    case = Case(name, tree_unflatten(leaves), forward, backward)
    check_gradients(case, generator(2), max_entries=3).raise_if_wrong()


def test_kernels_that_multiply_others_rest_at_one():
    """At its start a star has no penalty on the kernels by scenario; with others it has."""
    for specific_init, is_free in (("ones", True), ("glorot", False)):
        model = STAR((4, 5, 6), 1, 3, hidden=(4,), aux=False, specific_init=specific_init)
        params = model.init(generator(1))
        kernels = {p: x for p, x in tree_items(params) if p.endswith("scenario.W")}
        penalty = Penalty(weights=1.0)
        only = tree_unflatten(kernels)
        loss, cache = penalty.forward(only, {}, 9, (), model.l2_centres)
        assert cache.kernels.keys() == kernels.keys()
        assert bool(loss == 0.0) is is_free


def test_kernels_are_what_multiplies_inputs():
    """No bias, scale, table or state of any model with any option is taken for a kernel."""
    kernels, others = set(), set()
    for name in SMALL_MODELS:
        model = named_model(name)
        for path, leaf in tree_items(model.init(generator(1))):
            last = path.rpartition(".")[2]
            if path not in getattr(model, "buffers", ()) and last != "table":
                (kernels if is_kernel(path, leaf) else others).add(last)
    assert others == set(NO_KERNELS)
    factors = {"C_share", "R_share", "M", "Omega", "Omega_in", "Omega_out"}
    low_rank = {f"{factor}{side}" for factor in "UV" for side in ("", "_left", "_right")}
    assert kernels == {"W", "A", "Z"} | factors | low_rank


def test_gradients_of_one_table_in_any_form_add_up():
    rng = generator(3)
    table, ids = rng.normal(size=(6, 2)), np.array([4, 1, 1, 0])
    more = penalise_rows_backward(2.0, penalise_rows(table, ids, 0.5)[1])
    assert more.ids.tolist() == [0, 1, 4]
    rows = rng.normal(size=(3, 2))
    for gradient in (
        RowGradient(np.array([0, 1, 4]), rows, 6),  # what was read, as a rule
        RowGradient(np.array([1, 2, 5]), rows, 6),
        RowGradient(np.array([5, 1, 5]), rows, 6, is_summed=False),
    ):
        added = add_rows(gradient, more)
        assert (np.diff(added.ids) > 0).all() and added.is_summed
        np.testing.assert_allclose(added.dense(), gradient.dense() + more.dense(), rtol=1e-14)
        whole = add_rows(gradient.dense(), more)
        np.testing.assert_allclose(whole, gradient.dense() + more.dense(), rtol=1e-14)
    assert np.array_equal(rows, generator_rows())


def generator_rows():
    rng = generator(3)
    rng.normal(size=(6, 2))
    return rng.normal(size=(3, 2))


def test_nothing_depends_on_the_vocabulary():
    """A table a million rows longer: the same loss, and a gradient of the rows that were read."""
    small, large = (Embedding((n,), 2) for n in (5, 1_000_005))
    codes, table = np.array([[3], [1], [3]]), generator(4).normal(size=(5, 2))
    results = []
    for layer in (small, large):
        params = {"embedding": {"table": np.resize(table, (layer.n_rows, 2))}}
        value, cache = BOTH.forward(params, {"embedding.table": codes}, 3)
        _, c_lookup = layer.forward(params["embedding"], codes)
        grads = {"embedding": layer.backward(np.ones((3, 2)), c_lookup)}
        gradient = BOTH.add_gradient(grads, 1.0, cache)["embedding"]["table"]
        assert gradient.ids.tolist() == [1, 3]
        results.append({"value": value, "rows": gradient.rows})
    assert_close(*results, tol=0.0)


def test_a_table_that_the_model_does_not_name_is_refused():
    @dataclass(frozen=True)
    class Silent(DNN):
        def rows_read(self, batch):
            return {}

    model = Silent((4, 5, 6), 1, 3, hidden=(4,))
    config = TrainConfig(epochs=1, batch_size=32, l2_embedding=0.1)
    with pytest.raises(ValueError, match=r"l2_embedding needs the rows of embedding\.table"):
        fit(model, toy_dataset(100), None, config)
    fit(model, toy_dataset(100), None, replace(config, l2_embedding=0.0, l2_weights=0.1))


# --- a step --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_differentiates_the_whole_loss(name):
    """The derivative of "loss" along a direction, by the complex step through ``training_step``."""
    model, params, batch, draws = inputs(name)
    result = training_step(model, FULL, params, batch, draws, penalty=BOTH)
    plain = training_step(model, FULL, params, batch, draws)
    assert list(result.losses) == [*plain.losses, "l2"]
    np.testing.assert_allclose(
        result.losses["loss"], plain.losses["loss"] + result.losses["l2"], rtol=1e-14
    )
    grads, before = (tree_flatten(dense_gradients(r.grads)) for r in (result, plain))
    leaves = tree_flatten(params)
    for path, gradient in grads.items():
        centre = 1.0 if path.endswith("scenario.W") else 0.0
        added, weight = gradient - before[path], BOTH.weights * (leaves[path] - centre)
        if path.endswith("table"):
            counts = np.bincount(rows_read(model, batch)[path].reshape(-1), minlength=len(added))
            weight = BOTH.embedding / 9 * counts[:, None] * leaves[path]
        elif not is_kernel(path, leaves[path]):
            weight = np.zeros_like(added)
        np.testing.assert_allclose(added, weight, rtol=0, atol=1e-13, err_msg=path)
    if name not in ("dnn", "midpg"):  # what follows takes a value on the way for real in others
        return
    for path in ("embedding.table", *[p for p in grads if p.endswith("layer_2.W")][:1]):
        direction = generator(5).normal(size=grads[path].shape)
        moved = tree_set(params, path, tree_flatten(params)[path] + 1e-20j * direction)
        loss = training_step(model, FULL, moved, batch, draws, penalty=BOTH).losses["loss"]
        np.testing.assert_allclose(loss.imag / 1e-20, (grads[path] * direction).sum(), rtol=1e-11)


@pytest.mark.parametrize("name", SYSTEMS)
def test_float32_stays(name):
    model, params, batch, draws = inputs(name, "float32")
    result = training_step(model, FULL, params, batch, draws, penalty=BOTH)
    assert {v.dtype for v in result.losses.values()} == {np.dtype(np.float32)}
    leaves = tree_flatten(dense_gradients(result.grads))
    assert {g.dtype for g in leaves.values()} == {np.dtype(np.float32)}
    exact = training_step(*((m := inputs(name))[0], FULL, *m[1:]), penalty=BOTH)
    np.testing.assert_allclose(result.losses["l2"], exact.losses["l2"], rtol=1e-5)


@pytest.mark.parametrize("rows", [4, 100])
def test_tiles_and_compiled_loops_change_no_penalty(rows):
    model, params, batch, draws = inputs("midpg")
    want = training_step(model, FULL, params, batch, draws, penalty=BOTH)
    for wanted in ("numpy", "compiled"):
        with compiled_loops(wanted):
            got = training_step(model, FULL, params, batch, draws, tiles=Tiles(rows), penalty=BOTH)
        assert_close(got.losses, want.losses)
        assert_close(
            tree_flatten(dense_gradients(got.grads)), tree_flatten(dense_gradients(want.grads))
        )


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_on_a_device_that_refuses_numpy(name):
    model, params, batch, draws = inputs(name)
    want = training_step(model, FULL, params, batch, draws, penalty=BOTH)
    on_fake = to_fake(params), Batch(*map(to_fake, batch)), to_fake(draws)
    got = training_step(model, FULL, *on_fake, penalty=BOTH)
    assert_close({n: to_numpy(x) for n, x in got.losses.items()}, want.losses)
    grads = tree_map(to_numpy, dense_gradients(got.grads))
    assert_close(tree_flatten(grads), tree_flatten(dense_gradients(want.grads)))


# --- a run ---------------------------------------------------------------------------------------


def test_penalties_are_recorded_and_make_parameters_smaller():
    train, valid = toy_dataset(400), toy_dataset(200, 1)
    config = TrainConfig(epochs=3, batch_size=32, lr=1e-2, patience=None)
    plain = fit(toy_model(), train, None, config)
    assert "train_l2" not in plain.history[0]
    strong = replace(config, l2_embedding=1.0, l2_weights=0.1)
    result = fit(toy_model(), train, valid, strong)
    for record in result.history:
        total = record["train_ce"] + record["train_l2"]
        np.testing.assert_allclose(record["train_loss"], total, rtol=1e-5)
    last = fit(toy_model(), train, None, strong).params
    for path in ("embedding.table", "mlp.layer_1.W"):
        sizes = [np.abs(tree_flatten(p)[path]).mean() for p in (plain.params, last)]
        assert sizes[1] < 0.6 * sizes[0], path


def test_all_forms_of_the_tables_train_alike_under_a_penalty():
    train, valid = toy_dataset(400), toy_dataset(200, 1)
    config = TrainConfig(epochs=1, batch_size=4, dtype="float64", embedding_dropout=0.2, **L2)
    model = STAR(train.vocab_sizes, 1, 3, dim_embedding=4, hidden=(8,), dim_domain=4)
    results = {
        mode: fit(model, train, valid, replace(config, table_mode=mode))
        for mode in ("table", "rows", "replay")
    }
    want = tree_flatten(results["table"].params)
    for path, leaf in tree_items(results["rows"].params):
        np.testing.assert_allclose(leaf, want[path], rtol=0, atol=1e-12, err_msg=path)
    assert same_bits(results["replay"].params, results["table"].params)


ALL = {"embedding_dropout": 0.2, "lr_schedule": "linear", "valid_per_epoch": 2} | L2


@pytest.mark.parametrize("model", [toy_model(), toy_midpg()], ids=["dnn", "midpg"])
@pytest.mark.parametrize("table_mode", ["table", "rows"])
@pytest.mark.parametrize("stop_at", [4, 13])
def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path, model, table_mode, stop_at):
    options = {"epochs": 2, "batch_size": 64, "lr": 5e-3, "checkpoint_every": 3}
    config = TrainConfig(**options, table_mode=table_mode, **ALL)
    train, valid = toy_dataset(600), toy_dataset(300, 1)

    def interrupt(progress):
        if progress.step == stop_at:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fit(model, train, valid, config, run_dir=tmp_path, progress=interrupt)
    resumed = fit(model, train, valid, config, run_dir=tmp_path, resume=True)
    straight = fit(model, train, valid, config)
    assert same_bits(resumed.params, straight.params)
    assert without_seconds(resumed.history) == without_seconds(straight.history)


def test_threads_change_no_bit():
    config = TrainConfig(epochs=1, batch_size=64, tile_rows=16, **ALL)
    train, valid = toy_dataset(400), toy_dataset(200, 1)
    first, second = (
        fit(toy_midpg(), train, valid, replace(config, threads=threads)) for threads in (1, 3)
    )
    assert same_bits(first.params, second.params)


def test_models_with_state_are_trained_with_everything_on():
    """The state of a model has no kernel, and masks do not reach its predictions."""
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    config = TrainConfig(epochs=1, batch_size=32, **ALL)
    for model in (Counting(train.vocab_sizes, 1, 3, hidden=(8,)), STAR(train.vocab_sizes, 1, 3)):
        result = fit(model, train, valid, config)
        best = max(record["valid_auc"] for record in result.history)
        assert evaluate(model, result.params, valid).auc == best


@pytest.mark.gpu
@pytest.mark.parametrize("table_mode", ["table", "rows"])
@pytest.mark.parametrize("name", ["dnn", "midpg", "star", "optmsm"])
def test_a_run_on_a_gpu_is_that_of_the_cpu(name, table_mode):
    """DNN and MI-DPG take their steps as one recorded launch, penalties and rates included."""
    try:
        check_device("cuda")
    except DeviceError as error:
        pytest.skip(str(error))
    batch, sizes = small_batch(generator(4), n_rows=800), (WIDTHS["vocab_sizes"], 2, 4)
    dataset = Dataset(*batch, *sizes, tuple("abc"), tuple("wxyz"))
    options = {"epochs": 2, "batch_size": 64, "dtype": "float64", "warmup_steps": 3}
    config = TrainConfig(**options, table_mode=table_mode, **ALL)
    want, got = (
        fit(named_model(name), dataset, dataset, replace(config, device=device))
        for device in ("cpu", "cuda")
    )
    for w, g in zip(want.history, got.history, strict=True):
        assert g["train_l2"] == pytest.approx(w["train_l2"], rel=1e-8)
        assert g["train_loss"] == pytest.approx(w["train_loss"], rel=1e-8)
        assert g["valid_logloss"] == pytest.approx(w["valid_logloss"], rel=1e-8)
    assert_close(tree_flatten(got.params), tree_flatten(want.params), tol=1e-6)


# --- masks ---------------------------------------------------------------------------------------


def test_the_mask_of_a_step_depends_on_seed_and_step_alone():
    dropout = EmbeddingDropout(0.5, seed=3, width=6)
    (name,), keep = dropout.draw(7, 40), dropout.draw(7, 40)[EMBEDDING_KEEP]
    assert name == EMBEDDING_KEEP and keep.shape == (40, 6)
    assert np.array_equal(EmbeddingDropout(0.5, 3, 6).draw(7, 40)[EMBEDDING_KEEP], keep)
    for other in (dropout.draw(8, 40), replace(dropout, seed=4).draw(7, 40)):
        assert not np.array_equal(other[EMBEDDING_KEEP], keep)


def test_every_model_gets_the_masks_of_its_steps():
    """The models' own draws, data order and start are those of a run without dropout."""
    seen = {}

    @dataclass(frozen=True)
    class Watching(DNN):
        label: str = ""

        def draw(self, rng, batch):
            return {"own": rng.random(2)}

        def forward(self, params, batch, *, draws=None, frozen=None):
            if draws is not None:
                seen.setdefault(self.label, []).append((batch.codes, draws))
            return super().forward(params, batch, draws=draws)

    train = toy_dataset(100)
    config = TrainConfig(epochs=2, batch_size=32, embedding_dropout=0.3)
    for label, rate in (("plain", 0.0), ("drops", 0.3)):
        model = Watching(train.vocab_sizes, 1, 3, hidden=(4,), label=label)
        fit(model, train, None, replace(config, embedding_dropout=rate))
    dropout = EmbeddingDropout(0.3, seed=0, width=24)
    for step, (plain, drops) in enumerate(zip(seen["plain"], seen["drops"], strict=True), 1):
        assert np.array_equal(plain[0], drops[0])
        assert np.array_equal(plain[1]["own"], drops[1]["own"])
        keep = dropout.draw(step, len(plain[0]))[EMBEDDING_KEEP].astype(np.float32)
        assert np.array_equal(drops[1][EMBEDDING_KEEP], keep)
        assert EMBEDDING_KEEP not in plain[1]


def test_a_model_that_would_not_drop_is_refused():
    @dataclass(frozen=True)
    class Own(DNN):
        drops_embeddings = False

    model = Own((4, 5, 6), 1, 3, hidden=(4,))
    with pytest.raises(ValueError, match=r"embedding_dropout = 0\.1 has no effect on Own"):
        fit(model, toy_dataset(100), None, TrainConfig(epochs=1, embedding_dropout=0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2_embedding": -0.1}, r"l2_embedding must be a number >= 0; got -0\.1"),
        ({"l2_weights": float("nan")}, "l2_weights must be a number >= 0; got nan"),
        ({"embedding_dropout": 1.0}, r"embedding_dropout must lie in \[0, 1\); got 1\.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
