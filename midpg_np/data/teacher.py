"""The network that draws the labels of the synthetic data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with shared weights and one weighting matrix per scenario and layer.

    Layer l maps H to ReLU(H (S_d * W) + b); the head gives the log-odds.

    Shapes
    ------
    tables : F arrays (V_f, k)
        Embedding of each category of each field.
    weights, biases : L arrays (d_m, d_n) and (d_n,)
        Shared by all scenarios.
    head : (d_n,)
        Weights of the output, behind the last layer.
    cores : L arrays (D, d_r, d_c)
        2 sigmoid of a matrix of low rank, per scenario.
    matrices : L arrays (D, d_m, d_n)
        S_d: the cores with every entry repeated as a block.
    """

    tables: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    head: np.ndarray
    cores: tuple[np.ndarray, ...]
    matrices: tuple[np.ndarray, ...]

    def logit(self, values: np.ndarray) -> np.ndarray:
        """Return the log-odds (N,) of rows with the categories ``values`` (N, F).

        Field 0 is the scenario.
        """
        x = np.concatenate([table[values[:, f]] for f, table in enumerate(self.tables)], axis=1)
        logit = np.empty(len(x))
        # Scenario by scenario: a matrix of its own for every row would not fit in memory.
        for d in range(len(self.matrices[0])):
            rows = values[:, 0] == d
            h = x[rows]
            for S, W, b in zip(self.matrices, self.weights, self.biases, strict=True):
                h = np.maximum(h @ (S[d] * W) + b, 0.0)
            logit[rows] = h @ self.head
        return logit


def make_teacher(
    rng: np.random.Generator,
    sizes: Sequence[int],
    dim: int,
    widths: Sequence[int],
    rank: int,
    difference: float,
) -> Teacher:
    """Draw a teacher.

    In the first layer a block of S_d spans one field (k inputs) and two hidden units: each scenario
    has its own view of which fields matter, and to what.

    Parameters
    ----------
    rng : numpy Generator
        Source of randomness.
    sizes : sequence of int
        Number of categories of each field; the first is the number of scenarios D.
    dim : int
        Embedding width k.
    widths : sequence of int
        Hidden widths, even.
    rank : int
        Rank of the cores before the sigmoid.
    difference : float
        Scale of the cores before the sigmoid; 0 makes every S_d a matrix of ones.

    Raises
    ------
    ValueError
        If a width is odd or a size not positive.
    """
    for name, numbers in (("widths", widths), ("rank", (rank,)), ("dim", (dim,)), ("sizes", sizes)):
        if not numbers or min(numbers) < 1:
            raise ValueError(f"{name} must be positive; got {numbers}.")
    if any(width % 2 for width in widths):
        raise ValueError(f"widths must be even, for blocks of two units; got {tuple(widths)}.")
    tables = tuple(rng.normal(size=(size, dim)) for size in sizes)
    weights, biases, cores, matrices = [], [], [], []
    d_m, d_r = len(sizes) * dim, len(sizes)
    for d_n in widths:
        core = draw_cores(rng, sizes[0], (d_r, d_n // 2), rank, difference)
        weights.append(rng.normal(size=(d_m, d_n)) * np.sqrt(2.0 / d_m))
        biases.append(0.1 * rng.normal(size=d_n))
        cores.append(core)
        matrices.append(block_repeat(core, d_m, d_n))
        d_m, d_r = d_n, d_n // 2
    head = rng.normal(size=d_m) / np.sqrt(d_m)
    return Teacher(tables, tuple(weights), tuple(biases), head, tuple(cores), tuple(matrices))


def draw_cores(
    rng: np.random.Generator,
    n_scenarios: int,
    shape: tuple[int, int],
    rank: int,
    difference: float,
) -> np.ndarray:
    """Draw cores (D, d_r, d_c) of variant "r": own rows R_d, shared columns C, 2 sigmoid(R_d C)."""
    d_r, d_c = shape
    R = rng.normal(size=(n_scenarios, d_r, rank))
    C_share = rng.normal(size=(rank, d_c))
    P = difference * (R @ C_share) / np.sqrt(rank)
    return 1.0 + np.tanh(P / 2)  # = 2 sigmoid(P), without overflow


def block_repeat(core: np.ndarray, d_m: int, d_n: int) -> np.ndarray:
    """Repeat every entry of cores (D, d_r, d_c) as a block, giving (D, d_m, d_n)."""
    _, d_r, d_c = core.shape
    return np.repeat(np.repeat(core, d_m // d_r, axis=1), d_n // d_c, axis=2)
