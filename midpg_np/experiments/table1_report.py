"""The report of Table 1: results, gains, tests, settings and cost, as sheets of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from midpg_np.experiments.statistics import METRICS, SIGNIFICANT
from midpg_np.experiments.table1 import BASELINE, PRINTED, PROPOSED
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
    title_of,
)


def table1_report(content: Mapping[str, Any], command: str, notes: Sequence[str] = ()) -> Report:
    """Turn the outcome into a report.

    Parameters
    ----------
    content : dict
        What ``run_table1`` returned.
    command : str
        The command line that gave it.
    notes : sequence of str
        About the data.
    """
    sheets = [_results_sheet(content)]
    if BASELINE in content["systems"]:
        sheets.append(_gains_sheet(content))
    for key in ("against_best", "against_dnn"):
        sheets += [sheet for metric in METRICS for sheet in _tests(content, key, metric)]
    sheets += [_settings_sheet(content), *_grid_sheets(content), _cost_sheet(content)]
    sheets += failures_sheet(content["failed"])
    title = f"Table 1 on {content['data']}"
    return Report("table1", title, _verdict(content), [*notes, *_notes(content)], command, sheets)


def _results_sheet(content: Mapping[str, Any]) -> Sheet:
    rows = []
    for system, entry in content["systems"].items():
        cells = [title_of(system)]
        for metric, larger in METRICS.items():
            column = entry["metrics"][metric]
            star = "*" * is_significantly_better(column["against_best"], larger)
            cells.append(spread(column["mean"], column["std"]) + star)
        rows.append(cells)
    caption = (
        f"Test rows of {content['data']}, {_trials(content)}: mean ± sample standard deviation. "
        "* better than the best comparison system, "
        f"p ≤ {SIGNIFICANT} by paired t-test after Holm's correction."
    )
    return Sheet("Results", caption, ("system", *METRIC_TITLES.values()), rows)


def _gains_sheet(content: Mapping[str, Any]) -> Sheet:
    systems = content["systems"]
    has_paper = systems[BASELINE]["paper"] is not None
    head = ["system"]
    for metric in PRINTED:
        head += [METRIC_TITLES[metric], *[f"{METRIC_TITLES[metric]}, paper"] * has_paper]
    rows = []
    for system, entry in systems.items():
        if system == BASELINE:
            continue
        cells = [title_of(system)]
        for metric in PRINTED:
            pair, paper = entry["metrics"][metric]["against_dnn"], entry["paper"]
            cells.append(spread(pair["mean"], pair["std"], "+"))
            if has_paper:
                cells.append(number(paper[f"{metric}_gain"], sign="+") if paper else "-")
        rows.append(cells)
    beside = " beside that which the paper prints" * has_paper
    caption = f"Difference to the DNN on these rows, seed by seed,{beside}."
    return Sheet("Gain over the DNN", caption.replace(",.", "."), head, rows)


def _tests(content: Mapping[str, Any], key: str, metric: str) -> list[Sheet]:
    """Return the sheet of tests of one metric against one reference, if there is a reference."""
    best_one = content["best_comparison"][metric]
    reference = BASELINE if key == "against_dnn" else best_one
    if key == "against_dnn" and best_one == BASELINE:
        return []  # the same as against the best
    systems = content["systems"]
    pairs = {title_of(name): entry["metrics"][metric][key] for name, entry in systems.items()}
    pairs = {name: pair for name, pair in pairs.items() if pair is not None}
    if not pairs:
        return []
    what = "the best comparison system, " if key == "against_best" else ""
    title = f"{METRIC_TITLES[metric]} against {what}{title_of(reference)}"
    caption = f"System minus {title_of(reference)}, in pairs of one seed; two-sided tests."
    return [tests_sheet(title, caption, "system", pairs)]


def _settings_sheet(content: Mapping[str, Any]) -> Sheet:
    rows = []
    for system, entry in content["systems"].items():
        tuning = content["tuning"]["systems"][system]
        chosen = tuning["grid"][tuning["chosen"]]
        auc, n = number(chosen["valid_auc"]), tuning["n_trainings"]
        rows.append(
            (title_of(system), entry["setting"]["text"], auc, str(n), f"{tuning['seconds']:.0f}")
        )
    caption = "The setting with the best validation AUC of each system's grid, and what it cost."
    head = ("system", "setting", "validation AUC", "trainings", "seconds")
    return Sheet("Settings", caption, head, rows)


def _grid_sheets(content: Mapping[str, Any]) -> list[Sheet]:
    tuning = content["tuning"]
    if not tuning["seeds"]:
        return []
    rows = [
        (title_of(system), point["text"], number(point["valid_auc"]), "kept" * (i == of["chosen"]))
        for system, of in tuning["systems"].items()
        for i, point in enumerate(of["grid"])
    ]
    seeds = ", ".join(map(str, tuning["seeds"]))
    caption = f"Every setting that was tried, with seed {seeds}; test rows were not scored."
    return [Sheet("Tuning", caption, ("system", "setting", "validation AUC", ""), rows)]


def _cost_sheet(content: Mapping[str, Any]) -> Sheet:
    rows = []
    for system, entry in content["systems"].items():
        cost = entry["cost"]
        if cost is None:
            rows.append((title_of(system), *["n/a"] * 6))
            continue
        counts = (cost["parameters"][key] for key in ("serving", "training_only", "embedding"))
        times = (f"{cost[key]:.2f}" for key in ("seconds_per_epoch", "epochs", "seconds"))
        rows.append((title_of(system), *(f"{count:,}" for count in counts), *times))
    head = ("system", "parameters", "in training only", "of embeddings", "seconds per epoch")
    place = "one core" if content["training"].get("device", "cpu") == "cpu" else "the GPU"
    caption = (
        "Parameters without embeddings, and of these; time per training, validation included, on "
        f"{place}, beside other trainings; means over the trials."
    )
    return Sheet("Size and time", caption, (*head, "epochs", "seconds"), rows)


def _notes(content: Mapping[str, Any]) -> list[str]:
    n_trials = len(content["seeds"])
    n_others = len(content["systems"]) - 1
    notes = [
        "The best comparison system is the one with the best mean on the test rows, as in the "
        "paper, which favours that system. The tests take the seeds for the sample: they say how "
        "sure a difference is on these rows, not on others.",
        smallest_note(n_trials, n_others, "systems"),
    ]
    if "optmsm" in content["systems"]:
        notes.append("OptMSM is a reconstruction: not the figures of the published system.")
    if any(entry["paper"] for entry in content["systems"].values()):
        notes.append(
            "The paper's figures are for the complete data, with fields of its own; only gains can "
            "be set beside each other, and these with care."
        )
    return notes


def _verdict(content: Mapping[str, Any]) -> str:
    """Say how the proposed system stands in AUC: to the best comparison system, to the DNN."""
    proposed = [name for name in reversed(PROPOSED) if name in content["systems"]]
    if not proposed:
        n = len(content["systems"])
        return f"{n} system{'s' * (n > 1)} on {content['data']}, {_trials(content)}."
    column = content["systems"][proposed[0]]["metrics"]["auc"]
    sentences = [
        f"{title_of(proposed[0])} reaches an AUC of {spread(column['mean'], column['std'])} on "
        f"{content['data']}, {_trials(content)}."
    ]
    best_one = content["best_comparison"]["auc"]
    if column["against_best"] is not None:
        name = f"the best comparison system, {title_of(best_one)}"
        sentences.append(_difference(column["against_best"], name))
    if column["against_dnn"] is not None and best_one != BASELINE:
        sentences.append(_difference(column["against_dnn"], f"the {title_of(BASELINE)}"))
    return " ".join(sentences)


def _difference(pair: Mapping[str, Any], reference: str) -> str:
    if pair["mean"] is None:
        return f"It has no trial in common with {reference}."
    relation = "above" if pair["mean"] > 0 else "below"
    start = f"It is {number(abs(pair['mean']))} {relation} {reference}"
    if pair["holm_t"] is None:
        return f"{start}; there is no t-test of this."
    sure = "significant" if pair["holm_t"] <= SIGNIFICANT else "not significant"
    return (
        f"{start}: {sure} (paired t-test, p {p_value(pair['p_t'])}, after Holm's correction "
        f"{p_value(pair['holm_t'])})."
    )


def _trials(content: Mapping[str, Any]) -> str:
    n = len(content["seeds"])
    return f"{n} trials" if n > 1 else "1 trial"
