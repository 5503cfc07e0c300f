"""Figure 2 a, c, e: how the AUC depends on the low-rank size of the weighting cores.

The four variants of DPG and APG of as many parameters, over a grid of (d_r, d_c, d_k), each setting
with the same seeds on the same rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from midpg_np.data.batches import Dataset
from midpg_np.experiments.jobs import Job, load_job_data
from midpg_np.experiments.runner import is_failure, run_jobs
from midpg_np.experiments.statistics import Paired, best, compare, paired, summarise
from midpg_np.layers.dwm import VARIANTS
from midpg_np.models import MODELS, model_for

DIVISORS = (8, 4, 2, 1)
RANKS = (1, 2, 4)
METHODS = ("r", "rc", "c", "non", "apg")
# The variant whose parameters APG's are aligned with: the one that the paper finds best.
ALIGNED_WITH = "r"
PARTS = ("valid", "test")
# Options that the grid sets.
SET_BY_GRID = ("variant", "row_divisor", "col_divisor", "d_k", "rank")


class Point(NamedTuple):
    """A point of the grid: d_r = d_m / row_divisor, d_c = d_n / col_divisor, and d_k."""

    row_divisor: int
    col_divisor: int
    d_k: int

    @property
    def size(self) -> float:
        """Low-rank size as the paper measures it, (d_r / d_m) (d_c / d_n) d_k."""
        return self.d_k / (self.row_divisor * self.col_divisor)


FULL = Point(1, 1, 1)  # where "non" stands: its core is as large as W


@dataclass(frozen=True)
class RankPlan:
    """What to train for the figure.

    Parameters
    ----------
    data, path, data_options, schema
        As in ``Job``.
    model : str
        "dpg", or "midpg" for the variants with the regulariser.
    methods : tuple of str
        Among ``METHODS``.
    row_divisors, col_divisors, ranks : tuple of int
        The grid, all combinations.
    seeds : tuple of int
        Seeds of every setting.
    model_options : dict
        Options of the models, each for those that have it.
    training : dict
        Options of the training.
    """

    data: str
    path: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    schema: str | None = None
    model: str = "dpg"
    methods: tuple[str, ...] = METHODS
    row_divisors: tuple[int, ...] = DIVISORS
    col_divisors: tuple[int, ...] = DIVISORS
    ranks: tuple[int, ...] = RANKS
    seeds: tuple[int, ...] = (0, 1, 2)
    model_options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model not in ("dpg", "midpg"):
            raise ValueError(f"the variants are those of 'dpg' or 'midpg'; got {self.model!r}.")
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"methods must be among {METHODS}; got {name!r}.")
        for name in ("methods", "row_divisors", "col_divisors", "ranks", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"{name} must hold each value once, and at least one; got {values}."
                )
        for name in ("row_divisors", "col_divisors", "ranks"):
            if min(getattr(self, name)) < 1:
                raise ValueError(
                    f"{name} must be whole numbers from 1 on; got {getattr(self, name)}."
                )
        for name in self.model_options:
            if name in SET_BY_GRID:
                raise ValueError(f"option {name!r} is set by the grid; it cannot be given as well.")

    @property
    def points(self) -> list[Point]:
        """The grid, from small to large."""
        grid = [Point(*p) for p in product(self.row_divisors, self.col_divisors, self.ranks)]
        return sorted(grid, key=lambda point: (point.size, point.d_k, point.row_divisor))

    def job(self, model: str, options: Mapping[str, Any], seed: int) -> Job:
        """Return the training of one model with one seed."""
        return Job(
            data=self.data,
            path=self.path,
            data_options=self.data_options,
            model=model,
            model_options=dict(options),
            training=self.training,
            seed=seed,
            parts=PARTS,
            schema=self.schema,
        )


@dataclass(frozen=True)
class Setting:
    """One method at one point of the grid.

    Parameters
    ----------
    method : str
        Among ``METHODS``.
    point : Point
        Where it stands in the figure.
    model : str
        Name of its model.
    options : dict
        Options of the model.
    serving : int
        Parameters that a prediction needs, without embedding tables.
    target : int or None
        For APG: the parameters of the variant that it is aligned with.
    """

    method: str
    point: Point
    model: str
    options: dict[str, Any]
    serving: int
    target: int | None = None

    @property
    def mismatch(self) -> float | None:
        """Relative excess of the parameters over those aligned with; None if there are none."""
        return None if self.target is None else self.serving / self.target - 1.0


def settings_of(plan: RankPlan, data: Dataset) -> list[Setting]:
    """Return every method at every point of the grid ("non" at one point only).

    Parameters
    ----------
    data : Dataset
        Rows of the data set, for the number of its fields.

    Raises
    ------
    ValueError
        If a divisor does not divide a width, or an option is one that no method has.
    """
    names = {plan.model if method in VARIANTS else method for method in plan.methods}
    known = {name: {f.name for f in fields(MODELS[name])} for name in names}
    for option in plan.model_options:
        if not any(option in options for options in known.values()):
            raise ValueError(f"none of the models {sorted(names)} has an option {option!r}.")
    # Parameters of the tables do not count, so they may be as small as can be.
    data = replace(data.take(np.arange(0)), vocab_sizes=(1,) * data.n_fields)
    settings: list[Setting] = []
    for method in plan.methods:
        if method == "apg":
            settings += _apg_settings(plan, data)
        else:
            points = [FULL] if method == "non" else plan.points
            settings += [_variant_setting(plan, method, point, data) for point in points]
    return settings


def _variant_setting(plan: RankPlan, variant: str, point: Point, data: Dataset) -> Setting:
    options = _own_options(plan, plan.model) | {"variant": variant}
    if variant != "non":
        options |= point._asdict()
    return Setting(variant, point, plan.model, options, _serving(plan.model, data, options))


def _apg_settings(plan: RankPlan, data: Dataset) -> list[Setting]:
    own = _own_options(plan, "apg")
    sizes = apg_sizes(data, own)
    shared = _own_options(plan, "dpg") | {"variant": ALIGNED_WITH}
    settings = []
    for point in plan.points:
        target = _serving("dpg", data, shared | point._asdict())
        options = own | aligned_ranks(target, sizes, own)
        settings.append(Setting("apg", point, "apg", options, sizes[options["rank"]], target))
    return settings


def apg_sizes(data: Dataset, options: Mapping[str, Any]) -> dict[int, int]:
    """Return the number of parameters of APG by its rank K, from 1 to the narrowest width."""
    own = {**options, "over_rank": None}  # P, the inner width in training, costs a prediction none
    apg = model_for("apg", data, own | {"rank": 1})
    largest = min(data.n_fields * apg.dim_embedding, *apg.hidden)
    return {rank: _serving("apg", data, own | {"rank": rank}) for rank in range(1, largest + 1)}


def aligned_ranks(
    target: int, sizes: Mapping[int, int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``rank`` and ``over_rank`` of the APG whose parameters come nearest to ``target``.

    The rank K decides.  The inner width P in training stays as it is, or is K where that is larger.
    """
    rank = min(sizes, key=lambda k: abs(sizes[k] - target))
    over_rank = options.get("over_rank", MODELS["apg"].over_rank)  # type: ignore[attr-defined]
    return {"rank": rank, "over_rank": None if over_rank is None else max(over_rank, rank)}


def _own_options(plan: RankPlan, model: str) -> dict[str, Any]:
    known = {f.name for f in fields(MODELS[model])}
    return {name: value for name, value in plan.model_options.items() if name in known}


def _serving(model: str, data: Dataset, options: Mapping[str, Any]) -> int:
    with warnings.catch_warnings():  # that d_k exceeds the core is said when training
        warnings.simplefilter("ignore")
        return int(model_for(model, data, options).count_params().serving)


def jobs_of(plan: RankPlan, settings: Sequence[Setting]) -> list[Job]:
    """Return the trainings of all settings, each once: APG's ranks repeat over the grid."""
    jobs = (plan.job(s.model, s.options, seed) for seed in plan.seeds for s in settings)
    return list(dict.fromkeys(jobs))


@dataclass(frozen=True)
class RankResult:
    """AUCs of every setting by part and seed, and what follows from them.

    Parameters
    ----------
    plan : RankPlan
    settings : list of Setting
    auc : list of dict
        Beside ``settings``: {"valid": {seed: AUC}, "test": {seed: AUC}}; failed seeds are absent.
    failures : list of dict
        Results of the jobs that failed.
    """

    plan: RankPlan
    settings: list[Setting]
    auc: list[dict[str, dict[int, float]]]
    failures: list[dict[str, Any]]

    @property
    def methods(self) -> list[str]:
        """Methods with at least one result, in the order of the plan."""
        done = {s.method for s, auc in zip(self.settings, self.auc, strict=True) if auc["valid"]}
        return [method for method in self.plan.methods if method in done]

    def of(self, method: str) -> list[tuple[Setting, dict[str, dict[int, float]]]]:
        """Return the settings of a method with their AUCs, from small to large."""
        pairs = zip(self.settings, self.auc, strict=True)
        return [(s, auc) for s, auc in pairs if s.method == method and auc["valid"]]

    def best(self, method: str) -> tuple[Setting, dict[str, dict[int, float]]]:
        """Return the setting of a method with the best mean AUC on the validation rows.

        The test rows have no say.  A setting of which a seed failed is not chosen if there is
        another.
        """
        of_method = self.of(method)
        most = max(len(auc["valid"]) for _, auc in of_method)
        whole = {
            str(i): a["valid"] for i, (_, a) in enumerate(of_method) if len(a["valid"]) == most
        }
        return of_method[int(best(whole) or 0)]

    def line(self, method: str, part: str) -> list[dict[str, Any]]:
        """Return the line of a method: for each low-rank size the mean over its points.

        Returns
        -------
        list of dict
            ``size``, ``n_points``, and over seeds ``mean``, ``std``, ``values``.
        """
        by_size: dict[float, list[dict[int, float]]] = {}
        for setting, auc in self.of(method):
            by_size.setdefault(setting.point.size, []).append(auc[part])
        means = {size: _mean_by_seed(aucs) for size, aucs in by_size.items()}
        return [
            {"size": size, "n_points": len(by_size[size]), **summarise(means[size])}
            for size in sorted(by_size)
        ]

    def slope(self, method: str, part: str) -> Paired | None:
        """Return the change of AUC per doubling of the low-rank size, fitted seed by seed.

        None for a method with one size only.  The difference is that to no change at all.
        """
        of_method = self.of(method)
        slopes = {}
        for seed in self.plan.seeds:
            pairs = [(s.point.size, a[part][seed]) for s, a in of_method if seed in a[part]]
            if len({size for size, _ in pairs}) > 1:
                size, auc = np.array(pairs).T
                slopes[seed] = float(np.polyfit(np.log2(size), auc, 1)[0])
        return paired(slopes, dict.fromkeys(slopes, 0.0)) if slopes else None

    def comparisons(self, reference: str, part: str = "test") -> dict[str, Paired]:
        """Compare the best setting of every method with that of one, with Holm's correction."""
        return compare({m: self.best(m)[1][part] for m in self.methods}, reference)


def _mean_by_seed(points: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return the mean over points for every seed that all of them have."""
    seeds = set.intersection(*(set(values) for values in points))
    return {seed: float(np.mean([values[seed] for values in points])) for seed in sorted(seeds)}


def collect(
    plan: RankPlan, settings: list[Setting], results: Mapping[Job, Mapping[str, Any]]
) -> RankResult:
    """Put the results of jobs beside the settings that they belong to."""
    table: list[dict[str, dict[int, float]]] = []
    for setting in settings:
        auc: dict[str, dict[int, float]] = {part: {} for part in PARTS}
        for seed in plan.seeds:
            result = results[plan.job(setting.model, setting.options, seed)]
            if is_failure(result):
                continue
            for part in PARTS:
                if result["metrics"][part]["auc"] is not None:
                    auc[part][seed] = result["metrics"][part]["auc"]
        table.append(auc)
    failures = [dict(result) for result in results.values() if is_failure(result)]
    return RankResult(plan, settings, table, failures)


def run_rank(plan: RankPlan, out: str | Path, **how: Any) -> RankResult:
    """Train what has no stored result yet, and collect.

    Parameters
    ----------
    plan : RankPlan
    out : path
        Folder of the results.
    **how
        ``workers``, ``dask``, ``on_done`` and ``progress``, as in ``run_jobs``.

    Raises
    ------
    ValueError
        If the plan does not fit the data.
    Exception
        Whatever loading the data or ``run_jobs`` raise; a training that fails does not.
    """
    splits = load_job_data(plan.job(plan.model, {}, plan.seeds[0]))
    settings = settings_of(plan, splits.train)
    jobs = jobs_of(plan, settings)
    results = run_jobs(jobs, out, **how)
    return collect(plan, settings, dict(zip(jobs, results, strict=True)))
