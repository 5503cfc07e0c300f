"""How one field becomes integer codes: by the list of its categories, or by quantile bins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np

from midpg_np.data.categories import Column, factorise, is_missing, text_form
from midpg_np.data.coded import CodedColumn
from midpg_np.data.errors import RowError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Vocabulary:
    """Categories of a field, sorted; category number i has code i + 1, anything else code 0.

    Shapes
    ------
    values : (V - 1,)
        int64, or text (dtype object).
    saw_missing : bool
        Whether a training row had no value, so that code 0 was trained.
    n_rare : int
        Categories of training rows that have no code of their own: too few rows had them.
    """

    values: np.ndarray
    saw_missing: bool = False
    n_rare: int = 0

    @classmethod
    def fit(cls, column: Column, name: str, min_count: int = 1) -> Vocabulary:
        """Learn the categories of a column (N,) that at least ``min_count`` rows have."""
        distinct, index = factorise(column, name)
        saw_missing = bool((index < 0).any())
        if min_count == 1:
            return cls(distinct, saw_missing)
        # One count more, at the front, for index -1: missing.
        counts = np.bincount(index + 1, minlength=len(distinct) + 1)[1:]
        kept = distinct[counts >= min_count]
        return cls(kept, saw_missing, len(distinct) - len(kept))

    @property
    def size(self) -> int:
        """Number of codes V, including code 0."""
        return len(self.values) + 1

    @cached_property
    def _code_of_text(self) -> dict[str, int]:
        return {text: code for code, text in enumerate(text_form(self.values), start=1)}

    def encode(self, column: Column, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (N,) int64 and, as flags (N,), where the value was missing."""
        distinct, index = factorise(column, name)
        # One code more, for index -1: missing.
        codes = np.zeros(len(distinct) + 1, dtype=np.int64)
        codes[:-1] = self._match(distinct)
        return codes[index], index < 0

    def _match(self, distinct: np.ndarray) -> np.ndarray:
        if len(self.values) == 0:
            return np.zeros(len(distinct), dtype=np.int64)
        if self.values.dtype == object or distinct.dtype == object:
            code_of = self._code_of_text
            texts = text_form(distinct)
            return np.fromiter(map(code_of.get, texts, repeat(0)), np.int64, count=len(texts))
        place = np.searchsorted(self.values, distinct)
        place[place == len(self.values)] = 0
        return np.where(self.values[place] == distinct, place + 1, 0)

    def state(self, prefix: str) -> tuple[dict[str, Any], Arrays]:
        """Return a description for JSON and the arrays that hold the categories."""
        if self.values.dtype != object:
            return self._meta("integer"), {f"{prefix}/values": self.values}
        # surrogatepass: text from a badly encoded file must come back as it was.
        encoded = [text.encode("utf-8", "surrogatepass") for text in self.values]
        arrays: Arrays = {
            f"{prefix}/bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            f"{prefix}/lengths": np.array([len(part) for part in encoded], dtype=np.int64),
        }
        return self._meta("text"), arrays

    def _meta(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "saw_missing": self.saw_missing, "n_rare": self.n_rare}

    @classmethod
    def from_state(cls, meta: dict[str, Any], arrays: Arrays, prefix: str) -> Vocabulary:
        """Rebuild a vocabulary from what ``state`` returned."""
        if meta["kind"] == "integer":
            values = np.asarray(arrays[f"{prefix}/values"], dtype=np.int64)
            return cls(values, **_seen(meta))
        data = np.asarray(arrays[f"{prefix}/bytes"], dtype=np.uint8).tobytes()
        ends = np.cumsum(arrays[f"{prefix}/lengths"]).tolist()
        starts = [0, *ends[:-1]]
        values = np.empty(len(ends), dtype=object)
        values[:] = [
            data[start:end].decode("utf-8", "surrogatepass")
            for start, end in zip(starts, ends, strict=True)
        ]
        return cls(values, **_seen(meta))


def _seen(meta: dict[str, Any]) -> dict[str, Any]:
    # Files of earlier versions know no rare categories.
    return {"saw_missing": bool(meta["saw_missing"]), "n_rare": int(meta.get("n_rare", 0))}


@dataclass(frozen=True)
class QuantileBins:
    """Bins of a numeric field: code k + 1 stands for edges[k - 1] < x <= edges[k].

    Closed on the right, so that a heap of equal smallest values (zeros, often) has its own bin.

    Shapes
    ------
    edges : (V - 2,)
        float64, increasing; all are values of training rows.
    saw_missing : bool
        Whether a training row had no value, so that code 0 was trained.
    """

    edges: np.ndarray
    saw_missing: bool = False

    @classmethod
    def fit(cls, column: Column, name: str, n_bins: int) -> QuantileBins:
        """Learn the bin edges of a column (N,) of numbers."""
        numbers = parse_numbers(column, name)
        known = numbers[~np.isnan(numbers)]
        saw_missing = len(known) < len(numbers)
        if len(known) == 0:
            return cls(np.empty(0), saw_missing)
        levels = np.arange(1, n_bins) / n_bins
        edges = np.unique(np.quantile(known, levels, method="inverted_cdf"))
        # No training row lies beyond the largest value, so an edge there would bound nothing.
        return cls(edges[edges < known.max()], saw_missing)

    @property
    def size(self) -> int:
        """Number of codes V, including code 0."""
        return len(self.edges) + 2

    def encode(self, column: Column, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (N,) int64 and, as flags (N,), where the value was missing."""
        numbers = parse_numbers(column, name)
        missing = np.isnan(numbers)
        codes = np.searchsorted(self.edges, numbers, side="left").astype(np.int64) + 1
        codes[missing] = 0
        return codes, missing

    def state(self, prefix: str) -> tuple[dict[str, Any], Arrays]:
        """Return a description for JSON and the array of edges."""
        meta: dict[str, Any] = {"kind": "bins", "saw_missing": self.saw_missing}
        return meta, {f"{prefix}/edges": self.edges}

    @classmethod
    def from_state(cls, meta: dict[str, Any], arrays: Arrays, prefix: str) -> QuantileBins:
        """Rebuild bins from what ``state`` returned."""
        edges = np.asarray(arrays[f"{prefix}/edges"], dtype=np.float64)
        return cls(edges, bool(meta["saw_missing"]))


def parse_numbers(column: Column, name: str) -> np.ndarray:
    """Return a column (N,) as float64, NaN where a value is missing.

    Raises
    ------
    RowError
        A ValueError, for text that is no number and for infinite values: column, row and value.
    """
    if isinstance(column, CodedColumn):
        parsed = [_parse_number(value) for value in column.raw.tolist()]
        numbers = np.array([*parsed, np.nan])[column.index]  # index -1: missing
    elif column.dtype.kind in "iufb":
        numbers = column.astype(np.float64)
    else:
        values = column.tolist()
        number_of = {value: _parse_number(value) for value in dict.fromkeys(values)}
        numbers = np.fromiter(map(number_of.__getitem__, values), np.float64, count=len(values))
    infinite = np.isinf(numbers)
    if infinite.any():
        row = int(np.argmax(infinite))
        # tolist gives Python's own numbers, which print without their NumPy type.
        value = column[row : row + 1].tolist()[0]
        raise RowError(
            f"numeric column {name!r} must hold finite numbers; got {value!r} at row ",
            row,
            ". Correct the value, or take the column out of numeric.",
        )
    return numbers


def _parse_number(value: Any) -> float:
    """Return a number, NaN if it is missing, infinity if it is none."""
    if is_missing(value) or value == "":
        return float("nan")
    if isinstance(value, str) and "_" in value:  # float("1_0") is 10
        return float("inf")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("inf")
