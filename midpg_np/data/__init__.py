"""Raw tables to encoded rows, and the built-in data sets.

Importing this package loads NumPy only; files are read by polars (extra ``app``) when asked for.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from os import PathLike
from typing import Any

from midpg_np.data.batches import Dataset, iterate_batches, split_by_fraction
from midpg_np.data.describe import describe
from midpg_np.data.encoding import Encoder, UnknownCategoryWarning
from midpg_np.data.reading import MissingExtraError, read_table
from midpg_np.data.schema import Schema
from midpg_np.data.splits import Splits, encode_splits
from midpg_np.data.table import load_table

# Name -> module and function, imported when used.  All take (path, *, seed, ...) -> Splits.
DATASETS: dict[str, str] = {
    "synthetic": "midpg_np.data.synthetic:load",
    "marketbias": "midpg_np.data.marketbias:load",
    "iaac": "midpg_np.data.iaac:load",
    "kuairand": "midpg_np.data.kuairand:load",
    "online-shoppers": "midpg_np.data.online_shoppers:load",
    "synthetic-marketbias": "midpg_np.data.generated.marketbias:load",
    "industrial": "midpg_np.data.generated.industrial:load",
}


def dataset_loader(name: str) -> Callable[..., Splits]:
    """Return the function that loads the data set ``name``.

    Raises
    ------
    ValueError
        If there is no such data set.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no data set {name!r}; choose {', '.join(DATASETS)}.{hint}")
    module, function = DATASETS[name].split(":")
    loader: Callable[..., Splits] = getattr(importlib.import_module(module), function)
    return loader


def load_dataset(
    name: str, path: str | PathLike[str] | None = None, *, seed: int = 0, **options: Any
) -> Splits:
    """Load a built-in data set, divided and encoded.

    Parameters
    ----------
    name : str
        A key of ``DATASETS``.
    path : path, optional
        The publisher's file or its folder; generated data sets need none.
    seed : int
        Seed of everything random: the division into parts, generated rows.
    **options
        Passed to the data set's own ``load`` function, which documents them.

    Returns
    -------
    Splits

    Raises
    ------
    ValueError
        If there is no such data set, or an option or the file's content is wrong.
    FileNotFoundError
        If the file is not there; the message says where it is published.
    """
    return dataset_loader(name)(path, seed=seed, **options)


__all__ = [
    "DATASETS",
    "Dataset",
    "Encoder",
    "MissingExtraError",
    "Schema",
    "Splits",
    "UnknownCategoryWarning",
    "dataset_loader",
    "describe",
    "encode_splits",
    "iterate_batches",
    "load_dataset",
    "load_table",
    "read_table",
    "split_by_fraction",
]
