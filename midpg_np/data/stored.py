"""Encoded rows that stay on disk: written once, piece by piece, and read a few blocks at a time.

Batches are random, but not over all rows at once: blocks of neighbouring rows come in random order,
and the rows of ``MIXED`` blocks are shuffled together.  So a pass over the data reads every block
once, from one place, and holds a fixed number of rows whatever the size of the file.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.batch import Batch
from midpg_np.data.batches import Dataset, batch_bounds
from midpg_np.data.encoding import Encoder
from midpg_np.data.errors import RowError
from midpg_np.data.frames import Columns

BLOCK_ROWS = 4096
MIXED = 32
_CODES = np.dtype(np.int32)


class Blocks:
    """The last blocks read of a file of codes.

    Twice as many as are mixed: a batch may hold the end of one mixture and the start of the next.

    Parameters
    ----------
    path : Path
        File of int32 codes, row after row.
    n_rows, n_fields : int
        Shape of its content.
    """

    def __init__(self, path: Path, n_rows: int, n_fields: int) -> None:
        self.path, self.n_rows, self.n_fields = path, n_rows, n_fields
        n_blocks = -(-n_rows // BLOCK_ROWS)
        n_places = min(2 * MIXED, n_blocks)
        self._place = np.full(n_blocks, -1)  # of each block in the memory below
        self._held = np.full(n_places, -1)  # block at each place
        self._next = 0
        self._rows = np.empty((n_places * BLOCK_ROWS, n_fields), dtype=_CODES)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the codes (B, F) int64 of rows (B,) that lie in few enough blocks."""
        block, within = np.divmod(rows, BLOCK_ROWS)
        if (self._place[block] < 0).any():
            self._read(np.unique(block))
        return self._rows[self._place[block] * BLOCK_ROWS + within].astype(np.int64)

    def fits(self, rows: np.ndarray) -> bool:
        """Whether the blocks of these rows can be held together."""
        return len(rows) <= MIXED or len(np.unique(rows // BLOCK_ROWS)) <= len(self._held)

    def _read(self, needed: np.ndarray) -> None:
        for block in needed[self._place[needed] < 0]:
            # In the order in which they came; but never a block that this batch needs.
            while self._held[self._next] in needed:
                self._next = (self._next + 1) % len(self._held)
            if self._held[self._next] >= 0:
                self._place[self._held[self._next]] = -1
            start = block * BLOCK_ROWS
            n = min(BLOCK_ROWS, self.n_rows - start)
            at = self._next * BLOCK_ROWS
            # Read, not mapped: mapped pages count as memory of the process until they are needed.
            self._rows[at : at + n] = np.fromfile(
                self.path,
                dtype=_CODES,
                count=n * self.n_fields,
                offset=start * self.n_fields * _CODES.itemsize,
            ).reshape(n, self.n_fields)
            self._held[self._next], self._place[block] = block, self._next
            self._next = (self._next + 1) % len(self._held)


@dataclass(frozen=True, eq=False)
class StoredDataset(Dataset):
    """A ``Dataset`` whose arrays are memory-mapped files of smaller integers.

    It trains as any other, in another random order (see the module's text).  What was checked when
    it was written is not checked again.  Made by ``store``.

    Parameters
    ----------
    digest : int
        Checksum of the content of the files.
    folder : object
        Removes the files when this data set is no longer used.
    """

    digest: int = 0
    folder: Any = field(default=None, repr=False)
    _blocks: Blocks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_shapes()
        path = Path(str(self.codes.filename))  # type: ignore[attr-defined]
        object.__setattr__(self, "_blocks", Blocks(path, *self.codes.shape))

    def batch(self, rows: np.ndarray | slice = slice(None)) -> Batch:
        """Return rows as a batch, in the dtypes of any ``Dataset``."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        elif rows.dtype == bool:
            rows = np.flatnonzero(rows)
        elif len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie in [0, {len(self)}); got {rows.min()}, {rows.max()}.")
        if self._blocks.fits(rows):
            codes = self._blocks.take(rows)
        else:
            codes = np.asarray(self.codes)[rows].astype(np.int64)
        label = None if self.label is None else self.label[rows].astype(np.float64)
        return Batch(codes, self.scenario[rows].astype(np.int64), label)

    def take(self, rows: np.ndarray) -> Dataset:
        """Return the rows ``rows`` (positions, or flags (N,)) as a data set in memory."""
        batch = self.batch(rows)
        return Dataset(
            codes=batch.codes,
            scenario=batch.scenario,
            label=batch.label,
            vocab_sizes=self.vocab_sizes,
            n_aware=self.n_aware,
            n_scenarios=self.n_scenarios,
            field_names=self.field_names,
            scenario_names=self.scenario_names,
        )

    def first(self, n_rows: int) -> StoredDataset:
        """Return the first rows, in the same files."""
        label = None if self.label is None else self.label[:n_rows]
        return replace(
            self, codes=self.codes[:n_rows], scenario=self.scenario[:n_rows], label=label
        )

    def positions(self, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Cut all rows into random batches, block by block."""
        order = _mixed_blocks(len(self), rng)
        held = np.empty(0, dtype=np.int64)
        for start, stop in batch_bounds(len(self), batch_size):
            size = stop - start
            while len(held) < size:
                held = np.concatenate([held, next(order)])
            yield held[:size]
            held = held[size:]

    def checksum(self) -> int:
        """Return the checksum that was computed when the rows were written."""
        return self.digest  # with the number of rows it stands for the first of them, too


class _TemporaryFolder:
    """A folder that is removed with the last data set that uses it, or when the process ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="midpg-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _mixed_blocks(n_rows: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    blocks = rng.permutation(-(-n_rows // BLOCK_ROWS))
    for start in range(0, len(blocks), MIXED):
        rows = blocks[start : start + MIXED, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)
        yield rng.permutation(rows[rows < n_rows])


def store(encoder: Encoder, pieces: Iterable[Columns], folder: Any = None) -> StoredDataset:
    """Encode labelled rows piece by piece into files, and return them as a data set.

    Parameters
    ----------
    encoder : Encoder
        Fitted.
    pieces : iterable of tables
        The rows.
    folder : path, optional
        Where to write; without it, a temporary folder that goes with the data set (in the place
        for temporary files, which the environment variable TMPDIR sets).

    Raises
    ------
    ValueError
        If there are no rows, or as ``Encoder.transform`` does.
    """
    kept = _TemporaryFolder() if folder is None else None
    place = kept.path if kept is not None else Path(folder)
    dtypes: dict[str, np.dtype[Any]] = {
        "codes": _CODES,
        "scenario": np.dtype(np.int8 if encoder.n_scenarios < 128 else np.int32),
        "label": np.dtype(np.int8),
    }
    n_rows, crcs, first = 0, dict.fromkeys(dtypes, 0), None
    with ExitStack() as stack:
        files = {name: stack.enter_context((place / name).open("wb")) for name in dtypes}
        for piece in pieces:
            try:
                part = encoder.transform(piece, warn=False)
            except RowError as error:
                raise error.shifted(n_rows) from None
            for name, dtype in dtypes.items():
                content = getattr(part, name).astype(dtype).tobytes()
                files[name].write(content)
                crcs[name] = zlib.crc32(content, crcs[name])
            first = first or part
            n_rows += len(part)
    if first is None:
        raise ValueError("the data has no rows; there is nothing to encode.")
    arrays = {name: np.memmap(place / name, dtype, "r") for name, dtype in dtypes.items()}
    return StoredDataset(
        codes=arrays["codes"].reshape(n_rows, first.n_fields),
        scenario=np.asarray(arrays["scenario"]),
        label=np.asarray(arrays["label"]),
        vocab_sizes=first.vocab_sizes,
        n_aware=first.n_aware,
        n_scenarios=first.n_scenarios,
        field_names=first.field_names,
        scenario_names=first.scenario_names,
        digest=zlib.crc32(np.array(list(crcs.values()), dtype="<u4").tobytes()),
        folder=kept,
    )
