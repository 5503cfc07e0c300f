"""The sum of missed steps as loops; function and shapes as in ``kernels.missed``."""

from __future__ import annotations

import numpy as np

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import fast_loops
from midpg_np.kernels.dispatch import empty
from midpg_np.kernels.launch import must_be_contiguous

ROWS = 32  # of a block, whose entries are worked on as one vector


def sum_missed(
    weights: Array, m: Array, v: Array, coefficients: Array, decay_m: Array, decay_v: Array
) -> Array:
    """As ``kernels.sum_missed``."""
    must_be_contiguous(weights=weights, m=m, v=v)
    largest = empty(np, decay_m.shape, m.dtype)
    entries = (x.reshape(-1) for x in (weights, m, v))
    _sum(*entries, np.ascontiguousarray(coefficients), decay_m, decay_v, largest)
    return largest


@fast_loops
def _sum(weights, m, v, coefficients, decay_m, decay_v, largest):
    n_rows = coefficients.shape[0]
    width, last_term = m.size // max(n_rows, 1), coefficients.shape[1] - 2
    y = np.empty(ROWS * width, m.dtype)
    inverse, total = np.empty_like(y), np.empty_like(y)
    for start in range(0, n_rows, ROWS):
        stop = min(start + ROWS, n_rows)
        block = slice(start * width, stop * width)
        w_block, m_block, v_block = weights[block], m[block], v[block]
        of_block = coefficients[start:stop]
        _spread(of_block[:, 0], width, y)
        _spread(of_block[:, last_term], width, total)
        for i in range(w_block.size):
            inverse[i] = m.dtype.type(1.0) / (np.sqrt(v_block[i]) + y[i])
            y[i] *= inverse[i]
        for term in range(last_term - 1, 0, -1):
            for row in range(stop - start):
                q = of_block[row, term]
                for i in _entries(row, width):
                    total[i] = q - total[i] * y[i]
        for i in range(w_block.size):
            w_block[i] -= total[i] * m_block[i] * inverse[i]
            y[i] = y[i] if m_block[i] != 0.0 else m.dtype.type(0.0)
        for row in range(stop - start):
            most, by_m, by_v = m.dtype.type(0.0), decay_m[start + row], decay_v[start + row]
            for i in _entries(row, width):
                most = max(most, y[i])
                m_block[i] *= by_m
                v_block[i] *= by_v
            largest[start + row] = most


@fast_loops
def _spread(column, width, entries):
    for row in range(column.size):
        value = column[row]
        for i in _entries(row, width):
            entries[i] = value


@fast_loops
def _entries(row, width):
    return range(np.uintp(row * width), np.uintp((row + 1) * width))
