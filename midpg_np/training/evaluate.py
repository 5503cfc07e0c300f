"""Logits and metrics of a model on a data set, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from midpg_np.backend import keep_freed_memory
from midpg_np.batch import Batch
from midpg_np.data.batches import Dataset
from midpg_np.data.errors import RowError
from midpg_np.kernels import loops_around
from midpg_np.training.blas import blas_threads
from midpg_np.training.by_context import is_by_context, logits_in_batches, logits_in_blocks
from midpg_np.training.metrics import Metrics, evaluate_logits
from midpg_np.tree import Tree, tree_to_device

_PROBES = (16, 48)  # rows
_FEWEST_ROWS = 256
# Bytes that the intermediates of a batch may take, and the largest batch.  On a CPU this is what
# stays in its caches; on a GPU, what keeps it busy.
_MEMORY = {"cpu": (2**24, 4096), "cuda": (2**30, 65_536)}


def predict_logits(
    model: Any,
    params: Tree,
    dataset: Dataset,
    batch_size: int | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """Return the logit of every row, on the host, in the dtype of the parameters.

    A model with ``plain_by_context`` predicts the rows of a context together, as a plain network:
    the same to rounding as its ``forward``, and by the same rule wherever rows are predicted.

    Parameters
    ----------
    model, params
        A model, and its parameters on the host.
    dataset : Dataset
        Encoded rows; labels are not read.
    batch_size : int, optional
        Rows predicted at a time; ``rows_per_batch`` of the model, if not given.
    device : str
        "cpu" or "cuda", where to compute.

    Shapes
    ------
    logits : (N,)

    Raises
    ------
    ValueError
        If the model routes rows by scenario (``model.routes_by_scenario``) and a row's scenario is
        -1, unknown; or if the data was encoded for other vocabularies than the model's.
    """
    model, params = serving(model, params, device)
    return logits_of(model, params, dataset, batch_size, device)


def serving(model: Any, params: Tree, device: str = "cpu") -> tuple[Any, Tree]:
    """Return the model in its smaller form for predictions, if it has one, on the device."""
    if hasattr(model, "serving_form"):
        model, params = model.serving_form(params)
    return model, tree_to_device(params, device)


def logits_of(
    model: Any, params: Tree, dataset: Dataset, batch_size: int | None, device: str = "cpu"
) -> np.ndarray:
    """Return logits as ``predict_logits`` does, of a model that ``serving`` prepared."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    check_fits(model, dataset)
    if getattr(model, "routes_by_scenario", False):
        _check_scenarios(model, dataset)
    if batch_size is None:
        few = len(dataset) <= _FEWEST_ROWS
        batch_size = _FEWEST_ROWS if few else rows_per_batch(model, params, device)
    keep_freed_memory()
    predict = logits_in_blocks if is_by_context(model) else logits_in_batches
    with blas_threads(1), loops_around(len(dataset)):
        return predict(model, params, dataset.batch(), batch_size, device)


def rows_per_batch(model: Any, params: Tree, device: str = "cpu") -> int:
    """Return how many rows to predict at a time, by the memory that a row takes.

    The largest power of two, from 256 to 4,096, for which all intermediates of a forward pass fit
    into 16 MiB (on a GPU: up to 65,536, and 1 GiB); 256 if they do not.  What a row takes is
    measured, on the caches of two small batches: what does not grow with the batch is left out.

    Parameters
    ----------
    model, params
        As ``serving`` prepared them, on the device.
    """
    small, large = (
        sum(_array_sizes(model.forward(params, _probe(model, n_rows).to(device))[1], set()))
        for n_rows in _PROBES
    )
    bytes_per_row = max(1, (large - small) // (_PROBES[1] - _PROBES[0]))
    memory, most = _MEMORY[device]
    fitting = max(_FEWEST_ROWS, min(most, memory // bytes_per_row))
    return int(2 ** (fitting.bit_length() - 1))


def _probe(model: Any, n_rows: int) -> Batch:
    codes = np.zeros((n_rows, len(model.vocab_sizes)), dtype=np.int64)
    return Batch(codes, np.zeros(n_rows, dtype=np.int64))


def _array_sizes(part: Any, seen: set[int]) -> Iterator[int]:
    """Yield the bytes of every array in a cache once, whatever views of it there are."""
    if hasattr(part, "nbytes"):
        while hasattr(getattr(part, "base", None), "nbytes"):
            part = part.base
        if id(part) not in seen:
            seen.add(id(part))
            yield part.nbytes
    elif isinstance(part, Mapping):
        yield from _array_sizes(tuple(part.values()), seen)
    elif isinstance(part, (tuple, list)):
        for inner in part:
            yield from _array_sizes(inner, seen)


def evaluate(
    model: Any,
    params: Tree,
    dataset: Dataset,
    batch_size: int | None = None,
    device: str = "cpu",
) -> Metrics:
    """Return the metrics of a model on a labelled data set.

    Parameters
    ----------
    model, params, dataset, batch_size, device
        As ``predict_logits`` takes them; the data set has labels.

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
