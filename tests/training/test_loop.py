"""The loop: it learns, stops early, keeps the best parameters, and says where a loss broke."""

import json
from collections import namedtuple
from dataclasses import dataclass, replace

import numpy as np
import pytest
from toy import toy_dataset, toy_model

from midpg_np.losses import CROSS_ENTROPIES, LOSS_REDUCTIONS
from midpg_np.models.dnn import DNN
from midpg_np.models.protocol import ModelOutput
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import evaluate, predict_logits
from midpg_np.training.loop import fit
from midpg_np.training.resume import start_run
from midpg_np.training.step import NonFiniteLossError, training_step, walk_cache
from midpg_np.tree import tree_astype, tree_items, tree_map


def test_it_learns_and_returns_the_parameters_of_the_best_validation():
    train, valid = toy_dataset(1500), toy_dataset(500, 1)
    result = fit(toy_model(), train, valid, TrainConfig(epochs=6, batch_size=64, lr=5e-3))
    aucs = [record["valid_auc"] for record in result.history]
    assert max(aucs) > 0.75
    best = int(np.argmax(aucs))
    assert result.best_epoch == result.history[best]["epoch"]
    metrics = evaluate(toy_model(), result.params, valid)
    assert metrics.auc == aucs[best]
    assert result.history[best]["valid_scenarios"] == {
        part.name: {"auc": part.auc, "logloss": part.logloss} for part in metrics.scenarios
    }
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    json.dumps(result.history)
    assert all(leaf.dtype == np.float32 for _, leaf in tree_items(result.params))


def test_early_stopping_counts_validations_without_improvement():
    train, valid = toy_dataset(400), toy_dataset(300, 1)
    config = TrainConfig(epochs=50, batch_size=32, lr=0.05, patience=2)
    result = fit(toy_model(), train, valid, config)
    assert result.stopped_by == "patience"
    kept = max(i for i, record in enumerate(result.history) if record["is_best"])
    assert len(result.history) - 1 - kept == 2


def test_validation_by_steps():
    config = TrainConfig(epochs=2, batch_size=32, valid_every=4, patience=None)
    result = fit(toy_model(), toy_dataset(320), toy_dataset(100, 1), config)
    steps = [record["step"] for record in result.history]
    assert steps == [4, 8, 10, 12, 16, 20]
    assert [record["epoch"] for record in result.history] == [1, 1, 1, 2, 2, 2]
    assert sum(record["rows"] for record in result.history) == 640


def test_without_validation_the_last_parameters_are_returned():
    config = TrainConfig(epochs=2, batch_size=32)
    result = fit(toy_model(), toy_dataset(200), None, config)
    assert result.stopped_by == "epochs" and len(result.history) == 2
    assert "valid_auc" not in result.history[0]


def test_validation_rows_of_one_class_are_judged_by_logloss():
    valid = toy_dataset(100, 1)
    valid = valid.take(np.flatnonzero(valid.label == 0))
    result = fit(toy_model(), toy_dataset(300), valid, TrainConfig(epochs=2, batch_size=32))
    assert result.history[0]["valid_auc"] is None


def test_progress_is_told_every_step():
    told = []
    config = TrainConfig(epochs=2, batch_size=64)
    fit(toy_model(), toy_dataset(129), toy_dataset(50, 1), config, progress=told.append)
    assert [p.step for p in told] == [1, 2, 3, 4]  # the last row joins the second batch
    assert told[0].n_steps == 4
    assert [p.record is not None for p in told] == [False, True, False, True]


def test_rows_and_table_train_alike():
    train, valid = toy_dataset(400), toy_dataset(200, 1)
    results = [
        fit(toy_model(), train, valid, TrainConfig(epochs=2, batch_size=16, table_mode=mode))
        for mode in ("table", "rows")
    ]
    a, b = (result.params["embedding"]["table"] for result in results)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_every_parameter_moves_in_one_step():
    model, train = toy_model(), toy_dataset(64)
    before = dict(
        tree_items(model.init(np.random.default_rng(np.random.SeedSequence(0).spawn(3)[0])))
    )
    result = fit(model, train, None, TrainConfig(epochs=1, batch_size=64, dtype="float64"))
    for path, leaf in tree_items(result.params):
        assert (leaf != before[path]).any(), path


def test_the_step_returns_the_derivative_of_the_whole_loss_and_changes_nothing():
    @dataclass(frozen=True)
    class Penalised(DNN):
        @property
        def auxiliary_weights(self):
            return {"size": 0.5}

        def forward(self, params, batch, *, draws=None, frozen=None):
            output, cache = super().forward(params, batch)
            return output._replace(auxiliary={"size": (output.logit**2).sum()}), (output, cache)

        def backward(self, d_output, cache):
            output, inner = cache
            d_logit = d_output.logit + d_output.auxiliary["size"] * 2.0 * output.logit
            return super().backward(ModelOutput(d_logit, {}), inner)

    dataset = toy_dataset(20)
    model = Penalised(dataset.vocab_sizes, 1, 3, dim_embedding=2, hidden=(3,), activation="tanh")
    params = model.init(np.random.default_rng(0))
    loss = CROSS_ENTROPIES["full"]
    for _, leaf in tree_items(params):
        leaf.flags.writeable = False
    result = training_step(model, loss, params, dataset.batch(np.arange(20)), {})
    assert set(result.losses) == {"loss", "ce", "size"}
    bias = params["mlp"]["layer_2"]["b"].astype(complex)
    bias[0] += 1e-20j
    shifted = params | {"mlp": params["mlp"] | {"layer_2": params["mlp"]["layer_2"] | {"b": bias}}}
    moved = training_step(model, loss, shifted, dataset.batch(np.arange(20)), {})
    expected = moved.losses["loss"].imag / 1e-20
    np.testing.assert_allclose(result.grads["mlp"]["layer_2"]["b"][0], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mean_over_scenarios_is_differentiated_in_the_dtype_of_the_parameters(dtype):
    dataset, model = toy_dataset(40).take(np.arange(20)), toy_model()
    params = tree_astype(model.init(np.random.default_rng(0)), dtype)
    batch = dataset.batch(np.arange(20))._replace(label=dataset.label.astype(dtype))
    batch = batch._replace(scenario=np.repeat([0, 2], (15, 5)))
    result = training_step(model, CROSS_ENTROPIES["full"], params, batch, {}, "scenario_mean")
    z, rtol = result.output.logit, 100 * np.finfo(dtype).eps
    terms = np.logaddexp(0.0, z) - batch.label * z
    np.testing.assert_allclose(result.losses["loss"], (terms[:15].mean() + terms[15:].mean()) / 2)
    d_terms = 1.0 / (1.0 + np.exp(-z)) - batch.label
    expected = (d_terms[:15].mean() + d_terms[15:].mean()) / 2
    head = result.grads["mlp"]["layer_3"]["b"]
    np.testing.assert_allclose(head, [expected], rtol=rtol)
    assert head.dtype == result.losses["loss"].dtype == dtype


@pytest.mark.parametrize("reduce", LOSS_REDUCTIONS)
def test_the_reduction_of_the_loss_reaches_every_step(reduce):
    dataset, model = toy_dataset(60), toy_model()
    config = TrainConfig(epochs=2, batch_size=60, lr=0.1, dtype="float64", loss_reduce=reduce)
    state, expected = start_run(model, config, config.adam), []
    for _ in range(2):
        batch = dataset.batch(np.arange(60))
        step = training_step(model, CROSS_ENTROPIES["full"], state.params, batch, {}, reduce)
        config.adam.update(state.params, step.grads, state.optimiser)
        expected.append(step.losses["loss"])
    history = fit(model, dataset, None, config).history
    found = [record["train_loss"] for record in history]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@dataclass(frozen=True)
class Exploding(DNN):
    """Multiplies one hidden bias until it overflows, from a given step on."""

    def draw(self, rng, batch):
        return {"x": rng.random(2)}

    def forward(self, params, batch, *, draws=None, frozen=None):
        if draws is not None and params["mlp"]["layer_1"]["b"][0] != 0.0:  # not the first step
            first = params["mlp"]["layer_2"]
            layer = {"W": first["W"] * np.float32(1e38) * np.float32(1e3), "b": first["b"]}
            params = params | {"mlp": params["mlp"] | {"layer_2": layer}}
        return super().forward(params, batch)


def test_a_loss_that_is_not_finite_names_step_layer_and_checkpoint(tmp_path):
    train = toy_dataset(200)
    model = Exploding(train.vocab_sizes, 1, 3, dim_embedding=4, hidden=(8, 4))
    config = TrainConfig(epochs=1, batch_size=32, checkpoint_every=1)
    with pytest.raises(NonFiniteLossError) as error:
        fit(model, train, toy_dataset(50, 1), config, run_dir=tmp_path)
    assert error.value.step == 2
    assert error.value.place.startswith("cache.network.mlp.affine[1].W")
    assert error.value.checkpoint == str(tmp_path / "checkpoint.safetensors")
    assert "at step 2; the first value that is not finite is cache.network.mlp" in str(error.value)


def test_a_learning_rate_that_is_far_too_large_is_reported_and_nothing_was_saved():
    config = TrainConfig(epochs=3, batch_size=32, lr=1e38)
    with pytest.raises(NonFiniteLossError, match="nothing was saved"):
        fit(toy_model(), toy_dataset(200), toy_dataset(50, 1), config)


def test_walk_cache_goes_layer_by_layer():
    Inner = namedtuple("Inner", "x W")
    Outer = namedtuple("Outer", "first affine A extra")
    zero = np.zeros(1)
    cache = Outer(zero, (Inner(zero, zero), Inner(zero, zero)), (zero,), {"k": None, "l": [zero]})
    assert [path for path, _ in walk_cache(cache, "c")] == [
        "c.first",
        "c.extra.l[0]",
        "c.affine[0].x",
        "c.affine[0].W",
        "c.A[0]",
        "c.affine[1].x",
        "c.affine[1].W",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: replace(d, label=np.zeros(len(d))), "rows have label 0; a classifier needs"),
        (lambda d: replace(d, label=None), "training rows have no labels"),
        (lambda d: d.take(np.arange(1)), "has 1 rows; that is too few"),
        (lambda d: d.take(np.arange(0)), "has 0 rows"),
        (lambda d: replace(d, scenario=np.full(len(d), -1)), "row 0 has an unknown scenario"),
        (lambda d: replace(d, vocab_sizes=(9, 9, 9)), "built for vocab_sizes"),
    ],
)
def test_data_that_cannot_be_trained_on(change, message):
    with pytest.raises(ValueError, match=message):
        fit(toy_model(), change(toy_dataset(50)), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"patience": 0}, "patience must be"),
        ({"seed": -1}, "seed must be"),
        ({"ce": "half"}, "ce must be one of"),
        ({"loss_reduce": "sum"}, "loss_reduce must be one of .*'scenario_mean'.*; got 'sum'"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"device": "tpu"}, "device must be one of"),
        ({"lr": -1.0}, "lr must be positive"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


def test_options_from_a_dictionary():
    config = TrainConfig(epochs=3, lr=0.5)
    assert TrainConfig.from_dict(config.as_dict()) == config
    with pytest.raises(ValueError, match=r"no option 'epoch'.*Did you mean 'epochs'"):
        TrainConfig.from_dict({"epoch": 3})


def test_prediction_does_not_depend_on_the_batch_size():
    model, dataset = toy_model(), toy_dataset(101)
    params = model.init(np.random.default_rng(0))
    whole = predict_logits(model, params, dataset)
    np.testing.assert_allclose(predict_logits(model, params, dataset, 10), whole, rtol=1e-12)
    assert predict_logits(model, params, dataset.take(np.arange(0))).shape == (0,)


def test_predictions_are_those_of_the_serving_form():
    class Folding(DNN):
        def serving_form(self, params):
            return toy_model(activation="tanh"), tree_map(np.negative, params)

    dataset = toy_dataset(50)
    model = Folding(dataset.vocab_sizes, 1, 3, dim_embedding=4, hidden=(8, 4))
    params = tree_map(lambda leaf: leaf + 0.1, model.init(np.random.default_rng(0)))
    served = model.serving_form(params)
    assert np.array_equal(predict_logits(model, params, dataset), predict_logits(*served, dataset))
    assert evaluate(model, params, dataset) == evaluate(*served, dataset)


def test_models_that_route_by_scenario_refuse_an_unknown_one():
    class Routing(DNN):
        routes_by_scenario = True

    dataset = toy_dataset(10)
    scenario = dataset.scenario.copy()
    scenario[4] = -1
    dataset = replace(dataset, scenario=scenario)
    model = Routing(dataset.vocab_sizes, 1, 3)
    params = model.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match="scenario of row 4 was not seen in training"):
        predict_logits(model, params, dataset)
    assert predict_logits(toy_model(), toy_model().init(np.random.default_rng(0)), dataset).size
