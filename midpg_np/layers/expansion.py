"""Showing a discriminator the whole matrix psi(Q) without building it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from midpg_np.backend import Array
from midpg_np.layers.repeat import repeat, repeat_backward
from midpg_np.ops import concat, split


class RepeatShape(NamedTuple):
    """A core (d_r, d_c) and the matrix (d_m, d_n) that it is repeated to."""

    d_r: int
    d_c: int
    d_m: int
    d_n: int


@dataclass(frozen=True)
class Expansion:
    """Flattened cores, one beside the other -> flattened matrices, one beside the other.

    ``fold`` is the adjoint of ``expand``, <expand(q), w> = <q, fold(w)>.  So folding a
    discriminator's weights once per step gives from the core the score of the whole matrix.
    """

    shapes: tuple[RepeatShape, ...]
    mode: str

    @property
    def dim_full(self) -> int:
        """Width after ``expand``."""
        return sum(shape.d_m * shape.d_n for shape in self.shapes)

    def expand(self, q: Array) -> Array:
        """Copy: (N, sum of d_r*d_c) -> (N, sum of d_m*d_n) (derivations 3.5j)."""
        parts, _ = split(q, [shape.d_r * shape.d_c for shape in self.shapes])
        full = [
            repeat(part.reshape(-1, d_r, d_c), d_m, d_n, self.mode).reshape(-1, d_m * d_n)
            for part, (d_r, d_c, d_m, d_n) in zip(parts, self.shapes, strict=True)
        ]
        return concat(full)[0]

    def fold(self, s: Array) -> Array:
        """Sum over the copies: (N, sum of d_m*d_n) -> (N, sum of d_r*d_c) (derivations 3.5i)."""
        parts, _ = split(s, [shape.d_m * shape.d_n for shape in self.shapes])
        cores = [
            repeat_backward(part.reshape(-1, d_m, d_n), d_r, d_c, self.mode).reshape(-1, d_r * d_c)
            for part, (d_r, d_c, d_m, d_n) in zip(parts, self.shapes, strict=True)
        ]
        return concat(cores)[0]
