"""MI-DPG's open choices, one at a time against the default, with the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from midpg_np.experiments.runner import is_failure
from midpg_np.experiments.statistics import (
    METRICS,
    SIGNIFICANT,
    compare,
    summarise,
)
from midpg_np.experiments.table1 import RunJobs, cost_of, failed_jobs, metric_by_seed
from midpg_np.experiments.table_report import (
    METRIC_TITLES,
    Report,
    Sheet,
    failures_sheet,
    is_significantly_better,
    number,
    p_value,
    smallest_note,
    spread,
    tests_sheet,
)
from midpg_np.experiments.tuning import Setting, Task

MODEL = "midpg"
DEFAULT = "default"


class Choice(NamedTuple):
    """An option that the paper leaves open, at a value that is not the default.

    Parameters
    ----------
    row : str
        Where derivations 3.8 lists it; "3.6" for the gain.
    question : str
        What is chosen.
    option, value
        As the model takes them.
    """

    row: str
    question: str
    option: str
    value: Any

    @property
    def name(self) -> str:
        """As ``--set`` takes it."""
        value = f"{self.value:g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.option}={value}"


CHOICES = (
    Choice("3.6", "gain of the sigmoid", "gain", 2.0),
    Choice("3", "repeat of the core", "repeat_mode", "tile"),
    Choice("7", "input of the generators", "dwm_inputs", "aw_only"),
    Choice("9", "gradient from the generators to the hidden state", "dwm_detach_h", True),
    Choice("10", "output layer", "modulate_output", True),
    Choice("15", "discriminators", "disc_scope", "concat"),
    Choice("16", "terms of the layers", "mi_reduce", "sum"),
    Choice("17", "input of the discriminators", "disc_input", "full"),
    Choice("17", "input of the discriminators", "disc_input", "factors"),
    Choice("18", "who learns from the regulariser", "mi_grad_to", "disc+gen"),
    Choice("18", "who learns from the regulariser", "mi_grad_to", "disc"),
    Choice("20", "negative pairs", "negatives", "derangement"),
    Choice("20", "negative pairs", "negatives", "other_scenario"),
)


@dataclass(frozen=True)
class Ablation:
    """What to run.

    Parameters
    ----------
    task : Task
        The rows and the training.
    seeds : tuple of int
        One trial of each choice per seed.
    base : dict
        Options of MI-DPG that all trials share; what is set here is not varied.

    Raises
    ------
    ValueError
        If there is no seed.
    """

    task: Task
    seeds: tuple[int, ...] = tuple(range(10))
    base: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("an ablation needs at least one trial; got no seed.")

    @property
    def choices(self) -> list[Choice]:
        """The choices whose option the base leaves alone."""
        return [choice for choice in CHOICES if choice.option not in self.base]


def run_ablation(ablation: Ablation, run: RunJobs) -> dict[str, Any]:
    """Train the default and every choice with every seed; compare each with the default.

    Parameters
    ----------
    ablation : Ablation
        What to run.
    run : callable
        Takes a list of jobs and returns their results in order.

    Returns
    -------
    dict
        Ready for JSON.  ``settings`` holds, by name and the default first: ``row`` and ``question``
        (None for the default), ``options``, ``metrics`` and ``cost``; a metric holds its values,
        their mean and standard deviation, and ``against_default``.
    """
    choices = {choice.name: choice for choice in ablation.choices}
    options = {DEFAULT: ablation.base} | {
        name: ablation.base | {choice.option: choice.value} for name, choice in choices.items()
    }
    results = run(
        [
            ablation.task.job(MODEL, Setting(of_setting, {}), seed)
            for of_setting in options.values()
            for seed in ablation.seeds
        ]
    )
    runs = _by_setting(list(options), ablation.seeds, results)
    settings: dict[str, Any] = {}
    for name in options:
        choice = choices.get(name)
        settings[name] = {
            "row": choice.row if choice else None,
            "question": choice.question if choice else None,
            "options": options[name],
            "metrics": {},
            "cost": cost_of(runs[name].values()),
        }
    for metric, larger in METRICS.items():
        values = {name: metric_by_seed(of_setting, metric) for name, of_setting in runs.items()}
        pairs = compare(values, DEFAULT, larger_is_better=larger)
        for name, entry in settings.items():
            entry["metrics"][metric] = {
                **summarise(values[name]),
                "against_default": pairs[name].as_dict() if name in pairs else None,
            }
    return {
        "data": ablation.task.data,
        "training": ablation.task.all_training,
        "seeds": list(ablation.seeds),
        "settings": settings,
        "failed": failed_jobs(results),
        "versions": next((r["versions"] for r in results if not is_failure(r)), None),
    }


def _by_setting(
    names: Sequence[str], seeds: Sequence[int], results: Sequence[Mapping[str, Any]]
) -> dict[str, dict[int, Mapping[str, Any]]]:
    left = iter(results)
    runs = {name: {seed: next(left) for seed in seeds} for name in names}
    return {
        name: {seed: run for seed, run in of_setting.items() if not is_failure(run)}
        for name, of_setting in runs.items()
    }


def ablation_report(content: Mapping[str, Any], command: str, notes: Sequence[str] = ()) -> Report:
    """Turn the outcome into a report.

    Parameters
    ----------
    content : dict
        What ``run_ablation`` returned.
    command : str
        The command line that gave it.
    notes : sequence of str
        About the data.
    """
    sheets = [_results_sheet(content)]
    for metric, title in METRIC_TITLES.items():
        pairs = {
            name: entry["metrics"][metric]["against_default"]
            for name, entry in content["settings"].items()
            if name != DEFAULT
        }
        caption = "Choice minus default, in pairs of one seed; two-sided tests."
        if pairs:
            sheets.append(tests_sheet(f"{title} against the default", caption, "choice", pairs))
    sheets += failures_sheet(content["failed"])
    title = f"Open choices of MI-DPG on {content['data']}"
    about = [*notes, *_notes(content)]
    return Report("ablation", title, _verdict(content), about, command, sheets)


def _results_sheet(content: Mapping[str, Any]) -> Sheet:
    rows = []
    for name, entry in content["settings"].items():
        cells = [name, entry["question"] or "", entry["row"] or ""]
        for metric, larger in METRICS.items():
            column = entry["metrics"][metric]
            star = "*" * is_significantly_better(column["against_default"], larger)
            cells.append(spread(column["mean"], column["std"]) + star)
        cost = entry["cost"]
        cells.append("n/a" if cost is None else f"{cost['seconds_per_epoch']:.2f}")
        rows.append(cells)
    caption = (
        f"Test rows of {content['data']}, {len(content['seeds'])} seeds: mean ± sample standard "
        f"deviation. * better than the default, p ≤ {SIGNIFICANT} by paired t-test after Holm's "
        "correction."
    )
    head = ("choice", "what it concerns", "row", *METRIC_TITLES.values(), "seconds per epoch")
    return Sheet("Results", caption, head, rows)


def _notes(content: Mapping[str, Any]) -> list[str]:
    n_trials, n_choices = len(content["seeds"]), len(content["settings"]) - 1
    return [
        "One option at a time is changed, all others are at their defaults; nothing is tuned, so a "
        "choice that needs another learning rate is not given it. Rows are those of the table of "
        "open choices in derivations 3.8; the gain is in 3.6.",
        smallest_note(n_trials, n_choices, "choices"),
    ]


def _verdict(content: Mapping[str, Any]) -> str:
    """Name the choices that change the AUC, and the largest change if none does."""
    pairs = {
        name: entry["metrics"]["auc"]["against_default"]
        for name, entry in content["settings"].items()
        if name != DEFAULT
    }
    pairs = {name: pair for name, pair in pairs.items() if pair["mean"] is not None}
    if not pairs:
        return "No choice could be compared with the default."
    sure = {
        n: p for n, p in pairs.items() if p["holm_t"] is not None and p["holm_t"] <= SIGNIFICANT
    }
    if sure:
        listed = ", ".join(f"{n} ({number(p['mean'], sign='+')})" for n, p in sure.items())
        return (
            f"{len(sure)} of {len(pairs)} choices change the AUC (paired t-test, p ≤ {SIGNIFICANT} "
            f"after Holm's correction): {listed}."
        )
    name, pair = max(pairs.items(), key=lambda item: abs(item[1]["mean"]))
    return (
        f"None of {len(pairs)} choices changes the AUC by more than chance (paired t-test, p ≤ "
        f"{SIGNIFICANT} after Holm's correction); the largest change is that of {name}, "
        f"{number(pair['mean'], sign='+')} (p {p_value(pair['p_t'])}, after Holm "
        f"{p_value(pair['holm_t'])})."
    )
