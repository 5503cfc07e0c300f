"""A scikit-learn classifier around every model, for pipelines, searches and cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from midpg_np.data.batches import Dataset, split_by_fraction
from midpg_np.data.encoding import Encoder
from midpg_np.data.frames import check_columns, column_names, columns_of
from midpg_np.data.schema import Schema
from midpg_np.models import model_for
from midpg_np.ops import sigmoid
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import predict_logits
from midpg_np.training.loop import fit
from midpg_np.tree import tree_astype

# Names for what a table of features does not have; no column of a user is called like this.
_LABEL = "(label)"
_SCENARIO = "(scenario)"

# Fewer rows than this are all needed for training; there is no early stopping then.
_ROWS_FOR_VALIDATION = 100


class MultiScenarioClassifier(ClassifierMixin, BaseEstimator):
    """Binary classifier for rows of several scenarios.

    Parameters
    ----------
    model : str
        A name in ``midpg_np.models.MODELS``.
    scenario : str or int, optional
        Column that says which scenario a row belongs to: a name for frames, an index for arrays.
        None: all rows are one scenario.
    aware : sequence of str or int
        Columns besides ``scenario`` that feed the weighting matrices.
    numeric : "auto" or sequence of str or int
        Columns that are numbers, to be cut into quantile bins; all others are categories.  "auto":
        columns of floating-point numbers, but for ``scenario`` and ``aware``.
    n_bins : int
        Number of quantile bins of a numeric column.
    model_options : mapping, optional
        Options of the model, such as ``{"variant": "rc", "gain": 2.0}``.
    epochs : int
        Epochs at most.
    batch_size : int or "auto"
        Rows per step; "auto" is 512, or a tenth of the rows if that is less (at least 8).
    lr : float
        Adam's learning rate.
    validation_fraction : float
        Share of the rows kept for early stopping; 0, or fewer than 100 rows: none.
    patience : int
        Stop after this many epochs without a better validation AUC.
    loss_reduce : str
        "mean" over the rows of a batch, or "scenario_mean": over its scenarios, of their means.
    unknown_scenario : str
        "error": refuse rows of a scenario that no training row had.  "shared": predict them with
        models that do not route by scenario.
    device : str
        "cpu" or "cuda".
    random_state : int, RandomState or None
        Seed of everything random.

    Attributes
    ----------
    classes_ : (2,) array
        Labels, ascending; probabilities are of the second.
    model_ : Model
    params_ : tree
        Parameters of the best epoch.
    encoder_ : Encoder
    history_ : list of dict
        One record per epoch.
    n_features_in_ : int
    feature_names_in_ : array of str
        For frames with text as column names.
    n_iter_ : int
        Optimiser steps taken.
    """

    # Checks of scikit-learn that are expected to fail, each with its reason.
    EXPECTED_FAILED_CHECKS: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        model: str = "midpg",
        *,
        scenario: str | int | None = None,
        aware: Sequence[str | int] = (),
        numeric: str | Sequence[str | int] = "auto",
        n_bins: int = 16,
        model_options: Mapping[str, Any] | None = None,
        epochs: int = 50,
        batch_size: int | str = "auto",
        lr: float = 3e-3,
        validation_fraction: float = 0.1,
        patience: int = 10,
        loss_reduce: str = "mean",
        unknown_scenario: str = "error",
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.scenario = scenario
        self.aware = aware
        self.numeric = numeric
        self.n_bins = n_bins
        self.model_options = model_options
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.loss_reduce = loss_reduce
        self.unknown_scenario = unknown_scenario
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    def fit(self, X: Any, y: Any) -> MultiScenarioClassifier:
        """Learn vocabularies, bins and the model.

        Parameters
        ----------
        X : (N, F) array, or frame of pandas or polars
        y : (N,) array of two classes

        Raises
        ------
        ValueError
            If columns, labels or options are wrong.
        """
        self._check_options()
        columns, y = self._validated(X, y, reset=True)
        self.classes_, label = self._encode_label(y)
        schema = self._schema(columns)
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        table = self._table(columns) | {_LABEL: label}
        train_rows, valid_rows = self._divide(label, seed)
        self.encoder_ = Encoder(schema).fit(_rows(table, train_rows))
        train = self.encoder_.transform(_rows(table, train_rows))
        valid = self._valid(table, valid_rows)
        self.model_ = model_for(self.model, train, self.model_options or {})
        result = fit(self.model_, train, valid, self._config(len(train), seed))
        self.params_, self.history_ = result.params, result.history
        self.n_iter_ = result.n_steps
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (N,) of the second class, for the rows X."""
        check_is_fitted(self)
        columns, _ = self._validated(X, None, reset=False)
        dataset = self.encoder_.transform(
            self._table(columns),
            unknown_scenario=self.unknown_scenario,
            require_label=False,
            warn=False,
        )
        # In float64, so that the prediction of a row does not depend on its neighbours' number.
        params = tree_astype(self.params_, np.float64)
        return predict_logits(self.model_, params, dataset, device=self.device)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (N, 2), for the rows X."""
        positive = sigmoid(self.decision_function(X))[0]
        return np.column_stack([1.0 - positive, positive])

    def predict(self, X: Any) -> np.ndarray:
        """Return the more probable class of each row of X, (N,)."""
        is_second = self.decision_function(X) > 0
        return self.classes_[is_second.astype(int)]

    def _check_options(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction must lie in [0, 1); got {self.validation_fraction}."
            )
        if self.unknown_scenario not in ("error", "shared"):
            raise ValueError(
                f"unknown_scenario must be 'error' or 'shared'; got {self.unknown_scenario!r}."
            )
        if isinstance(self.aware, str):  # its letters would be taken for columns
            raise ValueError(f"aware must be a list of columns; got {self.aware!r}.")
        if isinstance(self.numeric, str) and self.numeric != "auto":
            raise ValueError(f"numeric must be 'auto' or column names; got {self.numeric!r}.")

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[dict[str, np.ndarray], Any]:
        """Check X (and y) as scikit-learn does; return the columns of X by name."""
        target = {} if y is None else {"y": y}
        if hasattr(X, "columns"):  # a frame: columns keep their own types
            checked = validate_data(self, X, **target, reset=reset, skip_check_array=True)
            X = checked[0] if target else checked
            if len(X) == 0:
                raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
            columns = {str(k): v for k, v in columns_of(X, column_names(X)).items()}
            check_consistent_length(*columns.values(), *target.values())
            return columns, y
        checked = validate_data(
            self,
            X,
            **target,
            reset=reset,
            dtype=None if _holds_text(X) else "numeric",
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
        )
        X, y = checked if target else (checked, None)
        return {str(f): X[:, f] for f in range(X.shape[1])}, y

    def _encode_label(self, y: Any) -> tuple[np.ndarray, np.ndarray]:
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if (kind := type_of_target(y, input_name="y", raise_unknown=True)) != "binary":
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}."
            )
        classes, label = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"y must hold 2 classes; got only 1 class, {classes[0]!r}, in all {len(y)} rows."
            )
        return classes, label

    def _schema(self, columns: Mapping[str, np.ndarray]) -> Schema:
        scenario = _SCENARIO if self.scenario is None else str(self.scenario)
        aware = [scenario, *(str(name) for name in self.aware if str(name) != scenario)]
        given = [] if isinstance(self.numeric, str) else [str(name) for name in self.numeric]
        wanted = [name for name in (*aware, *given) if name != _SCENARIO]
        check_columns(wanted, list(columns), "X")
        agnostic = [name for name in columns if name not in aware]
        floats = [name for name in agnostic if columns[name].dtype.kind == "f"]
        numeric = floats if isinstance(self.numeric, str) else given
        return Schema(
            _LABEL, scenario, tuple(aware), tuple(agnostic), tuple(numeric), n_bins=self.n_bins
        )

    def _table(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.scenario is not None:
            return dict(columns)
        return {_SCENARIO: np.zeros(len(next(iter(columns.values()))), dtype=np.int64), **columns}

    def _divide(self, label: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(len(label))
        if self.validation_fraction == 0.0 or len(label) < _ROWS_FOR_VALIDATION:
            return rows, rows[:0]
        fractions = (1.0 - self.validation_fraction, self.validation_fraction)
        train, valid = split_by_fraction(
            len(label), fractions, np.random.default_rng(seed), strata=label
        )
        return train, valid

    def _valid(self, table: Mapping[str, np.ndarray], rows: np.ndarray) -> Dataset | None:
        """Encode the validation rows, but for those of scenarios without training rows."""
        part = _rows(table, rows)
        if len(rows):
            part = _rows(part, np.flatnonzero(self.encoder_.knows_scenario(part)))
        if not len(part[_LABEL]):
            return None
        return self.encoder_.transform(part, warn=False)

    def _config(self, n_rows: int, seed: int) -> TrainConfig:
        size: Any = self.batch_size  # TrainConfig checks it
        return TrainConfig(
            epochs=self.epochs,
            batch_size=min(512, max(8, n_rows // 10)) if size == "auto" else size,
            lr=self.lr,
            patience=self.patience,
            loss_reduce=self.loss_reduce,
            seed=seed,
            device=self.device,
        )


def _rows(table: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in table.items()}


def _holds_text(X: Any) -> bool:
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    is_text = kind in ("U", "S")
    return is_text or (kind == "O" and any(isinstance(value, str) for value in np.asarray(X).flat))
