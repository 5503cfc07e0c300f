"""The paper's Table 1 on any data: all systems, tuned alike, over seeds, with paired tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from midpg_np.experiments.jobs import Job
from midpg_np.experiments.runner import is_failure
from midpg_np.experiments.statistics import METRICS, BySeed, best, compare, summarise
from midpg_np.experiments.table_report import title_of
from midpg_np.experiments.tuning import Task, Tuned, choose, settings_of, tuning_jobs, untuned

# What runs jobs: ``run_jobs`` with everything but the jobs filled in.
RunJobs = Callable[[list[Job]], list[dict[str, Any]]]

SYSTEMS = ("dnn", "ple", "star", "pepnet", "adasparse", "apg", "optmsm", "dpg", "midpg")
BASELINE = "dnn"
# The paper's own systems; all others are what they are compared with.
PROPOSED = ("dpg", "midpg")

# The metrics that the paper prints.
PRINTED = ("auc", "logloss")
# What it prints, by the names of the data here: Amazon and IAAC, the complete files.
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "marketbias": {
        "dnn": (0.6590, 0.5235),
        "ple": (0.6639, 0.5201),
        "star": (0.6623, 0.5205),
        "pepnet": (0.6671, 0.5167),
        "adasparse": (0.6695, 0.5142),
        "apg": (0.6697, 0.5138),
        "dpg": (0.6716, 0.5104),
        "midpg": (0.6745, 0.5062),
    },
    "iaac": {
        "dnn": (0.6335, 0.0865),
        "ple": (0.6377, 0.0846),
        "star": (0.6424, 0.0829),
        "pepnet": (0.6435, 0.0825),
        "adasparse": (0.6462, 0.0810),
        "apg": (0.6457, 0.0817),
        "dpg": (0.6479, 0.0801),
        "midpg": (0.6504, 0.0794),
    },
}


@dataclass(frozen=True)
class Table1:
    """What to run.

    Parameters
    ----------
    task : Task
        The rows and the training.
    systems : tuple of str
        Names in ``SYSTEMS``.
    seeds : tuple of int
        One trial each.
    tuning_seeds : tuple of int
        Seeds for which every setting of a grid is tried; none: the defaults are kept.

    Raises
    ------
    ValueError
        If a system does not exist or stands twice, or there is none, or no seed.
    """

    task: Task
    systems: tuple[str, ...] = SYSTEMS
    seeds: tuple[int, ...] = tuple(range(10))
    tuning_seeds: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        unknown = [name for name in self.systems if name not in SYSTEMS]
        if unknown or not self.systems or len(set(self.systems)) < len(self.systems):
            raise ValueError(
                f"systems must be some of {', '.join(SYSTEMS)}, each once; got "
                f"{', '.join(self.systems) or 'none'}."
            )
        if not self.seeds:
            raise ValueError("a table needs at least one trial; got no seed.")


def run_table1(table: Table1, run: RunJobs) -> dict[str, Any]:
    """Tune every system, train it with every seed, and compare.

    Parameters
    ----------
    table : Table1
        What to run.
    run : callable
        Takes a list of jobs and returns their results in order.

    Returns
    -------
    dict
        Ready for JSON; see ``compare_systems`` and, for ``tuning``, ``Tuned.as_dict``.
    """
    tuned = tune(table, run)
    jobs = [
        table.task.job(system, tuned[system].setting, seed)
        for system in table.systems
        for seed in table.seeds
    ]
    results = run(jobs)
    return {
        "data": table.task.data,
        "training": table.task.all_training,
        "seeds": list(table.seeds),
        "tuning": {
            "seeds": list(table.tuning_seeds),
            "systems": {system: choice.as_dict() for system, choice in tuned.items()},
        },
        **compare_systems(table, tuned, results),
        "failed": failed_jobs(results),
        "versions": next((r["versions"] for r in results if not is_failure(r)), None),
    }


def tune(table: Table1, run: RunJobs) -> dict[str, Tuned]:
    """Choose a setting for every system, by validation AUC."""
    grids = {system: settings_of(system, table.task) for system in table.systems}
    if not table.tuning_seeds:
        return untuned(grids)
    results = run(tuning_jobs(table.task, grids, table.tuning_seeds))
    return choose(grids, results, len(table.tuning_seeds))


def compare_systems(
    table: Table1, tuned: Mapping[str, Tuned], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Summarise and test the results of all trials.

    Returns
    -------
    dict
        ``systems``: by name {setting, metrics, cost, paper}, where ``metrics`` holds for each of
        ``METRICS`` the values, their mean and standard deviation, and the paired comparison
        ``against_dnn`` and ``against_best`` (None for the system itself).  ``best_comparison``: by
        metric, the comparison system with the best mean on the test rows, None if there is none.
    """
    runs = by_system(results)
    systems: dict[str, Any] = {
        system: {
            "setting": tuned[system].setting.as_dict() | {"text": tuned[system].setting.text},
            "metrics": {},
            "cost": cost_of(runs.get(system, {}).values()),
            "paper": _paper(table.task.data, system),
        }
        for system in table.systems
    }
    best_comparison: dict[str, str | None] = {}
    for metric, larger in METRICS.items():
        values = {system: metric_by_seed(runs.get(system, {}), metric) for system in systems}
        others = {system: v for system, v in values.items() if system not in PROPOSED}
        best_comparison[metric] = best(others, larger_is_better=larger)
        pairs = {}
        for key, reference in (("dnn", BASELINE), ("best", best_comparison[metric])):
            found = {}
            if reference in values:
                found = compare(values, str(reference), larger_is_better=larger)
            pairs[key] = {name: pair.as_dict() for name, pair in found.items()}
        for system, content in systems.items():
            content["metrics"][metric] = {
                **summarise(values[system]),
                "against_dnn": pairs["dnn"].get(system),
                "against_best": pairs["best"].get(system),
            }
    return {"systems": systems, "best_comparison": best_comparison}


def by_system(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return the results that there are, by model and seed."""
    runs: dict[str, dict[int, Mapping[str, Any]]] = {}
    for result in results:
        if not is_failure(result):
            job = result["job"]
            runs.setdefault(job["model"], {})[job["seed"]] = result
    return runs


def metric_by_seed(runs: Mapping[int, Mapping[str, Any]], metric: str) -> BySeed:
    """Return a metric of the test rows by seed, where it is defined."""
    values = {seed: run["metrics"]["test"][metric] for seed, run in runs.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def cost_of(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return parameters, and means over the runs of time and epochs; None without a run."""
    runs = list(runs)
    if not runs:
        return None
    names = ("seconds", "seconds_per_epoch", "epochs", "best_step")
    means = {name: float(np.mean([run[name] for run in runs])) for name in names}
    return {"parameters": runs[0]["params"], **means}


def failed_jobs(results: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return system, error and command of every job that failed."""
    return [
        {
            "system": f"{title_of(result['job']['model'])}, seed {result['job']['seed']}",
            "error": result["error"],
            "command": result["command"],
        }
        for result in results
        if is_failure(result)
    ]


def _paper(data: str, system: str) -> dict[str, float] | None:
    """Return what the paper prints for a system, and its gain over the DNN; None if nothing."""
    printed = PAPER.get(data, {})
    if system not in printed:
        return None
    (auc, logloss), (dnn_auc, dnn_logloss) = printed[system], printed[BASELINE]
    gains = {"auc_gain": round(auc - dnn_auc, 4), "logloss_gain": round(logloss - dnn_logloss, 4)}
    return {"auc": auc, "logloss": logloss, **gains}
