"""Logits and metrics of a model on a data set, in batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.backend import to_numpy
from midpg_np.data.batches import Dataset
from midpg_np.data.errors import RowError
from midpg_np.training.metrics import Metrics, evaluate_logits
from midpg_np.tree import Tree, tree_to_device


def predict_logits(
    model: Any, params: Tree, dataset: Dataset, batch_size: int = 4096, device: str = "cpu"
) -> np.ndarray:
    """Return the logit of every row, on the host, in the dtype of the parameters.

    Shapes
    ------
    logits : (N,)

    Raises
    ------
    ValueError
        If the model routes rows by scenario (``model.routes_by_scenario``) and a row's scenario is
        -1, unknown; or if the data was encoded for other vocabularies than the model's.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    check_fits(model, dataset)
    if getattr(model, "routes_by_scenario", False):
        _check_scenarios(model, dataset)
    if hasattr(model, "serving_form"):
        model, params = model.serving_form(params)
    params = tree_to_device(params, device)
    parts = []
    for start in range(0, len(dataset), batch_size):
        rows = np.arange(start, min(start + batch_size, len(dataset)))
        batch = dataset.batch(rows)._replace(label=None).to(device)
        parts.append(to_numpy(model.forward(params, batch)[0].logit))
    return np.concatenate(parts) if parts else np.zeros(0)


def evaluate(
    model: Any, params: Tree, dataset: Dataset, batch_size: int = 4096, device: str = "cpu"
) -> Metrics:
    """Return the metrics of a model on a labelled data set.

    Raises
    ------
    ValueError
        If the data set has no labels, or as ``predict_logits`` does.
    """
    if dataset.label is None:
        raise ValueError("metrics need labels; this data set was encoded without them.")
    logits = predict_logits(model, params, dataset, batch_size, device)
    return evaluate_logits(logits, dataset.label, dataset.scenario, dataset.scenario_names)


def check_fits(model: Any, dataset: Dataset) -> None:
    """Raise ValueError unless the data set has the fields and vocabularies of the model."""
    for name in ("vocab_sizes", "n_aware", "n_scenarios"):
        expected, received = getattr(model, name), getattr(dataset, name)
        if expected != received:
            raise ValueError(
                f"the model was built for {name} = {expected}, but the data set has {received}; "
                "encode the rows with the encoder that was saved with the model."
            )


def _check_scenarios(model: Any, dataset: Dataset) -> None:
    unknown = np.flatnonzero(dataset.scenario < 0)
    if unknown.size:
        raise RowError(
            f"{type(model).__name__} routes each row by its scenario, but the scenario of row ",
            int(unknown[0]),
            " was not seen in training; leave such rows out or use a model that shares its "
            "parameters, such as MI-DPG.",
        )
