"""Files of cases and dumps: safetensors or npz, both without anything that could be executed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from midpg_np.training.checkpoint import (
    HEADER,
    VERSION,
    header_text,
    parse_header,
    read_file,
    replacing,
    write_file,
)

CASE_FORMAT = "midpg_np.case"
# NumPy has no bfloat16: its 16 bits are the upper half of a float32.
SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}


class Dumped(NamedTuple):
    """One array of a dump, and the name of the dtype that it had there."""

    array: np.ndarray
    dtype: str


def write_case_file(
    path: str | Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Write a case as npz if ``path`` ends so, else as safetensors."""
    if Path(path).suffix != ".npz":
        write_file(path, CASE_FORMAT, arrays, meta)
        return
    header = np.frombuffer(header_text(CASE_FORMAT, meta).encode(), dtype=np.uint8)
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **{**arrays, HEADER: header})


def read_case_file(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and metadata of a case file, checked as far as its header goes.

    Raises
    ------
    FileNotFoundError, ValueError
        As ``training.checkpoint.read_file``; also if metadata or arrays are missing.
    """
    path = Path(path)
    if path.suffix != ".npz":
        arrays, meta = read_file(path, CASE_FORMAT)
    else:
        expected = f"expected a {CASE_FORMAT} file (npz, version {VERSION})"
        arrays = _read_npz(path, expected)
        header = arrays.pop(HEADER, np.zeros(0, np.uint8)).tobytes().decode(errors="replace")
        meta = parse_header(path, {HEADER: header} if header else {}, expected, CASE_FORMAT)
    missing = [key for key in ("model", "config", "order", "seed") if key not in meta]
    missing += [name for name in meta.get("order", ()) if name not in arrays]
    if missing:
        raise ValueError(f"{path}: lacks {missing[0]!r}; expected a complete {CASE_FORMAT} file.")
    return arrays, meta


def read_dump(path: str | Path) -> dict[str, Dumped]:
    """Return the arrays of a dump, npz or safetensors by its name's end, floats as float64.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is truncated, of another format, or holds dtypes that are not numbers.
    """
    path = Path(path)
    expected = "expected a dump, named arrays as safetensors or npz"
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file; {expected}.")
    if path.is_dir():
        raise ValueError(f"{path}: found a folder; {expected}.")
    if path.suffix == ".npz":
        arrays = _read_npz(path, expected)
        arrays.pop(HEADER, None)
        return {name: as_dumped(name, array) for name, array in arrays.items()}
    return _read_safetensors(path, expected)


def as_dumped(name: str, array: Any, dtype: str | None = None) -> Dumped:
    """Return an array with the name of its dtype; numbers become float64 or int64."""
    array = np.asarray(array)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise ValueError(f"{name}: has dtype {array.dtype}; expected real numbers.")
    as_wide = array.astype(np.float64 if kind == "f" else np.int64)
    return Dumped(as_wide, dtype or array.dtype.name)


def _read_npz(path: Path, expected: str) -> dict[str, np.ndarray]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file; {expected}.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, AttributeError, TypeError) as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: found {size} bytes that are no complete npz file of numbers ({error}); "
            f"{expected}."
        ) from error


def _read_safetensors(path: Path, expected: str) -> dict[str, Dumped]:
    from safetensors import SafetensorError, deserialize

    try:
        content = deserialize(path.read_bytes())
    except SafetensorError as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: found {size} bytes that are no complete safetensors file ({error}); "
            f"{expected}."
        ) from error
    dumped = {}
    for name, entry in content:
        kind = entry["dtype"]
        if kind not in SAFETENSORS_DTYPES:
            raise ValueError(
                f"{path}: {name} has dtype {kind}; expected one of {list(SAFETENSORS_DTYPES)}."
            )
        array = np.frombuffer(entry["data"], SAFETENSORS_DTYPES[kind]).reshape(entry["shape"])
        if kind == "BF16":
            wide = (array.astype(np.uint32) << 16).view(np.float32)
            dumped[name] = as_dumped(name, wide, "bfloat16")
        else:
            dumped[name] = as_dumped(name, array)
    return dumped
