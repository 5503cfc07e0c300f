"""What a trained DPG or MI-DPG does with its rows: weighting cores, and how well they are told.

Everything here reads the trained model; nothing trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from midpg_np.batch import Batch
from midpg_np.data.batches import Dataset, iterate_batches
from midpg_np.layers.negatives import draw_partner
from midpg_np.models import DPG, MIDPG, model_name
from midpg_np.training.blas import blas_threads
from midpg_np.tree import Tree

_BATCH_ROWS = 512


def check_has_cores(model: Any) -> None:
    """Raise ValueError unless the model weights its layers by cores, as DPG and MI-DPG do."""
    if not isinstance(model, DPG):
        raise ValueError(
            f"model {model_name(model)!r} has no weighting cores to look at; take 'dpg' or 'midpg'."
        )


def collect_cores(
    model: Any, params: Tree, dataset: Dataset, batch_size: int = _BATCH_ROWS
) -> dict[str, np.ndarray]:
    """Return the cores Q of every row by layer, flattened row by row.

    The cores and not S = psi(Q): psi repeats every entry equally often, so that distances between
    rows differ by one factor only.

    Shapes
    ------
    Q : (N, d_r * d_c)

    Raises
    ------
    ValueError
        If the model has no cores.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _layers(model)}
    for _, cores in _batches_of_cores(model, params, dataset, batch_size):
        for name, Q in cores.items():
            parts[name].append(Q)
    return {name: np.concatenate(Qs) for name, Qs in parts.items()}


def scenario_means(
    model: Any, params: Tree, dataset: Dataset, batch_size: int = _BATCH_ROWS
) -> dict[str, np.ndarray]:
    """Return the mean core of every scenario by layer; NaN for a scenario without rows.

    Batch by batch, so that the cores of all rows need not fit into memory.

    Shapes
    ------
    means : (D, d_r * d_c)

    Raises
    ------
    ValueError
        If the model has no cores.
    """
    _layers(model)
    n_scenarios = dataset.n_scenarios
    counts = np.bincount(dataset.scenario[dataset.scenario >= 0], minlength=n_scenarios)
    sums: dict[str, Any] = {}
    for rows, cores in _batches_of_cores(model, params, dataset, batch_size):
        one_hot = (dataset.scenario[rows] == np.arange(n_scenarios)[:, None]).astype(np.float64)
        for name, Q in cores.items():
            sums[name] = sums.get(name, 0.0) + one_hot @ Q
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a scenario without rows
        return {name: total / counts[:, None] for name, total in sums.items()}


def dependence_bounds(
    model: Any,
    params: Tree,
    dataset: Dataset,
    rng: np.random.Generator,
    n_passes: int = 4,
    batch_size: int = _BATCH_ROWS,
) -> dict[str, float]:
    """Return 2 log 2 - L_mi on the rows, in nats, for each discriminator of MI-DPG.

    Whatever a discriminator has learned, this is, up to chance, a lower bound on twice the
    Jensen-Shannon divergence between the joint distribution of context and core and the product of
    their marginals (derivations 3.3d): 0 where they are independent, at most 2 log 2.  One that has
    learned too little or too much falls below 0.

    Parameters
    ----------
    dataset : Dataset
        At least two rows that training did not see.
    rng : numpy Generator
        Draws the shuffled pairs: uniform permutations within random batches, whatever ``negatives``
        the model was trained with, for the ceiling holds for these only.
    n_passes : int
        Passes over the rows, with other pairs each time.

    Raises
    ------
    ValueError
        If the model has no discriminators or there are fewer than two rows.
    """
    if not isinstance(model, MIDPG):
        raise ValueError(
            f"model {model_name(model)!r} has no discriminators to bound the dependence of context "
            "and core; take 'midpg', with mi_grad_to='disc' for one that weights as DPG does."
        )
    if len(dataset) < 2:
        raise ValueError(f"shuffled pairs need at least 2 rows; got {len(dataset)}.")
    losses = dict.fromkeys(model.regularisers, 0.0)
    with blas_threads(1):
        for _ in range(n_passes):
            for rows in iterate_batches(len(dataset), batch_size, rng):
                batch = _inputs(dataset, rows)
                partner = draw_partner(rng, batch.scenario, "permutation")
                _, cache = model.forward(params, batch, draws={"partner": partner})
                for group, pairs in cache.network.mi.items():
                    losses[group] += _loss_sum(pairs.t_pos, pairs.t_neg)
    n_pairs = n_passes * len(dataset)
    return {group: float(2.0 * np.log(2.0) - total / n_pairs) for group, total in losses.items()}


def dependence_ceiling(contexts: np.ndarray) -> float:
    """Return the largest value that ``dependence_bounds`` can have on rows of these contexts.

    It is reached where the core is a function of the context that tells all contexts apart.  With
    p_v the share of context v (derivations 3.3e has scenarios in this place)::

        2 log 2 - sum_v p_v log(1 + p_v) + sum_v p_v^2 log(p_v / (1 + p_v))

    Shapes
    ------
    contexts : (N, n_aware)
        Codes of the scenario-aware fields.
    """
    _, counts = np.unique(contexts, axis=0, return_counts=True)
    p = counts / counts.sum()
    floor = np.sum(p * np.log1p(p)) - np.sum(p * p * np.log(p / (1.0 + p)))
    return float(2.0 * np.log(2.0) - floor)


def _layers(model: Any) -> tuple[str, ...]:
    check_has_cores(model)
    return tuple(model.layers)


def _batches_of_cores(
    model: Any, params: Tree, dataset: Dataset, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield positions of rows and, by layer, their cores (B, d_r * d_c)."""
    for rows in iterate_batches(len(dataset), batch_size):
        with blas_threads(1):
            _, cache = model.forward(params, _inputs(dataset, rows))
        network = getattr(cache.network, "dpg", cache.network)
        yield rows, {name: _flat(c.weighting.Q) for name, c in network.layers.items()}


def _inputs(dataset: Dataset, rows: np.ndarray) -> Batch:
    """Return rows without their labels."""
    return Batch(dataset.codes[rows], dataset.scenario[rows])


def _flat(Q: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(Q).reshape(len(Q), -1)


def _loss_sum(t_pos: np.ndarray, t_neg: np.ndarray) -> float:
    """Return the sum of softplus(-t_pos) + softplus(t_neg) in float64."""
    t_pos, t_neg = np.asarray(t_pos, np.float64), np.asarray(t_neg, np.float64)
    return float(np.logaddexp(0.0, -t_pos).sum() + np.logaddexp(0.0, t_neg).sum())
