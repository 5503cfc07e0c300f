"""What ``--data``, ``--path`` and ``--schema`` mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from midpg_np.data import DATASETS, Schema, Splits, dataset_loader, load_dataset, load_table
from midpg_np.data.synthetic import make_synthetic


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
        _check_options(options, dataset_loader(data), data)
        return load_dataset(data, path, **({"seed": seed} | dict(options)))
    if schema is None and not Path(data).exists():
        load_dataset(data)  # raises: lists the names there are and the closest one
    if schema is None:
        raise ValueError(
            f"the table {data} needs --schema FILE, a TOML file that names its label, scenario "
            "and feature columns (docs/data.md)."
        )
    if path is not None:
        raise ValueError(f"--path goes with a built-in data set; {data} is a file itself.")
    _check_options(options, load_table, data)
    return load_table(data, Schema.from_toml(schema), **({"seed": seed} | dict(options)))


def _check_options(options: Mapping[str, Any], loader: Callable[..., Any], data: str) -> None:
    """Raise ValueError for an option that the loader of the data does not have."""
    if loader is dataset_loader("synthetic"):
        loader = make_synthetic  # to which it hands everything on
    elsewhere = ("path", "schema")
    known = [name for name in inspect.signature(loader).parameters if name not in elsewhere]
    for name in options:
        if name not in known:
            match = get_close_matches(name, known, n=1)
            hint = f" Did you mean {match[0]!r}?" if match else ""
            raise ValueError(
                f"--data-option {name}: the loader of {data} has no such option; it has "
                f"{', '.join(known)}.{hint}"
            )
