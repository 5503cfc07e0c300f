"""What an earlier run left in its folder: refused, read back, or gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midpg_np.training.metrics import Metrics, ScenarioMetrics
from midpg_np.training.trainer import CHECKPOINT, FINISHED

BASELINE = "baseline"  # folder of the baseline's own run, within that of the model


def check_unused(folder: Path) -> None:
    """Raise FileExistsError if the folder holds a run, finished or interrupted."""
    folders = (folder, folder / BASELINE)
    if any((part / CHECKPOINT).exists() for part in folders):
        raise FileExistsError(
            f"{folder} holds an interrupted run; go on with it by --resume, choose another folder "
            "by --out, or delete it."
        )
    if any((part / FINISHED).exists() for part in folders):
        raise FileExistsError(
            f"{folder} holds a finished run; choose another folder by --out, or delete it."
        )


def is_finished(folder: Path) -> bool:
    """Whether a run finished and all its files were written: its checkpoint is removed last."""
    return (folder / FINISHED).exists() and not (folder / CHECKPOINT).exists()


def reopen(folder: Path) -> None:
    """Let a run that was killed while its files were being written be gone on with.

    A baseline without checkpoint is trained again, with the same result.
    """
    for part in (folder, folder / BASELINE):
        (part / FINISHED).unlink(missing_ok=True)


def read_finished(
    folder: Path, runs: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Metrics]:
    """Return the metrics of a finished run by name of the model, the main one first.

    Raises
    ------
    ValueError
        If the run had another model, other options or other data than ``runs`` and ``data`` say.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = {"runs": config["runs"], "data": config["data"]}
    wanted = json.loads(json.dumps({"runs": runs, "data": data}))
    if found != wanted:
        place, was, now = _first_difference(found, wanted)
        raise ValueError(
            f"{folder} holds a finished run with {place} = {was!r}; this command has {now!r}. "
            "Choose another folder by --out."
        )
    scores = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    return {name: _metrics(scores[name]) for name in runs}


def _first_difference(found: Any, wanted: Any, place: str = "") -> tuple[str, Any, Any]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*wanted, *found)):
            if found.get(key) != wanted.get(key):
                inner = f"{place}.{key}" if place else key
                return _first_difference(found.get(key), wanted.get(key), inner)
    return place, found, wanted


def _metrics(scores: Mapping[str, Any]) -> Metrics:
    names = ("n_rows", "positive_rate", "auc", "logloss", "macro_auc", "macro_logloss")
    scenarios = tuple(ScenarioMetrics(**scenario) for scenario in scores["scenarios"])
    return Metrics(**{name: scores[name] for name in names}, scenarios=scenarios)
