"""A training after which the weighting cores of its test rows are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from midpg_np.data import Splits
from midpg_np.data.batches import Dataset
from midpg_np.experiments.cores import (
    collect_cores,
    dependence_bounds,
    dependence_ceiling,
    scenario_means,
)
from midpg_np.experiments.jobs import Job
from midpg_np.experiments.separation import (
    SIMILARITIES,
    pair_agreement,
    probe_bound,
    separation,
    similarity,
)
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import evaluate
from midpg_np.training.loop import fit
from midpg_np.tree import Tree

STATES = ("best", "last")
# Test rows for the discriminators' bound, which needs forward passes only, and for the probe's.
_BOUND_ROWS = 20_000
_PROBE_ROWS = 4_000


@dataclass(frozen=True)
class CoresJob(Job):
    """A training after which the weighting cores of test rows are measured.

    Parameters
    ----------
    rows_per_scenario : int
        Test rows of each scenario at most, whose cores are compared.
    picture : bool
        Whether to put the cores of these rows into a plane, too.
    state : str
        "best": at the best validation.  "last": after all epochs, trained a second time without
        validation; the scores are those of that state, too.
    """

    rows_per_scenario: int = 100
    picture: bool = False
    state: str = "best"

    __hash__ = Job.__hash__  # a data class would hash its fields, of which some are dictionaries

    def measure(self, model: Any, params: Tree, splits: Splits) -> dict[str, Any]:
        """Return the numbers of the cores as ``diversity``, and what "last" changes."""
        changed: dict[str, Any] = {}
        if self.state == "last":
            params, changed = self._train_to_the_end(model, splits)
        return {"diversity": self._numbers(model, params, splits), **changed}

    def _train_to_the_end(self, model: Any, splits: Splits) -> tuple[Tree, dict[str, Any]]:
        config = TrainConfig.from_dict(self.training | {"seed": self.seed})
        last = fit(model, splits.train, None, config)
        metrics = {
            part: evaluate(model, last.params, splits.parts[part], device=config.device).as_dict()
            for part in self.parts
        }
        steps = {name: getattr(last, name) for name in ("best_epoch", "best_step", "n_steps")}
        return last.params, {"metrics": metrics, **steps}

    def _numbers(self, model: Any, params: Tree, splits: Splits) -> dict[str, Any]:
        rng_rows, rng_pairs, rng_chance, rng_probe = np.random.default_rng(self.seed).spawn(4)
        test = splits.test
        sample = test.take(balanced_rows(test.scenario, self.rows_per_scenario, rng_rows))
        cores = collect_cores(model, params, sample)
        means = scenario_means(model, params, test)
        seen = test.take(rng_pairs.permutation(len(test))[:_BOUND_ROWS])
        bounds = dependence_bounds(model, params, seen, rng_pairs)
        probes = _probe_bounds(model, params, test, rng_probe)
        planted = planted_means(splits)
        layers = {
            name: {
                **separation(Q, sample.scenario, rng_chance)._asdict(),
                "bound": bounds.get(name),
                "probe": probes[name],
                **_similarities(means[name], planted),
                "plane": _rounded(to_plane(Q, self.seed)) if self.picture else None,
            }
            for name, Q in cores.items()
        }
        contexts = seen.codes[:, : seen.n_aware]
        return {
            "layers": layers,
            "bound_all": bounds.get("all"),
            "ceiling": dependence_ceiling(contexts),
            "n_contexts": len(np.unique(contexts, axis=0)),
            "scenario_names": list(test.scenario_names),
            "scenario": sample.scenario.tolist(),
        }


def balanced_rows(
    scenario: np.ndarray, rows_per_scenario: int, rng: np.random.Generator
) -> np.ndarray:
    """Return positions of at most so many random rows of each scenario, increasing."""
    order = rng.permutation(len(scenario))
    chosen = [order[scenario[order] == d][:rows_per_scenario] for d in np.unique(scenario)]
    return np.sort(np.concatenate(chosen))


def planted_means(splits: Splits) -> np.ndarray | None:
    """Return the mean weighting matrix of every scenario in the truth; None where it is unknown.

    Of the first layer of the network that drew the labels; the mean is over the channels of the
    scenario's test rows.

    Shapes
    ------
    means : (D, d_m * d_n)
        NaN for a scenario without rows.
    """
    if splits.truth is None:
        return None
    matrices = splits.truth.teacher.matrices[0]
    test, vocabularies = splits.test, splits.encoder.state()[1]
    channels = np.asarray(vocabularies[f"vocabulary/{test.field_names[1]}/values"])
    means = np.full((test.n_scenarios, matrices[0, 0].size), np.nan)
    for d in range(test.n_scenarios):
        codes = test.codes[test.scenario == d, 1]
        codes = codes[codes > 0]  # 0: a channel without training rows, which is not known by name
        if len(codes):
            of_rows = matrices[int(test.scenario_names[d]), channels[codes - 1]]
            means[d] = of_rows.mean(axis=0).reshape(-1)
    return means


def to_plane(rows: np.ndarray, seed: int) -> np.ndarray:
    """Put rows into the plane by t-SNE, neighbours beside each other.

    Shapes
    ------
    rows : (N, K)
    plane : (N, 2)
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows = np.asarray(rows, dtype=np.float64)
    n_rows = len(rows)
    if n_rows < 4 or np.ptp(rows, axis=0).max() == 0.0:
        return np.zeros((n_rows, 2))  # nothing to put apart
    with threadpool_limits(limits=1):  # so that the sums have one order
        tsne = TSNE(
            perplexity=min(30.0, (n_rows - 1) / 3),
            init="pca" if min(rows.shape) >= 2 else "random",
            random_state=seed,
        )
        return np.asarray(tsne.fit_transform(rows))


def _probe_bounds(
    model: Any, params: Tree, test: Dataset, rng: np.random.Generator
) -> dict[str, float]:
    rows = test.take(rng.permutation(len(test))[:_PROBE_ROWS])
    contexts = rows.codes[:, : rows.n_aware]
    cores = collect_cores(model, params, rows)
    return {name: probe_bound(Q, contexts, rng) for name, Q in cores.items()}


def _similarities(means: np.ndarray, planted: np.ndarray | None) -> dict[str, Any]:
    """Return how alike the scenarios are by every measure, and how far that agrees with truth."""
    alike = {kind: similarity(means, kind) for kind in SIMILARITIES}
    agreement = None
    if planted is not None:
        agreement = {
            kind: pair_agreement(matrix, similarity(planted, kind))
            for kind, matrix in alike.items()
        }
    matrices = {kind: _without_nan(matrix) for kind, matrix in alike.items()}
    return {"similarity": matrices, "planted": agreement}


def _without_nan(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(x) if np.isfinite(x) else None for x in row] for row in matrix]


def _rounded(points: np.ndarray) -> list[list[float]]:
    return [[round(float(x), 3) for x in point] for point in points]
