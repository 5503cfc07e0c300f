"""One small grid per system, all of one size, and the choice among its settings.

Every system gets the same budget: two learning rates, with and without a penalty on embeddings,
with and without dropout of embeddings, and two values of one option of its own; the first of each
is the default.  The setting with the best validation AUC is kept.  Test rows are not even scored
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np

from midpg_np.data import DATASETS
from midpg_np.experiments.jobs import Job
from midpg_np.experiments.presets import training_options
from midpg_np.experiments.runner import is_failure
from midpg_np.training.config import TrainConfig

# The rate is a share of the one that is preset for the data.
LR_SHARES = (1.0, 0.3)
# Ids that occur a few times over-fit within two or three epochs; these two work against that.
L2_EMBEDDING = (0.0, 1.0)
EMBEDDING_DROPOUT = (0.0, 0.3)

# One option of each system's own, and why it is worth trying.
OWN_OPTION: dict[str, tuple[str, tuple[Any, Any]]] = {
    # All that a plain network has to choose is its size.
    "dnn": ("hidden", ([128, 64, 32], [256, 128, 64])),
    # One shared expert has to serve all scenarios; with two they can divide.
    "ple": ("n_shared", (1, 2)),
    # Normalising embeddings that start small blows up the noise of rare ids.
    "star": ("pn", ("partitioned", "none")),
    # Whether the input of the first layer is gated, too, is left open by its paper.
    "pepnet": ("gate_at", ("hidden_output", "layer_input")),
    # Factors that only scale, or also prune.
    "adasparse": ("prune", ("fusion", "scaling")),
    # The paper compares with an APG of few parameters; a smaller rank over-fits less.
    "apg": ("rank", (8, 4)),
    # A hypernetwork of low rank has far fewer parameters.
    "optmsm": ("hyper", ("full", "low_rank")),
    # Gain 1 starts every modulated layer with halved weights, gain 2 with full ones.
    "dpg": ("gain", (1.0, 2.0)),
    "midpg": ("gain", (1.0, 2.0)),
}


DIVISION_SEED = 0


def is_divided_by_seed(data: str, options: Mapping[str, Any]) -> bool:
    """Whether the same rows are divided into parts at random, by the seed of the loader.

    Generated data is not: another seed gives other rows.
    """
    if data == "marketbias":
        return bool(options.get("split") == "random")
    return data in ("iaac", "online-shoppers") or (data not in DATASETS and "split" not in options)


@dataclass(frozen=True)
class Setting:
    """Options of model and training that one point of a grid sets."""

    model: dict[str, Any]
    training: dict[str, Any]

    @property
    def text(self) -> str:
        """The options as ``--set`` would take them, in one line."""
        options = self.training | self.model
        return ", ".join(f"{name}={_shown(value)}" for name, value in options.items()) or "defaults"

    def as_dict(self) -> dict[str, Any]:
        """Return the options, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """What all jobs of an experiment share: the rows, and the training that nobody tunes.

    Parameters
    ----------
    data : str
        Name of a built-in data set, or a table of the user's own.
    path : str, optional
        File or folder of a built-in data set.
    data_options : dict
        Options of the loader.
    training : dict
        Options of ``TrainConfig`` that differ from the presets of the data.
    schema : str, optional
        TOML file with the roles of the columns of a table of one's own.

    Raises
    ------
    ValueError
        For an option that the training does not have.
    """

    data: str
    path: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    schema: str | None = None

    def __post_init__(self) -> None:
        TrainConfig.from_dict(self.all_training)  # an option that is wrong shows now

    @property
    def rows(self) -> dict[str, Any]:
        """Options of the loader; all trials have one division into parts.

        With a division of their own, test rows of one trial would be training and validation rows
        of another, and so of the tuning.
        """
        drawn = is_divided_by_seed(self.data, self.data_options)
        return ({"seed": DIVISION_SEED} if drawn else {}) | self.data_options

    @property
    def note(self) -> str:
        """What a reader should know of the rows of different trials."""
        if self.data in DATASETS and self.path is None:
            return "Every trial has generated rows of its own."
        return "All trials have the same training, validation and test rows."

    @property
    def all_training(self) -> dict[str, Any]:
        """Presets of the data and the options given, those last."""
        return training_options(self.data) | self.training

    def job(
        self, model: str, setting: Setting, seed: int, parts: tuple[str, ...] = ("valid", "test")
    ) -> Job:
        """Return the job that trains a model with a setting and a seed."""
        return Job(
            data=self.data,
            path=self.path,
            data_options=self.rows,
            model=model,
            model_options=setting.model,
            training=self.all_training | setting.training,
            seed=seed,
            parts=parts,
            schema=self.schema,
        )


def settings_of(model: str, task: Task) -> list[Setting]:
    """Return the grid of a system, its defaults first.

    An option of the training that the user set is not tuned, for any system.

    Raises
    ------
    ValueError
        If there is no grid for the model.
    """
    if model not in OWN_OPTION:
        raise ValueError(f"systems must be among {', '.join(OWN_OPTION)}; got {model!r}.")
    lr = task.all_training.get("lr", TrainConfig().lr)
    shared = {
        "lr": tuple(float(f"{share * lr:.6g}") for share in LR_SHARES),
        "l2_embedding": L2_EMBEDDING,
        "embedding_dropout": EMBEDDING_DROPOUT,
    }
    axes = {name: values for name, values in shared.items() if name not in task.training}
    option, values = OWN_OPTION[model]
    # The system's own option varies fastest, the rate slowest.
    return [
        Setting({option: own}, dict(zip(axes, point, strict=True)))
        for *point, own in product(*axes.values(), values)
    ]


def tuning_jobs(
    task: Task, grids: Mapping[str, Sequence[Setting]], seeds: Sequence[int]
) -> list[Job]:
    """Return the jobs that score every setting on the validation rows, and on no others."""
    return [
        task.job(model, setting, seed, parts=("valid",))
        for model, settings in grids.items()
        for setting in settings
        for seed in seeds
    ]


@dataclass(frozen=True)
class Tuned:
    """The choice for one system.

    Parameters
    ----------
    settings : list of Setting
        The grid.
    valid_auc : list of float or None
        Mean validation AUC of each setting; None where a training failed or it is not defined.
    chosen : int
        Position of the setting that is kept: the best, the first of equals; the first of all where
        none has an AUC.
    n_trainings : int
        Trainings that were run for it.
    seconds : float
        Time of those that succeeded, added up.
    """

    settings: list[Setting]
    valid_auc: list[float | None]
    chosen: int
    n_trainings: int
    seconds: float

    @property
    def setting(self) -> Setting:
        """The setting that is kept."""
        return self.settings[self.chosen]

    def as_dict(self) -> dict[str, Any]:
        """Return the grid, its scores, the choice and the cost, ready for JSON."""
        grid = [
            setting.as_dict() | {"text": setting.text, "valid_auc": auc}
            for setting, auc in zip(self.settings, self.valid_auc, strict=True)
        ]
        return {
            "grid": grid,
            "chosen": self.chosen,
            "n_trainings": self.n_trainings,
            "seconds": self.seconds,
        }


def choose(
    grids: Mapping[str, Sequence[Setting]],
    results: Sequence[Mapping[str, Any]],
    n_seeds: int,
) -> dict[str, Tuned]:
    """Choose a setting for every system.

    Parameters
    ----------
    grids : mapping of system to settings
        As given to ``tuning_jobs``.
    results : sequence of dict
        What came of its jobs, in their order.
    n_seeds : int
        Seeds per setting.
    """
    left = iter(results)
    tuned = {}
    for model, settings in grids.items():
        runs = [[next(left) for _ in range(n_seeds)] for _ in settings]
        aucs = [_mean_auc(of_setting) for of_setting in runs]
        ranked = [-np.inf if auc is None else auc for auc in aucs]
        seconds = sum(run.get("seconds", 0.0) for of_setting in runs for run in of_setting)
        n_trainings = len(settings) * n_seeds
        tuned[model] = Tuned(list(settings), aucs, int(np.argmax(ranked)), n_trainings, seconds)
    return tuned


def untuned(grids: Mapping[str, Sequence[Setting]]) -> dict[str, Tuned]:
    """Keep the first setting of every grid, the defaults, without training anything."""
    return {model: Tuned([settings[0]], [None], 0, 0, 0.0) for model, settings in grids.items()}


def _mean_auc(runs: Sequence[Mapping[str, Any]]) -> float | None:
    aucs = [run["metrics"]["valid"]["auc"] for run in runs if not is_failure(run)]
    return None if len(aucs) < len(runs) or None in aucs else fmean(aucs)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
