"""One training step, and what to say when its loss is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array, constant, get_xp, to_numpy
from midpg_np.batch import Batch
from midpg_np.losses import LOSS_REDUCTIONS, Loss
from midpg_np.models.protocol import Draws, ModelOutput
from midpg_np.training.penalties import NAME, Penalty
from midpg_np.training.tiles import Tiles, takes_tiles, tiled_pass
from midpg_np.tree import Tree, tree_items


class StepResult(NamedTuple):
    """Losses by name ("loss" is the sum that is minimised), gradients, and all intermediates."""

    losses: dict[str, Array]
    grads: Tree
    output: ModelOutput
    cache: Any


def training_step(
    model: Any,
    loss: Loss,
    params: Tree,
    batch: Batch,
    draws: Draws,
    loss_reduce: str = "mean",
    tiles: Tiles | None = None,
    penalty: Penalty | None = None,
) -> StepResult:
    """Differentiate L = CE + sum over auxiliary terms of weight * term; nothing is changed.

    See derivations 3.3c, 10.1g.

    With ``tiles``, models that offer ``embed`` and ``network`` do it tile by tile; the result is
    the same to rounding, and has no cache unless the loss is not finite.  With a ``penalty``
    L has one term more, "l2", which sees parameters alone and so neither tiles nor draws.
    """
    result = _model_step(model, loss, params, batch, draws, loss_reduce, tiles)
    if penalty is None:
        return result
    about = getattr(model, "buffers", ()), getattr(model, "l2_centres", None)
    l2, cache = penalty.forward(params, rows_read(model, batch), batch.n_rows, *about)
    losses = result.losses | {"loss": result.losses["loss"] + l2, NAME: l2}
    return result._replace(losses=losses, grads=penalty.add_gradient(result.grads, 1.0, cache))


def _model_step(
    model: Any,
    loss: Loss,
    params: Tree,
    batch: Batch,
    draws: Draws,
    loss_reduce: str,
    tiles: Tiles | None,
) -> StepResult:
    assert batch.label is not None
    weigh = LOSS_REDUCTIONS[loss_reduce]
    row_weights = None if weigh is None else weigh(batch.scenario, batch.label.dtype)
    if tiles is not None and takes_tiles(model):
        ce, output, grads, cache = tiled_pass(model, loss, params, batch, draws, row_weights, tiles)
        losses = _losses(ce, output, model.auxiliary_weights)
        if np.isfinite(float(losses["loss"])):
            return StepResult(losses, grads, output, cache)
        # Something overflowed; the pass below keeps what shows where.
    output, cache = model.forward(params, batch, draws=draws)
    ce, c_ce = loss.forward(output.logit, batch.label, row_weights)
    d_output = ModelOutput(loss.backward(1.0, c_ce), model.auxiliary_weights)
    grads = model.backward(d_output, cache)
    return StepResult(_losses(ce, output, model.auxiliary_weights), grads, output, cache)


def _losses(ce: Array, output: ModelOutput, weights: Mapping[str, float]) -> dict[str, Array]:
    total = ce
    for name, weight in weights.items():
        total = total + weight * output.auxiliary[name]
    return {"loss": total, "ce": ce} | output.auxiliary


def host_batch(batch: Batch, dtype: str) -> Batch:
    """Return the batch with its label in the dtype of the parameters, so that float32 stays."""
    assert batch.label is not None
    return batch._replace(label=batch.label.astype(dtype))


def host_numbers(losses: Sequence[Mapping[str, Array]]) -> list[dict[str, float]]:
    """Return the losses of several steps as numbers; on a GPU by one transfer for all of them."""
    values = [value for of_step in losses for value in of_step.values()]
    far = [i for i, x in enumerate(values) if not isinstance(x, (float, np.generic, np.ndarray))]
    if far:
        on_device = [values[i] for i in far]
        arrived = to_numpy(get_xp(*on_device).stack(on_device)).tolist()
        for i, x in zip(far, arrived, strict=True):
            values[i] = x
    numbers = map(float, values)
    return [{name: next(numbers) for name in of_step} for of_step in losses]


def rows_read(model: Any, batch: Batch) -> dict[str, Array]:
    """Return which rows of which tables forward will read, for optimisers that defer rows.

    A model with other tables than ``embedding.table`` may define ``rows_read(batch)`` itself;
    tables that nobody names are brought up to date as a whole, which is slow but right.
    """
    if hasattr(model, "rows_read"):
        return dict(model.rows_read(batch))
    if hasattr(model, "embedding"):
        offsets = constant(get_xp(batch.codes), tuple(model.embedding.offsets))
        return {"embedding.table": batch.codes + offsets}
    return {}


class NonFiniteLossError(ArithmeticError):
    """Training met a loss that is not a number; says where, and which checkpoint is still good.

    Parameters
    ----------
    step : int
        The step, counted from 1.
    place : str
        First array that is not finite, such as ``"cache.network.mlp.A[1]"``.
    checkpoint : str or None
        The last checkpoint, if there is one.
    """

    def __init__(self, step: int, value: float, place: str, checkpoint: str | None) -> None:
        self.step, self.place, self.checkpoint = step, place, checkpoint
        saved = f"the last good checkpoint is {checkpoint}" if checkpoint else "nothing was saved"
        super().__init__(
            f"the loss is {value} at step {step}; the first value that is not finite is {place}; "
            f"{saved}. Try a smaller learning rate, or look at the rows of this batch."
        )


def first_non_finite(params: Tree, result: StepResult) -> str:
    """Name the first array that is not finite: parameters, then intermediates in order, then logit.

    If it is a parameter, the gradient of the step before was not finite.
    """
    bad_parameter = first_bad_parameter(params)
    if bad_parameter is not None:
        return bad_parameter
    for path, array in walk_cache(result.cache, "cache"):
        if _count_bad(array):
            return f"{path} ({_describe(array)})"
    if _count_bad(result.output.logit):
        return f"output.logit ({_describe(result.output.logit)})"
    bad = [name for name, value in result.losses.items() if not np.isfinite(float(value))]
    return f"the loss term {bad[-1]!r}"


def first_bad_parameter(params: Tree) -> str | None:
    """Describe the first parameter that is not finite, or return None."""
    for path, leaf in tree_items(params):
        if _count_bad(leaf):
            return f"parameter {path} ({_describe(leaf)})"
    return None


def walk_cache(cache: Any, path: str) -> Iterator[tuple[str, Array]]:
    """Yield ``(path, array)`` for every array of a cache, in the order of computation.

    Fields of a named tuple come in their order; fields that are sequences (one entry per layer)
    are read side by side, because layer 2 is computed after all of layer 1.
    """
    if isinstance(cache, Mapping):
        for key, value in cache.items():
            yield from walk_cache(value, f"{path}.{key}")
    elif isinstance(cache, tuple) and hasattr(cache, "_fields"):
        per_layer: list[list[tuple[str, Any]]] = []
        for name, value in zip(cache._fields, cache, strict=True):
            if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
                per_layer.append([(f"{path}.{name}[{i}]", v) for i, v in enumerate(value)])
            else:
                yield from walk_cache(value, f"{path}.{name}")
        for layer in zip_longest(*per_layer):
            for entry in layer:
                if entry is not None:
                    yield from walk_cache(entry[1], entry[0])
    elif isinstance(cache, (tuple, list)):
        for i, value in enumerate(cache):
            yield from walk_cache(value, f"{path}[{i}]")
    elif hasattr(cache, "dtype") and hasattr(cache, "shape"):
        yield path, cache


def _count_bad(array: Array) -> int:
    if array.dtype.kind not in "fc":
        return 0
    if not array.shape:  # a NumPy scalar belongs to no namespace
        return int(not np.isfinite(float(array)))
    return int((~get_xp(array).isfinite(array)).sum())


def _describe(array: Array) -> str:
    shape = " x ".join(map(str, array.shape)) or "scalar"
    return f"{_count_bad(array)} of {array.size} entries, shape {shape}"
