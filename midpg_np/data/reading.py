"""Tables from files: CSV (plain or gzip-compressed), text with other separators, Parquet."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from midpg_np.data.column_types import joined_types, read_typed
from midpg_np.data.frames import check_columns

if TYPE_CHECKING:
    import polars

_PARQUET = (".parquet", ".pq")
_BLOCK = 2**24  # bytes of text parsed at a time when a file is read in pieces


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
    path = _existing(path)
    pl = import_polars()
    with _errors_of(pl, path):
        present, options = _head(pl, path)
        if columns is not None:
            check_columns(columns, present, place=str(path))
        wanted = list(columns or present)
        if _is_parquet(path):
            frame = pl.read_parquet(path, columns=wanted, n_rows=n_rows)
        elif n_rows is not None:
            frame = pl.read_csv(
                path, columns=wanted, n_rows=n_rows, infer_schema_length=None, **options
            )
        else:
            frame = read_typed(pl, _text(path), wanted, options)
    if frame.height == 0:
        raise ValueError(f"{path} has a header but no rows.")
    return frame.select(columns) if columns is not None else frame


def read_chunks(
    path: str | PathLike[str], columns: Sequence[str], n_rows: int
) -> Iterator[polars.DataFrame]:
    """Read a table piece by piece: the rows and types of ``read_table``, not all at once.

    Text is read twice, in blocks: first for the types of its columns, which all rows decide on.

    Parameters
    ----------
    path, columns
        As in ``read_table``, with the same errors.
    n_rows : int
        Rows of every piece; the last may have fewer.
    """
    path = _existing(path)
    pl = import_polars()
    with _errors_of(pl, path):
        present, options = _head(pl, path)
        check_columns(columns, present, place=str(path))
        if _is_parquet(path):
            frames = _parquet_slices(pl, path, list(columns), n_rows)
        else:
            typed = (read_typed(pl, block, columns, options) for block in _blocks(path))
            options |= {"schema_overrides": joined_types(pl, typed), "infer_schema_length": 0}
            frames = (
                pl.read_csv(block, columns=list(columns), **options) for block in _blocks(path)
            )
        n_read = 0
        for frame in _cut(pl, frames, n_rows):
            n_read += frame.height
            yield frame.select(columns)
    if n_read == 0:
        raise ValueError(f"{path} has a header but no rows.")


def table_height(path: str | PathLike[str]) -> int:
    """Return the number of rows of a Parquet file; ValueError if it is something else."""
    path = _existing(path)
    if not _is_parquet(path):
        raise ValueError(f"{path} must be a Parquet file, whose name ends in .parquet or .pq.")
    pl = import_polars()
    with _errors_of(pl, path):
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def table_columns(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the names of the columns of the table at ``path`` without reading its rows."""
    return _head(import_polars(), Path(path))[0]


def _existing(path: str | PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; give the path of a CSV or Parquet file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; a header line and rows are needed.")
    return path


@contextmanager
def _errors_of(pl: Any, path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into a ValueError that names it."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, EOFError, UnicodeDecodeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} could not be read as a table: {reason}") from error


def _is_parquet(path: Path) -> bool:
    return path.suffix in _PARQUET


def _open(path: Path) -> BinaryIO:
    opened: Any = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    return opened


def _text(path: Path) -> bytes | Path:
    """Return what polars reads the text from; it reads twice, so unpack once."""
    if path.suffix != ".gz":
        return path
    with _open(path) as file:
        return file.read()


def _head(pl: Any, path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names of the columns and the options that polars needs to read the file."""
    if _is_parquet(path):
        return tuple(pl.read_parquet_schema(path)), {}
    with _open(path) as file:
        header = file.readline().decode("utf-8-sig").rstrip("\r\n")
    separator = next((mark for mark in "\t,; " if mark in header), ",")
    names = tuple(next(csv.reader([header], delimiter=separator), []))
    return names, {"separator": separator}


def _blocks(path: Path) -> Iterator[bytes]:
    """Cut a text file into whole records; each block starts with the header."""
    with _open(path) as file:
        header = file.readline()
        rest = b""
        while data := file.read(_BLOCK):
            data = rest + data
            end = _end_of_records(data)
            if end:
                yield header + data[:end]
            rest = data[end:]
        if rest:
            yield header + rest


def _end_of_records(data: bytes) -> int:
    """Return where the last whole record ends: after a line end outside quotes."""
    quotes = data.count(b'"')
    end = data.rfind(b"\n")
    while end >= 0 and (quotes - data.count(b'"', end)) % 2:
        end = data.rfind(b"\n", 0, end)
    return end + 1


def _parquet_slices(pl: Any, path: Path, columns: list[str], n_rows: int) -> Iterator[Any]:
    table = pl.scan_parquet(path, glob=False)
    height = table.select(pl.len()).collect().item()
    for start in range(0, height, n_rows):
        yield table.slice(start, n_rows).select(columns).collect()


def _cut(pl: Any, frames: Iterator[Any], n_rows: int) -> Iterator[Any]:
    """Cut frames of any heights into frames of ``n_rows`` rows; the last may have fewer."""
    held = None
    for frame in frames:
        held = frame if held is None else pl.concat([held, frame])
        while held.height >= n_rows:
            yield held[:n_rows]
            held = held[n_rows:]
    if held is not None and held.height:
        yield held
