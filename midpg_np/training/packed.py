"""The arrays of a step in one piece of memory, so that one copy moves them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.models.protocol import Draws

ALIGNMENT = 256  # bytes; that of CUDA's allocations


class Place(NamedTuple):
    """Where an array lies in the memory, and what it is."""

    bytes: slice
    dtype: Any
    shape: tuple[int, ...]


Layout = Mapping[str, Place]


def named_arrays(batch: Batch, draws: Draws) -> dict[str, Array]:
    """Return everything that a step reads, by name; the inverse of ``batch_and_draws``."""
    arrays = {f"batch {name}": x for name, x in batch._asdict().items()}
    return arrays | {f"draw {name}": x for name, x in draws.items()}


def batch_and_draws(arrays: Mapping[str, Array]) -> tuple[Batch, dict[str, Array]]:
    """Inverse of ``named_arrays``."""
    batch = Batch(*(arrays[f"batch {name}"] for name in Batch._fields))
    draws = {
        name.removeprefix("draw "): x for name, x in arrays.items() if name.startswith("draw ")
    }
    return batch, draws


def layout_of(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Place], int]:
    """Return a place for each array, and the bytes of all together."""
    places, end = {}, 0
    for name, x in arrays.items():
        places[name] = Place(slice(end, end + x.nbytes), x.dtype, x.shape)
        end += -(-x.nbytes // ALIGNMENT) * ALIGNMENT
    return places, end


def pack(arrays: Mapping[str, np.ndarray], places: Layout, memory: np.ndarray) -> None:
    """Copy arrays to their places."""
    for name, x in arrays.items():
        memory[places[name].bytes] = np.ascontiguousarray(x).reshape(-1).view(np.uint8)


def unpack(memory: Array, places: Layout) -> dict[str, Array]:
    """Return views of the arrays in their places."""
    return {
        name: memory[place.bytes].view(place.dtype).reshape(place.shape)
        for name, place in places.items()
    }
