"""The classifier keeps scikit-learn's rules and agrees with the library beneath it."""

import pickle
from dataclasses import fields

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from midpg_np.data import Encoder, Schema
from midpg_np.estimator import MultiScenarioClassifier
from midpg_np.models import MODELS, make_model
from midpg_np.ops import sigmoid
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import predict_logits
from midpg_np.training.loop import fit
from midpg_np.tree import tree_flatten

SMALL = {"dim_embedding": 8, "hidden": (16, 8)}
QUICK = {"epochs": 10, "lr": 0.02}  # enough for the accuracy that scikit-learn asks


def expected_failures(estimator):
    return estimator.EXPECTED_FAILED_CHECKS


@pytest.mark.slow
@parametrize_with_checks(
    [MultiScenarioClassifier(**QUICK)], expected_failed_checks=expected_failures
)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        MultiScenarioClassifier(name, **QUICK, validation_fraction=0.0)
        for name in MODELS
        if name != "midpg"
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_with_other_models(estimator, check):
    check(estimator)


def shop(n_rows=400, seed=0):
    """Rows of three shops: what a device says about a purchase turns round from shop to shop."""
    rng = np.random.default_rng(seed)
    columns = {"place": rng.choice(["app", "mail", "web"], n_rows)}
    columns["device"] = rng.choice(["phone", "desktop", "watch"], n_rows)
    columns |= {"item": rng.integers(0, 6, n_rows), "price": rng.normal(size=n_rows)}
    sign = np.where(columns["place"] == "app", 1.0, -1.0)
    logit = 2.0 * sign * np.where(columns["device"] == "phone", 1.0, -1.0) + columns["price"]
    return columns, (rng.random(n_rows) < 1 / (1 + np.exp(-logit))).astype(int)


def classifier(model="midpg", **options):
    defaults = {"scenario": "place", "aware": ["device"], "epochs": 8, "lr": 0.02}
    defaults |= {"model_options": SMALL, "random_state": 0}
    return MultiScenarioClassifier(model, **(defaults | options))


@pytest.fixture(scope="module")
def fitted():
    columns, y = shop()
    return classifier().fit(pd.DataFrame(columns), y)


def test_it_learns_what_differs_between_scenarios():
    columns, y = shop()
    fitted = classifier(random_state=2).fit(pd.DataFrame(columns), y)
    columns, y = shop(1000, seed=1)
    assert roc_auc_score(y, fitted.predict_proba(pd.DataFrame(columns))[:, 1]) > 0.8


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name):
    columns, y = shop()
    frame = pd.DataFrame(columns)
    known = {field.name for field in fields(MODELS[name])}  # not every model has ``hidden``
    options = {key: value for key, value in SMALL.items() if key in known}
    model = classifier(name, epochs=2, model_options=options).fit(frame, y)
    assert type(model.model_) is MODELS[name]
    p = model.predict_proba(frame)
    assert p.shape == (400, 2) and np.allclose(p.sum(axis=1), 1.0)
    assert np.array_equal(model.predict(frame), (p[:, 1] > 0.5).astype(int))
    assert np.allclose(sigmoid(model.decision_function(frame))[0], p[:, 1])


def test_options_may_name_columns():
    columns, y = shop()
    options = SMALL | {"prior_fields": ["item", "place"]}
    model = classifier("pepnet", epochs=1, model_options=options).fit(pd.DataFrame(columns), y)
    assert model.encoder_.schema.fields == ("place", "device", "item", "price")
    assert model.model_.prior_fields == (2, 0)
    assert options["prior_fields"] == ["item", "place"]


@pytest.mark.parametrize("loss_reduce", ["mean", "scenario_mean"])
def test_it_agrees_with_fit_and_predict_logits(loss_reduce):
    """The same encoder, the same training; rows are all for training, so no division is needed."""
    columns, y = shop()
    options = {"epochs": 3, "batch_size": 32, "validation_fraction": 0.0, "numeric": ["price"]}
    options["loss_reduce"] = loss_reduce
    model = classifier(**options).fit(pd.DataFrame(columns), y)
    schema = Schema("y", "place", ("place", "device"), ("item", "price"), ("price",))
    encoder = Encoder(schema).fit(columns | {"y": y})
    train = encoder.transform(columns | {"y": y})
    sizes = {name: getattr(train, name) for name in ("vocab_sizes", "n_aware", "n_scenarios")}
    own = make_model("midpg", **sizes, **SMALL)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    config = TrainConfig(
        epochs=3, batch_size=32, lr=0.02, patience=10, loss_reduce=loss_reduce, seed=seed
    )
    result = fit(own, train, None, config)
    assert model.n_iter_ == result.n_steps == 39
    found = tree_flatten(model.params_)
    for path, leaf in tree_flatten(result.params).items():
        assert found[path].tobytes() == leaf.tobytes(), path
    logits = predict_logits(own, result.params, train)
    assert np.allclose(model.decision_function(pd.DataFrame(columns)), logits, atol=1e-5)


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_frames_with_text(library, fitted):
    columns, y = shop()
    frame = library.DataFrame(columns)
    model = classifier().fit(frame, y)
    assert model.feature_names_in_.tolist() == list(columns)
    assert model.n_features_in_ == 4
    expected = fitted.predict_proba(pd.DataFrame(columns))
    assert np.array_equal(model.predict_proba(frame), expected)
    assert model.encoder_.schema.numeric == ("price",)
    assert model.encoder_.schema.aware == ("place", "device")


def test_arrays_name_columns_by_index(fitted):
    columns, y = shop()
    array = np.array(list(columns.values()), dtype=object).T
    model = classifier(scenario=0, aware=[1], numeric=[3]).fit(array, y)
    expected = fitted.predict_proba(pd.DataFrame(columns))
    assert np.array_equal(model.predict_proba(array), expected)
    assert not hasattr(model, "feature_names_in_")


def test_numeric_columns_are_chosen_by_type_or_by_name():
    columns, y = shop()
    frame = pd.DataFrame(columns)
    by_name = classifier(epochs=1, numeric=["price", "item"], n_bins=3).fit(frame, y)
    assert by_name.encoder_.schema.numeric == ("price", "item")
    assert by_name.encoder_.vocab_sizes == (4, 4, 4, 4)
    none = classifier(epochs=1, numeric=[]).fit(frame, y)
    assert none.encoder_.vocab_sizes[3] > 300
    one = classifier(epochs=1, scenario=None, aware=()).fit(frame, y)
    assert one.encoder_.n_scenarios == 1


def test_unknown_scenarios(fitted):
    columns, _ = shop(4, seed=2)
    frame = pd.DataFrame(columns | {"place": ["app", "kiosk", "web", "mail"]})
    with pytest.raises(ValueError, match="'place' holds 'kiosk' at row 1, which no training row"):
        fitted.predict(frame)
    shared = (
        clone(fitted).set_params(unknown_scenario="shared").fit(pd.DataFrame(shop()[0]), shop()[1])
    )
    p = shared.predict_proba(frame)
    assert np.isfinite(p).all()
    known = frame.iloc[[0, 2, 3]]
    assert np.allclose(p[[0, 2, 3]], fitted.predict_proba(known), rtol=1e-12)


def test_missing_values_and_unknown_categories_are_predicted(fitted):
    columns, y = shop()
    frame = pd.DataFrame(columns)
    new = frame.head(3).copy()
    new["device"] = ["toaster", None, "phone"]
    new.loc[2, "price"] = np.nan
    assert np.isfinite(fitted.predict_proba(new)).all()
    holes = frame.copy()
    holes.loc[::5, "price"] = np.nan
    holes.loc[::7, "device"] = None
    model = classifier(epochs=2).fit(holes, y)
    assert np.isfinite(model.predict_proba(holes)).all()
    X = np.column_stack([columns["item"], columns["price"]])
    X[::3] = np.nan
    assert np.isfinite(MultiScenarioClassifier(epochs=1).fit(X, y).predict_proba(X)).all()


def test_labels_are_given_back_as_they_came():
    columns, y = shop()
    frame = pd.DataFrame(columns)
    text = np.where(y == 1, "sold", "not sold")
    model = classifier(epochs=2).fit(frame, text)
    assert model.classes_.tolist() == ["not sold", "sold"]
    assert set(model.predict(frame)) <= {"sold", "not sold"}
    numbers = classifier(epochs=2).fit(frame, y)
    assert np.array_equal(model.predict_proba(frame), numbers.predict_proba(frame))
    assert np.array_equal(model.predict(frame) == "sold", numbers.predict(frame) == 1)


def test_random_state():
    columns, y = shop(200)
    frame = pd.DataFrame(columns)
    first, again, other = (
        classifier(epochs=2, random_state=seed).fit(frame, y).decision_function(frame)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    stream = classifier(epochs=2, random_state=np.random.RandomState(1)).fit(frame, y)
    assert np.array_equal(stream.decision_function(frame), first)


def test_pickle_and_clone(fitted):
    columns, _ = shop(50, seed=3)
    back, frame = pickle.loads(pickle.dumps(fitted)), pd.DataFrame(columns)
    assert np.array_equal(back.predict_proba(frame), fitted.predict_proba(frame))
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "model_")


def test_early_stopping_uses_rows_of_its_own(fitted):
    assert fitted.history_[0]["rows"] == 360  # of 400; the others validate
    assert {"valid_auc", "valid_logloss"} <= fitted.history_[0].keys()
    columns, y = shop()
    without = classifier(epochs=2, validation_fraction=0.0).fit(pd.DataFrame(columns), y)
    assert without.history_[0]["rows"] == 400
    assert without.history_[0].get("valid_auc") is None


class TestSearches:
    """Pipelines, searches and cross-validation."""

    def test_pipeline(self):
        columns, y = shop()
        X = np.column_stack([columns["item"], columns["price"]]).astype(float)
        scaled = make_pipeline(StandardScaler(), MultiScenarioClassifier(epochs=2, random_state=0))
        assert scaled.fit(X, y).predict_proba(X).shape == (400, 2)
        add = FunctionTransformer(lambda frame: frame.assign(cheap=frame["price"] < 0))
        pipe = make_pipeline(add, classifier(epochs=2, aware=["device", "cheap"]))
        frame = pd.DataFrame(columns)
        assert pipe.fit(frame, y).score(frame, y) > 0.5
        assert pipe[-1].encoder_.schema.aware == ("place", "device", "cheap")

    def test_grid_search_over_models_and_variants(self):
        columns, y = shop(240)
        grid = [
            {"model": ["dnn"]},
            {"model": ["midpg"], "model_options": [SMALL | {"variant": v} for v in ("r", "non")]},
        ]
        search = GridSearchCV(classifier(epochs=1), grid, cv=2, scoring="roc_auc")
        search.fit(pd.DataFrame(columns), y)
        assert len(search.cv_results_["params"]) == 3
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.best_estimator_.model == search.best_params_["model"]

    def test_cross_validation(self):
        columns, y = shop()
        scores = cross_val_score(classifier(), pd.DataFrame(columns), y, cv=3, scoring="roc_auc")
        assert scores.shape == (3,) and scores.min() > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "midgp"}, "Did you mean 'midpg'"),
        ({"scenario": "plase"}, "X has no column 'plase'; .* Did you mean 'place'"),
        ({"aware": ["devise"]}, "X has no column 'devise'; .* Did you mean 'device'"),
        ({"numeric": ["prise"]}, "X has no column 'prise'; .* Did you mean 'price'"),
        ({"numeric": "price"}, "numeric must be 'auto' or column names; got 'price'"),
        ({"numeric": ["device"]}, "numeric column 'device' must hold finite numbers; got '"),
        ({"model_options": {"gian": 2}}, "has no option 'gian'.* Did you mean 'gain'"),
        ({"validation_fraction": 1.0}, r"validation_fraction must lie in \[0, 1\); got 1.0"),
        ({"batch_size": "all"}, "batch_size must be a whole number >= 1; got 'all'"),
        ({"device": "gpu"}, "device must be one of"),
        ({"loss_reduce": "sum"}, "loss_reduce must be one of"),
        (
            {"unknown_scenario": "guess"},
            "unknown_scenario must be 'error' or 'shared'; got 'guess'",
        ),
        ({"aware": "device"}, "aware must be a list of columns; got 'device'"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_options_are_checked_in_fit(options, message):
    """And not in the constructor, as scikit-learn asks."""
    columns, y = shop(120)
    model = classifier(**({"epochs": 1} | options))
    with pytest.raises(ValueError, match=message):
        model.fit(pd.DataFrame(columns), y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(120), "y must hold 2 classes; got only 1 class, .*0.* in all 120 rows"),
        (np.arange(120) % 3, "Only binary classification is supported. The type of the target is"),
        (np.linspace(0, 1, 120), "[Uu]nknown label type"),
        (np.where(np.arange(120) % 2, 1.0, np.nan), "NaN"),
        (np.arange(119) % 2, "inconsistent"),
    ],
    ids=["one class", "three classes", "numbers", "missing", "too few"],
)
def test_labels_that_cannot_be_learned(y, message):
    columns, _ = shop(120)
    with pytest.raises(ValueError, match=message):
        classifier(epochs=1).fit(pd.DataFrame(columns), y)


def test_frames_that_do_not_fit(fitted):
    columns, _ = shop(10)
    frame = pd.DataFrame(columns)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame.rename(columns={"price": "prise"}))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        fitted.predict(frame.head(0))
    with pytest.raises(ValueError, match=r"numeric column 'price'.* got inf at row 0"):
        fitted.predict(frame.assign(price=np.inf))
