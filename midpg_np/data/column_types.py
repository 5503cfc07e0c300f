"""Types of the columns of a text file: all rows decide, and most need not be looked at twice.

polars infers the type of a column from every value if asked to, which takes ten times as long as
reading the values.  Here it infers from the first rows, and reads; what it then read as numbers is
read again as text and compared with the plain forms of such numbers.  If anything is not plain, or
cannot be read so, polars infers from all rows after all: the outcome is always that of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars

SAMPLE = 10_000  # rows

# What polars takes for these types in any case; it reads more than it infers, such as +7 for 7.
_PLAIN = {
    "Int64": r"^-?[0-9]+$",
    "Float64": r"^-?([0-9]{1,18}|[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?)$",
    "Boolean": r"^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])$",
}
_JOINED = {
    frozenset(("Int64", "Float64")): "Float64",
    frozenset(("Int64", "Int128")): "Int128",
}


def read_typed(
    pl: Any, source: bytes | Path, columns: Sequence[str], options: Mapping[str, Any]
) -> polars.DataFrame:
    """Read columns of a text file, with the types that all its rows ask for.

    Parameters
    ----------
    pl : module
        polars.
    source : bytes or Path
        The text, uncompressed, or the file.
    columns : sequence of str
        Columns wanted.
    options : mapping
        Of ``polars.read_csv``, such as the separator.
    """
    options = {**options, "columns": list(columns)}
    try:
        frame = pl.read_csv(source, infer_schema_length=SAMPLE, **options)
        if _all_rows_agree(pl, frame, source, options):
            return frame
    except pl.exceptions.PolarsError:
        pass  # a later row is of another type, or the file is no table: then this raises, too
    return pl.read_csv(source, infer_schema_length=None, **options)


def _all_rows_agree(pl: Any, frame: Any, source: bytes | Path, options: dict[str, Any]) -> bool:
    types = {name: str(dtype) for name, dtype in frame.schema.items()}
    if not set(types.values()) <= {"String", *_PLAIN}:
        return False
    text = [frame[name] for name, dtype in types.items() if dtype == "String"]
    # Text because no row of the sample had a value: the type is still open.
    if any(_is_empty(column.head(SAMPLE // 2)) and not _is_empty(column) for column in text):
        return False
    rest = {name: dtype for name, dtype in types.items() if dtype != "String"}
    if not rest:
        return True
    values = pl.read_csv(source, infer_schema_length=0, **{**options, "columns": list(rest)})
    return all(values[name].str.contains(_PLAIN[dtype]).all() for name, dtype in rest.items())


def _is_empty(column: Any) -> bool:
    return bool(column.null_count() == len(column))


def joined_types(pl: Any, frames: Any) -> dict[str, Any]:
    """Return the types of columns that were read in several frames, as polars joins types.

    Integers and floats are floats, integers of two lengths are long ones, anything else that
    differs is text; columns without values in a frame are left to the others.
    """
    types: dict[str, Any] = {}
    for frame in frames:
        for column in frame:
            before = types.get(column.name)
            if _is_empty(column) or before == column.dtype:
                continue
            if before is None:
                types[column.name] = column.dtype
            else:
                both = frozenset((str(before), str(column.dtype)))
                types[column.name] = getattr(pl, _JOINED.get(both, "String"))
    return types
