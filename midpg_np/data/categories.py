"""Distinct values of a column, in a form that does not depend on how the column was read.

The number 7, the float 7.0 (integers become floats where a value is missing) and the texts "7" and
"7.0" are one category.  Text that is not the plain form of an integer, such as "007", is itself.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from midpg_np.data.errors import RowError

INTEGER_TEXT = r"(0|-?[1-9][0-9]{0,18})(\.0)?"  # the whole of a text that stands for an integer
# One reader turns TRUE into a truth value where another leaves the text.
TRUTH_TEXT = {"TRUE": "True", "true": "True", "FALSE": "False", "false": "False"}
_INTEGER_TEXT = re.compile(INTEGER_TEXT)
Column = Any  # an array (N,), or a CodedColumn
_INT64 = np.iinfo(np.int64)
_EXACT_FLOAT = 2.0**53  # beyond it, neighbouring integers share one float


class Factors(NamedTuple):
    """Distinct values of a column and, for each row, which of them it holds.

    Shapes
    ------
    distinct : (M,)
        int64, or text (dtype object) if any value is not an integer.
    inverse : (N,)
        Position in ``distinct``; -1 where the value is missing.
    """

    distinct: np.ndarray
    inverse: np.ndarray


def factorise(values: Column, name: str) -> Factors:
    """Find the distinct values of a column and the position of each row's value among them.

    Parameters
    ----------
    values : (N,) array, or CodedColumn
        Integers, floats (NaN is missing), booleans, dates, text or objects (None is missing).
    name : str
        Name of the column, for messages.

    Raises
    ------
    ValueError
        If floats hold integers too large to be exact, or the values are lists or the like.
    """
    if not isinstance(values, np.ndarray):
        return values.factors()
    kind = values.dtype.kind
    if kind in "iu" and (kind == "i" or not values.size or values.max() <= _INT64.max):
        return factorise_integers(values.astype(np.int64, copy=False))
    if kind == "f":
        return _factorise_floats(values, name)
    if kind in "mM":
        missing = np.isnat(values)
        values = values.astype(str).astype(object)
        values[missing] = None
    return _factorise_objects(values.tolist(), name)


def text_form(distinct: np.ndarray) -> list[str]:
    """Return distinct values as text."""
    values = distinct.tolist()
    return values if distinct.dtype == object else [str(value) for value in values]


def factorise_integers(values: np.ndarray) -> Factors:
    """Factors of int64 values."""
    if values.size == 0:
        return Factors(values, values.copy())
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span > 4 * values.size + 1024:
        distinct, index = np.unique(values, return_inverse=True)
        return Factors(distinct, index.astype(np.int64, copy=False))
    # Identifiers are mostly dense, and then a table of flags is ten times faster than sorting.
    offset = values - low
    present = np.zeros(span, dtype=bool)
    present[offset] = True
    position = np.cumsum(present) - 1
    return Factors(np.flatnonzero(present) + low, position[offset])


def _factorise_floats(values: np.ndarray, name: str) -> Factors:
    missing = np.isnan(values)
    known = values[~missing]
    whole = np.isfinite(known) & (known == np.trunc(known))
    too_large = whole & (np.abs(known.astype(np.float64)) > _EXACT_FLOAT)
    if too_large.any():
        row = int(np.flatnonzero(~missing)[np.argmax(too_large)])
        raise RowError(
            f"column {name!r} holds {values[row]!r} at row ",
            row,
            " as a float, which is not exact for integers above 2**53; read the column as integers "
            "or as text.",
        )
    if whole.all():
        distinct, index = factorise_integers(known.astype(np.int64))
    else:
        raw, raw_index = np.unique(known, return_inverse=True)
        distinct, index = canonical_factors(raw.astype(str).tolist(), raw_index)
    everywhere = np.full(values.shape, -1, dtype=np.int64)
    everywhere[~missing] = index
    return Factors(distinct, everywhere)


def _factorise_objects(values: list[Any], name: str) -> Factors:
    try:
        # A hash table beats sorting for text; map keeps the loop over the rows out of Python.
        position = {value: i for i, value in enumerate(dict.fromkeys(values))}
        index = np.fromiter(map(position.__getitem__, values), dtype=np.int64, count=len(values))
    except TypeError as error:
        raise ValueError(
            f"column {name!r} holds values that are no categories ({error}); "
            "give text, numbers or dates."
        ) from error
    return canonical_factors(list(position), index)


def canonical_factors(raw: list[Any], raw_index: np.ndarray) -> Factors:
    """Bring distinct raw values to their canonical form and join those that become equal.

    Parameters
    ----------
    raw : list of M values
        Each once; None and the like are missing.
    raw_index : (N,)
        Position in ``raw`` for each row.
    """
    canonical = [_canonical(value) for value in raw]
    all_integers = all(isinstance(value, int) for value in canonical if value is not None)
    known = {value for value in canonical if value is not None}
    distinct = np.empty(len(known), dtype=np.int64 if all_integers else object)
    distinct[:] = sorted(known) if all_integers else sorted(str(value) for value in known)
    position = {value: i for i, value in enumerate(distinct.tolist())}
    lookup = np.array(
        [
            -1 if value is None else position[value if all_integers else str(value)]
            for value in canonical
        ],
        dtype=np.int64,
    )
    return Factors(distinct, lookup[raw_index] if len(raw) else raw_index)


def narrowed(distinct: np.ndarray, inverse: np.ndarray) -> Factors:
    """Factors of some rows of a column, given their positions among its distinct values.

    Values that no row holds go; if only integers remain of integers and texts, they are integers,
    sorted as such.

    Shapes
    ------
    distinct : (M,)
    inverse : (N,)
        -1 where the value is missing.
    """
    present = np.zeros(len(distinct) + 1, dtype=bool)
    present[inverse] = True
    present = present[:-1]  # the last entry is that of -1
    if not present.all():
        distinct = distinct[present]
        inverse = np.append(np.cumsum(present) - 1, -1)[inverse]
    if distinct.dtype != object:
        return Factors(distinct, inverse)
    texts = distinct.tolist()
    if not all(isinstance(_canonical_text(text), int) for text in texts):
        return Factors(distinct, inverse)
    integers, position = factorise_integers(np.array(texts, dtype=object).astype(np.int64))
    return Factors(integers, np.append(position, -1)[inverse])


def _canonical(value: Any) -> int | str | None:
    """Return the integer or the text that stands for ``value``; None if it is missing."""
    if isinstance(value, str):
        return _canonical_text(value)
    if is_missing(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)) and abs(float(value)) <= _EXACT_FLOAT:
        value = int(value) if value == int(value) else str(value)
    if isinstance(value, bytes):
        return _canonical_text(value.decode("utf-8", errors="surrogateescape"))
    if isinstance(value, (int, np.integer)):
        value = int(value)
        return value if _INT64.min <= value <= _INT64.max else str(value)
    return str(value)


def _canonical_text(text: str) -> int | str:
    match = _INTEGER_TEXT.fullmatch(text)
    if match:
        value = int(match[1])
        return value if _INT64.min <= value <= _INT64.max else match[1]
    return TRUTH_TEXT.get(text, text)


def is_missing(value: Any) -> bool:
    """Tell whether ``value`` stands for "no value": None, NaN, or NA and NaT of pandas."""
    if value is None:
        return True
    if isinstance(value, (float, np.floating)):
        return bool(value != value)
    return type(value).__name__ in ("NAType", "NaTType")
