"""Files of probabilities, written piece by piece; each appears when it is complete."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from midpg_np.data.reading import import_polars

COLUMN = "probability"
_PARQUET = (".parquet", ".pq")


def check_name(path: Path) -> None:
    """Raise FileNotFoundError, before anything is predicted, if the folder is not there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist; create it first.")


def write_file(path: Path, pieces: Iterable[np.ndarray]) -> None:
    """Write probabilities to a file: Parquet (.parquet, .pq), or CSV, compressed if named .gz.

    It is written beside its place and renamed when it is complete: if anything fails, what was
    there before is intact and nothing is left behind.

    Parameters
    ----------
    path : Path
        File to write.
    pieces : iterable of float64 arrays (N,)
        Probabilities in the order of the rows.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if path.suffix in _PARQUET:
            _write_parquet(temporary, pieces)
        else:
            with _open(temporary, path.suffix == ".gz") as file:
                write_csv(file, pieces)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _open(path: Path, packed: bool) -> Iterator[TextIO]:
    with path.open("wb") as file:
        # Without name and time in its header, equal contents are equal files.
        binary: Any = gzip.GzipFile("", "wb", 4, file, mtime=0) if packed else file
        with TextIOWrapper(binary, encoding="ascii", newline="") as text:
            yield text


def write_csv(file: TextIO, pieces: Iterable[np.ndarray]) -> None:
    """Write a header and one probability per line, to nine digits."""
    file.write(f"{COLUMN}\n")
    for probability in pieces:
        file.write("%.9g\n" * len(probability) % tuple(probability.tolist()))


def _write_parquet(path: Path, pieces: Iterable[np.ndarray]) -> None:
    """Write all digits.  polars does not append: each piece is a file, and they are joined."""
    pl = import_polars()
    folder = Path(tempfile.mkdtemp(prefix=path.name, dir=path.parent))
    try:
        for i, probability in enumerate(pieces):
            pl.DataFrame({COLUMN: probability}).write_parquet(folder / f"{i:012d}.parquet")
        pl.scan_parquet(sorted(folder.iterdir()), glob=False).sink_parquet(path)
    finally:
        shutil.rmtree(folder)
