"""What a data set holds, as plain numbers and text: rows, positives and scenarios per part."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.data.batches import Dataset
from midpg_np.data.splits import Splits


def describe(data: Splits | Dataset) -> dict[str, Any]:
    """Describe a data set, ready for JSON or a printed table.

    Parameters
    ----------
    data : Splits or Dataset

    Returns
    -------
    dict
        ``fields``: a list of {name, role, vocab_size}.  ``parts``: for each part (for a lone
        ``Dataset``, "all") {rows, positives, positive_rate, unknown_counts, scenarios}, where
        ``scenarios`` lists {name, rows, positives, positive_rate}.  Rates are None without rows or
        labels.  For ``Splits`` also ``name`` and ``notes``.
    """
    if isinstance(data, Dataset):
        return {"fields": _fields(data), "parts": {"all": _part(data)}}
    return {
        "name": data.name,
        "notes": list(data.notes),
        "fields": _fields(data.train),
        "parts": {part: _part(dataset) for part, dataset in data.parts.items()},
    }


def _fields(data: Dataset) -> list[dict[str, Any]]:
    return [
        {"name": name, "role": "aware" if f < data.n_aware else "agnostic", "vocab_size": size}
        for f, (name, size) in enumerate(zip(data.field_names, data.vocab_sizes, strict=True))
    ]


def _part(data: Dataset) -> dict[str, Any]:
    # One bin more, at the front, for scenario id -1: unknown.
    rows = np.bincount(data.scenario + 1, minlength=data.n_scenarios + 1)
    positives = None
    if data.label is not None:
        positives = np.bincount(data.scenario + 1, data.label, minlength=data.n_scenarios + 1)
    scenarios = [
        {"name": name} | _counts(rows[d + 1], None if positives is None else positives[d + 1])
        for d, name in enumerate(data.scenario_names)
    ]
    if rows[0]:
        unknown = _counts(rows[0], None if positives is None else positives[0])
        scenarios.append({"name": "(unknown)"} | unknown)
    total = _counts(len(data), None if data.label is None else data.label.sum())
    return total | {"unknown_counts": dict(data.unknown_counts), "scenarios": scenarios}


def _counts(rows: int, positives: float | None) -> dict[str, Any]:
    if positives is None:
        return {"rows": int(rows), "positives": None, "positive_rate": None}
    rate = float(positives / rows) if rows else None
    return {"rows": int(rows), "positives": int(positives), "positive_rate": rate}
