"""Figure 2 b, d, f: what the regulariser (MIR) does to the weighting cores.

The same network is trained with and without MIR, with the same seeds on the same rows.  "Without"
is MI-DPG whose regulariser reaches its discriminators only (``mi_grad_to="disc"``): it weights, bit
by bit, as DPG does, while its discriminators watch and learn as those of "with" do.  So the bound
on the dependence of context and core is measured by the same means in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.experiments.cores_job import STATES, CoresJob
from midpg_np.experiments.jobs import load_job_data
from midpg_np.experiments.runner import is_failure, run_jobs
from midpg_np.experiments.separation import pair_agreement
from midpg_np.models import model_for

ARMS = ("without", "with")


@dataclass(frozen=True)
class DiversityPlan:
    """What to train for the figure.

    Parameters
    ----------
    data, path, data_options, schema
        As in ``Job``.
    seeds : tuple of int
        Seeds of both trainings; the pictures are of the first.
    model_options, training : dict
        Options of MI-DPG and of the training.
    layer : str
        Layer of the pictures.
    rows_per_scenario : int
        Test rows of each scenario whose cores are compared.
    state : str
        "best" or "last"; see ``CoresJob``.
    """

    data: str
    path: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    schema: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    model_options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    layer: str = "layer_1"
    rows_per_scenario: int = 100
    state: str = "best"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds must hold each value once, and at least one; got {self.seeds}."
            )
        if self.rows_per_scenario < 2:
            raise ValueError(
                f"rows_per_scenario must be at least 2, or no row has a neighbour of its own "
                f"scenario; got {self.rows_per_scenario}."
            )
        if self.state not in STATES:
            raise ValueError(f"state must be one of {STATES}; got {self.state!r}.")
        weight = self.model_options.get("mi_weight", 1.0)
        if not weight > 0:
            raise ValueError(
                f"mi_weight must be above 0 for the training with the regulariser; got {weight}. "
                "The one without is trained in any case."
            )

    def job(self, arm: str, seed: int) -> CoresJob:
        """Return the training of one arm, "without" or "with", with one seed."""
        watched = {"mi_grad_to": "disc"} if arm == "without" else {}
        return CoresJob(
            data=self.data,
            path=self.path,
            data_options=self.data_options,
            model="midpg",
            model_options=self.model_options | watched,
            training=self.training,
            seed=seed,
            schema=self.schema,
            rows_per_scenario=self.rows_per_scenario,
            picture=seed == self.seeds[0],
            state=self.state,
        )


@dataclass(frozen=True)
class DiversityResult:
    """Results by arm and seed; seeds that failed in either arm are absent from both.

    Parameters
    ----------
    plan : DiversityPlan
    results : dict of dict
        Arm to seed to what ``run_job`` returned, with ``diversity``.
    failures : list of dict
        Results of the jobs that failed.
    """

    plan: DiversityPlan
    results: dict[str, dict[int, dict[str, Any]]]
    failures: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        """Seeds with both arms, in the order of the plan."""
        return list(self.results[ARMS[0]])

    @property
    def layers(self) -> list[str]:
        """Names of the weighted layers."""
        return list(self._any["layers"])

    @property
    def scenario_names(self) -> list[str]:
        """Names of the scenarios, by scenario id."""
        return list(self._any["scenario_names"])

    @property
    def has_truth(self) -> bool:
        """Whether the similarity of the scenarios was planted."""
        return self._any["layers"][self.layers[0]]["planted"] is not None

    @property
    def _any(self) -> dict[str, Any]:
        first = self.results[ARMS[0]][self.seeds[0]]
        return dict(first["diversity"])

    def values(self, arm: str, layer: str, measure: str) -> dict[int, float]:
        """Return a number of a layer by seed; seeds for which it is not defined are absent."""
        found = {
            seed: result["diversity"]["layers"][layer][measure]
            for seed, result in self.results[arm].items()
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def ceiling(self) -> dict[int, float]:
        """Return the largest value that the bound can have, by seed."""
        return {s: r["diversity"]["ceiling"] for s, r in self.results[ARMS[0]].items()}

    def scores(self, arm: str, metric: str) -> dict[int, float]:
        """Return a metric on the test rows by seed, or ``best_step``."""
        of_arm = self.results[arm].items()
        if metric == "best_step":
            return {seed: float(result[metric]) for seed, result in of_arm}
        found = {seed: result["metrics"]["test"][metric] for seed, result in of_arm}
        return {seed: value for seed, value in found.items() if value is not None}

    def planted(self, arm: str, layer: str, kind: str) -> dict[int, float]:
        """Return the rank correlation of learned and planted similarity by seed."""
        found = {
            seed: result["diversity"]["layers"][layer]["planted"][kind]
            for seed, result in self.results[arm].items()
        }
        return {seed: value for seed, value in found.items() if value is not None}

    def similarity(self, arm: str, layer: str, kind: str) -> np.ndarray:
        """Return how alike the scenarios are: mean over seeds, of the first seed on planted data.

        Planted data are others with every seed; elsewhere seeds with other scenarios than the first
        are left out.
        """
        matrices = self._similarities(arm, layer, kind)
        return matrices[0] if self.has_truth else np.mean(matrices, axis=0)

    def stability(self, arm: str, layer: str, kind: str) -> float | None:
        """Return how far two seeds agree on which scenarios are alike: mean rank correlation.

        None for planted data, and with one seed.
        """
        if self.has_truth:
            return None
        pairs = combinations(self._similarities(arm, layer, kind), 2)
        found = [rho for a, b in pairs if (rho := pair_agreement(a, b)) is not None]
        return float(np.mean(found)) if found else None

    def _similarities(self, arm: str, layer: str, kind: str) -> list[np.ndarray]:
        return [
            np.array(numbers["layers"][layer]["similarity"][kind], dtype=np.float64)
            for numbers in (result["diversity"] for result in self.results[arm].values())
            if numbers["scenario_names"] == self.scenario_names
        ]


def run_diversity(plan: DiversityPlan, out: str | Path, **how: Any) -> DiversityResult:
    """Train what has no stored result yet, and collect.

    Parameters
    ----------
    plan : DiversityPlan
    out : path
        Folder of the results.
    **how
        ``workers``, ``dask``, ``on_done`` and ``progress``, as in ``run_jobs``.

    Raises
    ------
    ValueError
        If the model has no layer of that name, or the plan does not fit the data.
    RuntimeError
        If no seed was trained in both ways.
    Exception
        Whatever loading the data or ``run_jobs`` raise; a training that fails does not.
    """
    first = plan.job(ARMS[0], plan.seeds[0])
    layers = list(model_for("midpg", load_job_data(first).train, first.model_options).layers)
    if plan.layer not in layers:
        raise ValueError(f"layer must be one of {layers}; got {plan.layer!r}.")
    jobs = {(arm, seed): plan.job(arm, seed) for seed in plan.seeds for arm in ARMS}
    found = dict(zip(jobs, run_jobs(list(jobs.values()), out, **how), strict=True))
    return collect(plan, found)


def collect(
    plan: DiversityPlan, found: Mapping[tuple[str, int], dict[str, Any]]
) -> DiversityResult:
    """Put results by arm and seed together; RuntimeError if no seed was trained in both ways."""
    failures = [result for result in found.values() if is_failure(result)]
    whole = [s for s in plan.seeds if not any(is_failure(found[arm, s]) for arm in ARMS)]
    if not whole:
        raise RuntimeError(
            f"no seed of {list(plan.seeds)} was trained with and without the regulariser; the "
            f"first error was: {failures[0]['error']}"
        )
    results = {arm: {seed: found[arm, seed] for seed in whole} for arm in ARMS}
    return DiversityResult(plan, results, failures)
