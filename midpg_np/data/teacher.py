"""The network that draws the labels of the synthetic data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with shared weights and one weighting matrix per context and layer.

    A context is a pair (scenario, channel), the two scenario-aware fields.  Layer l maps H to
    H (S_context * W) + b, with a ReLU between the layers; the last gives the log-odds.

    Shapes
    ------
    tables : F arrays (V_f, k)
        Embedding of each category of each field.
    weights, biases : L arrays (d_m, d_n) and (d_n,)
        Shared by all contexts; the last d_n is 1.
    cores : L arrays (D, C, d_r, d_c)
        2 sigmoid of a matrix of low rank, per context.
    matrices : L arrays (D, C, d_m, d_n)
        S: the cores with every entry repeated as a block.
    """

    tables: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    cores: tuple[np.ndarray, ...]
    matrices: tuple[np.ndarray, ...]

    def logit(self, values: np.ndarray) -> np.ndarray:
        """Return the log-odds (N,) of rows with the categories ``values`` (N, F).

        Field 0 is the scenario, field 1 the channel.
        """
        x = np.concatenate([table[values[:, f]] for f, table in enumerate(self.tables)], axis=1)
        logit = np.empty(len(x))
        # Context by context: a matrix of its own for every row would not fit in memory.
        for context in np.ndindex(self.matrices[0].shape[:2]):
            rows = (values[:, :2] == context).all(axis=1)
            h = x[rows]
            for layer, (S, W, b) in enumerate(
                zip(self.matrices, self.weights, self.biases, strict=True)
            ):
                h = (np.maximum(h, 0.0) if layer else h) @ (S[context] * W) + b
            logit[rows] = h[:, 0]
        return logit


def make_teacher(
    rng: np.random.Generator,
    sizes: Sequence[int],
    dim: int,
    hidden: Sequence[int],
    rank: int,
    difference: float,
    density: float,
) -> Teacher:
    """Draw a teacher.

    In the first layer a block of S spans one field (k inputs) and two units: each context has its
    own view of which fields matter, and to what.

    Parameters
    ----------
    rng : numpy Generator
        Source of randomness.
    sizes : sequence of int
        Number of categories of each field; the first two are the scenarios D and channels C.
    dim : int
        Embedding width k.
    hidden : sequence of int
        Hidden widths, even; with none, the teacher weights the fields of a linear score.
    rank : int
        Rank of the cores before the sigmoid.
    difference : float
        Scale of the cores before the sigmoid; 0 makes every S a matrix of ones.
    density : float
        Share of the core entries above 1.

    Raises
    ------
    ValueError
        If a hidden width is odd, a size not positive, or the density not inside (0, 1).
    """
    for name, numbers in (("rank", (rank,)), ("dim", (dim,)), ("sizes", sizes)):
        if not numbers or min(numbers) < 1:
            raise ValueError(f"{name} must be positive; got {numbers}.")
    if any(width % 2 or width < 2 for width in hidden):
        raise ValueError(f"hidden must be even, for blocks of two units; got {tuple(hidden)}.")
    if not 0 < density < 1:
        raise ValueError(f"density must lie in (0, 1); got {density}.")
    tables = tuple(rng.normal(size=(size, dim)) for size in sizes)
    weights, biases, cores, matrices = [], [], [], []
    d_m, d_r = len(sizes) * dim, len(sizes)
    for d_n in (*hidden, 1):
        d_c = max(d_n // 2, 1)
        core = draw_cores(rng, (sizes[0], sizes[1]), (d_r, d_c), rank, difference, density)
        weights.append(rng.normal(size=(d_m, d_n)) * np.sqrt(2.0 / d_m))
        biases.append(0.1 * rng.normal(size=d_n))
        cores.append(core)
        matrices.append(block_repeat(core, d_m, d_n))
        d_m, d_r = d_n, d_c
    return Teacher(tables, tuple(weights), tuple(biases), tuple(cores), tuple(matrices))


def draw_cores(
    rng: np.random.Generator,
    n_contexts: tuple[int, int],
    shape: tuple[int, int],
    rank: int,
    difference: float,
    density: float,
) -> np.ndarray:
    """Draw cores (D, C, d_r, d_c) of variant "r": own rows R, shared columns C_share of length 1.

    The core is 2 sigmoid(difference (R C_share - t)); the entries of R C_share are standard
    normal, and t is the quantile that leaves the share ``density`` of them above it.
    """
    d_r, d_c = shape
    R = rng.normal(size=(*n_contexts, d_r, rank))
    C_share = rng.normal(size=(rank, d_c))
    C_share /= np.linalg.norm(C_share, axis=0)
    P = difference * (R @ C_share - NormalDist().inv_cdf(1.0 - density))
    return 1.0 + np.tanh(P / 2)  # = 2 sigmoid(P), without overflow


def block_repeat(core: np.ndarray, d_m: int, d_n: int) -> np.ndarray:
    """Repeat every entry of cores (..., d_r, d_c) as a block, giving (..., d_m, d_n)."""
    d_r, d_c = core.shape[-2:]
    return np.repeat(np.repeat(core, d_m // d_r, axis=-2), d_n // d_c, axis=-1)
