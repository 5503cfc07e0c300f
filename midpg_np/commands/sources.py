"""What ``--data``, ``--path`` and ``--schema`` mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midpg_np.data import DATASETS, Schema, Splits, load_dataset, load_table


def load_splits(
    data: str,
    path: Path | None,
    schema: Path | None,
    seed: int,
    options: Mapping[str, Any],
) -> Splits:
    """Load a built-in data set by name, or a table of the user's own by path and schema.

    Raises
    ------
    ValueError
        If a table comes without a schema, or a data set with one.
    """
    if data in DATASETS:
        if schema is not None:
            raise ValueError(f"data set {data!r} has its own schema; leave out --schema.")
        return load_dataset(data, path, seed=seed, **options)
    if schema is None and not Path(data).exists():
        load_dataset(data)  # raises: lists the names there are and the closest one
    if schema is None:
        raise ValueError(
            f"the table {data} needs --schema FILE, a TOML file that names its label, scenario "
            "and feature columns (docs/data.md)."
        )
    if path is not None:
        raise ValueError(f"--path goes with a built-in data set; {data} is a file itself.")
    return load_table(data, Schema.from_toml(schema), seed=seed, **options)
