"""Tables from files: CSV (plain or gzip-compressed), text with other separators, Parquet."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midpg_np.data.frames import check_columns

if TYPE_CHECKING:
    import polars

_PARQUET = (".parquet", ".pq")


class MissingExtraError(ImportError):
    """A function needs a library of an optional extra that is not installed."""


def import_polars() -> Any:
    """Return the module polars; MissingExtraError that names the extra if it is not installed."""
    try:
        import polars
    except ImportError as error:
        raise MissingExtraError(
            "reading files needs polars; install the extra 'app' (pip install 'midpg_np[app]')."
        ) from error
    return polars


def read_table(
    path: str | PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    n_rows: int | None = None,
) -> polars.DataFrame:
    """Read a table by path.

    ``.parquet`` and ``.pq`` are Parquet.  Everything else is text with a header line, compressed
    if the name ends in ``.gz``; the header shows the separator: tab, comma, semicolon or space.

    Parameters
    ----------
    path : path
        File to read.
    columns : sequence of str, optional
        Columns wanted, in this order; others are not kept.  All, if not given.
    n_rows : int, optional
        Read at most this many rows.

    Returns
    -------
    polars.DataFrame

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MissingExtraError
        If polars is not installed.
    ValueError
        If a column is missing, the file is empty or holds a header only, or is no table.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give the path of a CSV or Parquet file.")
    pl = import_polars()
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; a header line and rows are needed.")
    try:
        present, options = _head(pl, path)
        if columns is not None:
            check_columns(columns, present, place=str(path))
        read = pl.read_parquet if path.suffix in _PARQUET else pl.read_csv
        frame = read(path, columns=list(columns or present), n_rows=n_rows, **options)
    except (pl.exceptions.PolarsError, OSError, EOFError, UnicodeDecodeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} could not be read as a table: {reason}") from error
    if frame.height == 0:
        raise ValueError(f"{path} has a header but no rows.")
    return frame.select(columns) if columns is not None else frame


def table_columns(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the names of the columns of the table at ``path`` without reading its rows."""
    return _head(import_polars(), Path(path))[0]


def _head(pl: Any, path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names of the columns and the options that polars needs to read the file."""
    if path.suffix in _PARQUET:
        return tuple(pl.read_parquet_schema(path)), {}
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        header = file.readline().rstrip("\r\n")
    separator = next((mark for mark in "\t,; " if mark in header), ",")
    names = tuple(next(csv.reader([header], delimiter=separator), []))
    # All rows decide on the type of a column: a text may first occur in the last row.
    return names, {"separator": separator, "infer_schema_length": None}
