"""Encoded rows, checked once, and the batches and parts they are cut into."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from midpg_np.batch import Batch


@dataclass(frozen=True, eq=False)
class Dataset:
    """Encoded rows of a table.

    Everything is checked here, once; batches are then handed to models without further checks.

    Shapes
    ------
    codes : (N, F)
        int64, one column per field, scenario-aware fields first; 0 means "unknown or missing".
    scenario : (N,)
        int64 in [0, D); -1 for a scenario that no training row had (see ``Encoder.transform``).
    label : (N,)
        float64 zeros and ones; None where it is not known.
    vocab_sizes : (F,)
        Number of codes of each field.
    n_aware : int
        Number of scenario-aware fields.
    n_scenarios : int
        Number of scenarios D.
    field_names : (F,)
        Names of the fields.
    scenario_names : (D,)
        Names of the scenarios.
    unknown_counts : dict
        By field, the number of rows whose category no training row had; fields without are absent.

    Raises
    ------
    ValueError
        If shapes do not fit together or a code, scenario id or label is out of range.
    """

    codes: np.ndarray
    scenario: np.ndarray
    label: np.ndarray | None
    vocab_sizes: tuple[int, ...]
    n_aware: int
    n_scenarios: int
    field_names: tuple[str, ...]
    scenario_names: tuple[str, ...]
    unknown_counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "codes", np.ascontiguousarray(_whole("codes", self.codes)))
        set_(self, "scenario", np.ascontiguousarray(_whole("scenario", self.scenario)))
        if self.label is not None:
            set_(self, "label", np.ascontiguousarray(self.label, dtype=np.float64))
        for name in ("vocab_sizes", "field_names", "scenario_names"):
            set_(self, name, tuple(getattr(self, name)))
        self._check_shapes()
        self._check_codes()
        self._check_scenario()
        self._check_label()

    def _check_shapes(self) -> None:
        if self.codes.ndim != 2:
            raise ValueError(f"codes must have shape (N, F); got {self.codes.shape}.")
        n_rows, n_fields = self.codes.shape
        if self.scenario.shape != (n_rows,):
            raise ValueError(f"scenario must have shape ({n_rows},); got {self.scenario.shape}.")
        if self.label is not None and self.label.shape != (n_rows,):
            raise ValueError(f"label must have shape ({n_rows},); got {self.label.shape}.")
        for name in ("vocab_sizes", "field_names"):
            if len(getattr(self, name)) != n_fields:
                raise ValueError(
                    f"{name} must have one entry per field, {n_fields}; "
                    f"got {len(getattr(self, name))}."
                )
        if len(self.scenario_names) != self.n_scenarios:
            raise ValueError(
                f"scenario_names must have {self.n_scenarios} entries, one per scenario; "
                f"got {len(self.scenario_names)}."
            )
        if not 0 <= self.n_aware <= n_fields:
            raise ValueError(f"n_aware must lie in [0, {n_fields}]; got {self.n_aware}.")

    def _check_codes(self) -> None:
        for f, (name, size) in enumerate(zip(self.field_names, self.vocab_sizes, strict=True)):
            column = self.codes[:, f]
            if len(column) and (column.min() < 0 or column.max() >= size):
                row = int(np.argmax((column < 0) | (column >= size)))
                raise ValueError(
                    f"codes of field {name!r} must lie in [0, {size}); got {column[row]} at row "
                    f"{row}. Check vocab_sizes."
                )

    def _check_scenario(self) -> None:
        wrong = (self.scenario < -1) | (self.scenario >= self.n_scenarios)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"scenario ids must lie in [0, {self.n_scenarios}), or be -1 for unknown; got "
                f"{self.scenario[row]} at row {row}. Check n_scenarios."
            )

    def _check_label(self) -> None:
        if self.label is None:
            return
        wrong = (self.label != 0) & (self.label != 1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"labels must be 0 or 1; got {self.label[row]} at row {row}.")

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_fields(self) -> int:
        """Number of fields F."""
        return int(self.codes.shape[1])

    def take(self, rows: np.ndarray) -> Dataset:
        """Return the rows ``rows`` (positions, or flags (N,)) as a data set of their own."""
        label = None if self.label is None else self.label[rows]
        return replace(
            self,
            codes=self.codes[rows],
            scenario=self.scenario[rows],
            label=label,
            unknown_counts={},  # they describe all rows together
        )

    def batch(self, rows: np.ndarray | slice = slice(None)) -> Batch:
        """Return rows as a batch: positions (B,), flags (N,) or a slice; all by default."""
        label = None if self.label is None else self.label[rows]
        return Batch(self.codes[rows], self.scenario[rows], label)

    def positions(self, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Cut all rows into batches of ``batch_size`` by ``rng``; see ``iterate_batches``."""
        return iterate_batches(len(self), batch_size, rng)

    def checksum(self) -> int:
        """Return a checksum of the content."""
        crc = 0
        for array in (self.codes, self.scenario, self.label):
            if array is not None:
                crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
        return crc


def iterate_batches(
    n_rows: int, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """Cut the positions 0..n_rows-1 into batches; every position occurs once.

    A last batch of a single row is joined to the one before it: MI-DPG pairs each row with another
    row of its batch, and a lone row has none.

    Parameters
    ----------
    n_rows : int
        Number of rows N.
    batch_size : int
        Rows per batch; the last batch may be smaller, or larger by one.
    rng : numpy Generator, optional
        Shuffles the rows; without it they come in order.

    Yields
    ------
    (B,) int64 array
        Positions of the rows of a batch.

    Raises
    ------
    ValueError
        If ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    # An inner generator, so that the check above runs when called and not at the first batch.
    return _cut(n_rows, batch_size, rng)


def _cut(n_rows: int, batch_size: int, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
    order = np.arange(n_rows) if rng is None else rng.permutation(n_rows)
    for start, stop in batch_bounds(n_rows, batch_size):
        yield order[start:stop]


def batch_bounds(n_rows: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yield where each batch of ``iterate_batches`` starts and stops in the order of the rows."""
    start = 0
    while start < n_rows:
        stop = min(start + batch_size, n_rows)
        if n_rows - stop == 1 and batch_size > 1:
            stop = n_rows
        yield start, stop
        start = stop


def split_by_fraction(
    n_rows: int,
    fractions: Sequence[float],
    rng: np.random.Generator,
    strata: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Divide the positions 0..n_rows-1 at random into parts; the same seed gives the same parts.

    Parameters
    ----------
    n_rows : int
        Number of rows N.
    fractions : sequence of float
        Share of each part; they add up to 1.
    rng : numpy Generator
        Source of randomness.
    strata : (N,) array, optional
        Rows with the same value are divided in these proportions, as nearly as whole rows allow.

    Returns
    -------
    tuple of int64 arrays
        Positions of each part, increasing.

    Raises
    ------
    ValueError
        If the fractions are not positive or do not add up to 1.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions must be positive and add up to 1; got {tuple(fractions)}.")
    order = rng.permutation(n_rows)
    if strata is not None:
        # Within the sorted strata the shuffled order stays, so each stratum is cut at random;
        # spreading the ranks over [0, 1) cuts small strata in proportion, too.
        order = order[np.argsort(strata[order], kind="stable")]
        place = _place_in_stratum(strata[order], rng)
        order = order[np.argsort(place, kind="stable")]
    bounds = np.rint(np.cumsum(fractions)[:-1] * n_rows).astype(int)
    return tuple(np.sort(part) for part in np.split(order, bounds))


def _place_in_stratum(sorted_strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spread the rows of each stratum evenly over [0, 1), from a random start."""
    is_start = np.concatenate(([True], sorted_strata[1:] != sorted_strata[:-1]))
    stratum = np.cumsum(is_start) - 1
    starts = np.flatnonzero(is_start)
    sizes = np.diff(np.append(starts, len(sorted_strata)))
    rank = np.arange(len(sorted_strata)) - starts[stratum]
    return (rank + rng.random(len(starts))[stratum]) / sizes[stratum]


def _whole(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold whole numbers; got an array of {values.dtype}.")
    return values.astype(np.int64, copy=False)
