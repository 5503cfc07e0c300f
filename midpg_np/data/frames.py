"""Columns of a table, from whichever kind of table, as NumPy arrays."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from midpg_np.data.categories import Column
from midpg_np.data.coded import CodedColumn, coded

Columns = Any  # mapping of names to arrays, polars DataFrame or pandas DataFrame


def column_names(table: Columns) -> tuple[str, ...]:
    """Return the names of the columns of ``table``; TypeError if it is no table."""
    if isinstance(table, Mapping):
        return tuple(table)
    if _is_a(table, "polars", "DataFrame") or _is_a(table, "pandas", "DataFrame"):
        return tuple(table.columns)
    kind = f"{type(table).__module__}.{type(table).__qualname__}"
    remedy = " Call collect() first." if kind.endswith("LazyFrame") else ""
    raise TypeError(
        "columns must be a mapping of names to arrays, a polars DataFrame or a pandas "
        f"DataFrame; got {kind}.{remedy}"
    )


def check_columns(needed: Iterable[str], present: Sequence[str], place: str = "the data") -> None:
    """Raise ValueError naming the missing columns, the columns there are and the closest ones."""
    missing = [name for name in needed if name not in present]
    if not missing:
        return
    matches = [difflib.get_close_matches(name, map(str, present), n=1) for name in missing]
    close = [match[0] for match in matches if match]
    hint = f" Did you mean {_quoted(close)}?" if close else ""
    word = "column" if len(missing) == 1 else "columns"
    raise ValueError(
        f"{place} has no {word} {_quoted(missing)}; its columns are "
        f"{', '.join(map(str, present)) or '(none)'}.{hint}"
    )


def columns_of(table: Columns, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the columns ``names`` of ``table`` as NumPy arrays.

    Missing values become NaN in float columns and None elsewhere; integers stay integers, since
    a float does not hold a long identifier exactly.

    Parameters
    ----------
    table : mapping, polars DataFrame or pandas DataFrame
        A mapping holds one-dimensional arrays (or lists) by name.
    names : sequence of str
        Columns wanted.

    Returns
    -------
    dict of str to (N,) array

    Raises
    ------
    TypeError
        If ``table`` is no table.
    ValueError
        If a column is missing, has more than one dimension or differs in length.
    """
    check_columns(names, column_names(table))
    if isinstance(table, Mapping):
        arrays = {name: _from_values(name, table[name]) for name in names}
    elif _is_a(table, "polars", "DataFrame"):
        arrays = {name: _from_polars(table[name]) for name in names}
    else:
        arrays = {name: _from_pandas(name, table[name]) for name in names}
    _check_lengths(arrays)
    return arrays


def coded_columns(table: Columns, names: Sequence[str]) -> dict[str, Column]:
    """Return columns as ``columns_of`` does, but texts and integers with gaps of polars coded.

    A ``CodedColumn`` in a mapping is handed on as it is.
    """
    check_columns(names, column_names(table))
    if isinstance(table, Mapping):
        columns = {name: _coded_from_values(name, table[name]) for name in names}
    elif _is_a(table, "polars", "DataFrame"):
        columns = {name: _coded_from_polars(table[name]) for name in names}
    else:
        return columns_of(table, names)
    _check_lengths(columns)
    return columns


def _coded_from_values(name: str, values: Any) -> Column:
    if isinstance(values, CodedColumn):
        return values
    return (
        _coded_from_polars(values)
        if _is_a(values, "polars", "Series")
        else _from_values(name, values)
    )


def _coded_from_polars(series: Any) -> Column:
    dtype = series.dtype
    fits = str(dtype) in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32")
    if str(dtype) == "String" or (fits and series.null_count()):
        return coded(series)
    return _from_polars(series)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _is_a(value: Any, library: str, kind: str) -> bool:
    # A frame can only exist if its library is loaded, so nothing is imported to find out.
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, kind))


def _from_values(name: str, values: Any) -> np.ndarray:
    if _is_a(values, "polars", "Series"):
        return _from_polars(values)
    if _is_a(values, "pandas", "Series"):
        return _from_pandas(name, values)
    if isinstance(values, np.ma.MaskedArray):
        mask, values = np.ma.getmaskarray(values), np.asarray(values).astype(object)
        values[mask] = None
    if not isinstance(values, np.ndarray):
        # np.asarray([1, "a"]) would turn 1 into text, and [1, None] stays as it is.
        values = list(values) if isinstance(values, (list, tuple)) else values
        kinds = {type(value) for value in values} if isinstance(values, list) else set()
        values = np.asarray(values, dtype=object if len(kinds) > 1 else None)
    if values.ndim != 1:
        raise ValueError(f"column {name!r} must have one dimension; got shape {values.shape}.")
    return values


def _from_polars(series: Any) -> np.ndarray:
    dtype = series.dtype
    plain = dtype.is_integer() or dtype.is_temporal() or str(dtype) in ("Boolean", "String")
    plain = plain and "128" not in str(dtype)  # NumPy has no integers that long
    if dtype.is_float() or (plain and not series.null_count()):
        return np.asarray(series.to_numpy())
    return _objects(series.to_list())


def _from_pandas(name: str, series: Any) -> np.ndarray:
    if getattr(series, "ndim", 1) != 1:
        raise ValueError(f"column {name!r} occurs {series.shape[1]} times; names must be unique.")
    if isinstance(series.dtype, np.dtype):
        return np.asarray(series.to_numpy())
    if series.isna().any() or series.dtype.kind not in "iuf":
        return np.asarray(series.astype(object).where(series.notna(), None).to_numpy(dtype=object))
    return np.asarray(series.to_numpy())


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _check_lengths(arrays: Mapping[str, Column]) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        first, *others = lengths
        other = next(name for name in others if lengths[name] != lengths[first])
        raise ValueError(
            f"all columns must have the same length; {first!r} has {lengths[first]} rows "
            f"and {other!r} has {lengths[other]}."
        )
