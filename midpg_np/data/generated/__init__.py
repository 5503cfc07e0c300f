"""Generated data at the sizes of the paper, and writing it to files."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import tempfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from midpg_np.data.reading import import_polars

# Name of a data set -> module and function; (*, seed, ...) -> number of rows, frames.
GENERATORS = {
    "synthetic-marketbias": "midpg_np.data.generated.marketbias:generate",
    "industrial": "midpg_np.data.generated.industrial:generate",
}


def generator(name: str) -> Callable[..., Any]:
    """Return the function that generates the rows of a data set; ValueError if there is none."""
    if name not in GENERATORS:
        close = difflib.get_close_matches(name, GENERATORS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name!r} cannot be generated; choose {', '.join(GENERATORS)}.{hint}")
    module, function = GENERATORS[name].split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def write_parquet(
    name: str,
    path: str | PathLike[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> int:
    """Generate a data set into a Parquet file, chunk by chunk; return the number of rows.

    The file takes its place when it is whole.  Until then chunks lie beside it.

    Parameters
    ----------
    name : str
        A key of ``GENERATORS``.
    path : path
        File to write, ending in ``.parquet``; an existing one is replaced.
    seed : int
        Everything random derives from it.
    progress : callable, optional
        Told the rows made so far, and all.
    **options
        Options of the generator: ``fraction``.

    Raises
    ------
    ValueError
        If there is no such data set or option, or the file's name ends in something else.
    FileNotFoundError
        If the folder of the file does not exist.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise ValueError(f"the file to write must end in .parquet; got {path}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}; make it first.")
    make = generator(name)
    known = [option for option in inspect.signature(make).parameters if option != "seed"]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known)}.")
    pl = import_polars()
    n_rows, frames = make(seed=seed, **options)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        files, n_made = [], 0
        for i, frame in enumerate(frames):
            files.append(Path(folder) / f"{i:06}.parquet")
            frame.write_parquet(files[-1])
            n_made += frame.height
            if progress is not None:
                progress(n_made, n_rows)
        whole = Path(folder) / "whole.parquet"
        pl.scan_parquet(files, glob=False).sink_parquet(whole)
        os.replace(whole, path)
    return n_rows
