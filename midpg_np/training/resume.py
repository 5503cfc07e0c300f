"""The whole state of a training run, and its way to disk and back without losing a bit."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.data.batches import Dataset
from midpg_np.training.checkpoint import (
    check_params,
    read_file,
    with_prefix,
    without_prefix,
    write_file,
)
from midpg_np.training.config import TrainConfig
from midpg_np.training.flat_params import flat_views
from midpg_np.training.optim import Optimiser
from midpg_np.tree import Tree, tree_astype, tree_to_device, tree_unflatten

CHECKPOINT_FORMAT = "midpg_np.checkpoint"
# Options that may differ when a run is resumed: they change no step that was already taken.
FREE_OPTIONS = ("epochs", "patience", "checkpoint_every", "threads")


@dataclass
class RunState:
    """Everything that a step reads or changes.

    Parameters
    ----------
    params, optimiser : tree, optimiser state
        On the device.
    order, draws : numpy Generator
        Streams of the data order and of the model's random numbers.
    order_at_epoch : dict
        State of ``order`` before the running epoch, from which its order can be made again.
    epoch, batch, step : int
        Epochs finished, batches taken of the running epoch, steps taken in all.
    sums, n_rows : dict of float, int
        Sum of each loss over the rows since the last validation, and their number.
    history : list of dict
        One record per validation.
    best : tree or None
        Parameters of the best validation, on the host.
    best_record : dict or None
        Its record.
    bad : int
        Validations since then.
    seconds : float
        Wall-clock time, including that before an interruption.
    """

    params: Tree
    optimiser: Any
    order: np.random.Generator
    draws: np.random.Generator
    order_at_epoch: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    n_rows: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Tree | None = None
    best_record: dict[str, Any] | None = None
    bad: int = 0
    seconds: float = 0.0


COUNTERS = ("epoch", "batch", "step", "sums", "n_rows", "history", "best_record", "bad", "seconds")


def start_run(model: Any, config: TrainConfig, optimiser: Optimiser) -> RunState:
    """Return the state before the first step: three streams from one seed, parameters drawn."""
    streams = np.random.SeedSequence(config.seed).spawn(3)
    parameters, order, draws = (np.random.default_rng(stream) for stream in streams)
    buffers = getattr(model, "buffers", ())
    params = tree_to_device(tree_astype(model.init(parameters), config.dtype), config.device)
    params = _laid_out(optimiser, params, buffers)
    state = optimiser.init(params, buffers)
    return RunState(params, state, order, draws, dict(order.bit_generator.state))


def _laid_out(optimiser: Optimiser, params: Tree, buffers: Collection[str]) -> Tree:
    """Return the parameters where the optimiser wants them, if it has a wish."""
    return getattr(optimiser, "laid_out", flat_views)(params, buffers)


def fingerprint(
    model: Any,
    config: TrainConfig,
    optimiser: Optimiser,
    train: Dataset,
    valid: Dataset | None,
) -> dict[str, Any]:
    """Return what a resumed run must share with the interrupted one."""
    options = {k: v for k, v in config.as_dict().items() if k not in FREE_OPTIONS}
    return {
        "model": _settings(model),
        **options,
        "optimiser": _settings(optimiser),
        "training rows": _checksum(train),
        "validation rows": None if valid is None else _checksum(valid),
    }


def _settings(thing: Any) -> str:
    # The repr of an ordinary object holds its address, which no other process repeats.
    return repr(thing) if is_dataclass(thing) else type(thing).__qualname__


def _checksum(dataset: Dataset) -> str:
    return f"{len(dataset)} rows, crc32 {dataset.checksum():08x}"


def save_checkpoint(
    path: Path, state: RunState, optimiser: Optimiser, identity: dict[str, Any]
) -> None:
    """Save the whole state in one file, atomically; OSError if that fails."""
    arrays = with_prefix("params", state.params)
    arrays |= {
        f"optimiser.{name}": array
        for name, array in optimiser.state_arrays(state.optimiser).items()
    }
    if state.best is not None:
        arrays |= with_prefix("best", state.best)
    meta = {
        "identity": identity,
        "order": state.order_at_epoch,
        "draws": state.draws.bit_generator.state,
        "counters": {name: getattr(state, name) for name in COUNTERS},
    }
    write_file(path, CHECKPOINT_FORMAT, arrays, meta)


def load_checkpoint(
    path: Path, model: Any, config: TrainConfig, optimiser: Optimiser, identity: dict[str, Any]
) -> RunState:
    """Return the state that ``save_checkpoint`` saved.

    Raises
    ------
    ValueError
        If the file is not a whole checkpoint, or is one of another model, data or configuration.
    """
    arrays, meta = read_file(path, CHECKPOINT_FORMAT)
    missing = {"identity", "order", "draws", "counters"} - meta.keys()
    if missing:
        raise ValueError(f"{path}: the checkpoint lacks {sorted(missing)}.")
    _check_identity(path, meta["identity"], json.loads(json.dumps(identity)))
    flat, best = without_prefix("params", arrays), without_prefix("best", arrays)
    check_params(model, flat, str(path))
    buffers = getattr(model, "buffers", ())
    params = tree_to_device(tree_unflatten(flat), config.device)
    params = _laid_out(optimiser, params, buffers)
    state = RunState(
        params=params,
        optimiser=optimiser.restore(params, without_prefix("optimiser", arrays), buffers),
        order=_generator(meta["order"]),
        draws=_generator(meta["draws"]),
        order_at_epoch=meta["order"],
        best=tree_unflatten(best) if best else None,
    )
    for name in COUNTERS:
        setattr(state, name, meta["counters"][name])
    return state


def _check_identity(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in wanted:
        if saved.get(name) != wanted[name]:
            raise ValueError(
                f"{path}: the checkpoint was made with {name} = {saved.get(name)}, this run has "
                f"{name} = {wanted[name]}; resume with the same settings or use another folder."
            )


def _generator(state: dict[str, Any]) -> np.random.Generator:
    generator = np.random.default_rng()
    generator.bit_generator.state = state
    return generator
