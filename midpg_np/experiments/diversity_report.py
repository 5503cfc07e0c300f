"""The diversity figure as a report: what the cores look like, in pictures and in numbers."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from midpg_np.experiments.diversity import ARMS, DiversityResult
from midpg_np.experiments.figure_report import FigureReport, Picture
from midpg_np.experiments.separation import SIMILARITIES
from midpg_np.experiments.statistics import BySeed, paired, summarise
from midpg_np.experiments.table_report import (
    Sheet,
    failures_sheet,
    number,
    p_value,
    spread,
    title_of,
)
from midpg_np.plots import plot_scatter, plot_similarity

ARM_NAMES = {"without": "without MIR", "with": "with MIR"}
# Name of a measure, and what it would be without any structure.
MEASURE_NAMES = {
    "silhouette": "silhouette by scenario",
    "variance_ratio": "variance between / within scenarios",
    "purity": "nearest neighbour of the same scenario",
    "bound": "dependence on the context (nats), by the discriminator",
    "probe": "dependence on the context (nats), by a probe",
}
DEPENDENCES = ("bound", "probe")
SCORES = {"auc": "AUC", "logloss": "LogLoss", "macro_auc": "mean AUC of scenarios"}
_SHOWN_PAIRS = 5


def diversity_content(result: DiversityResult) -> dict[str, Any]:
    """Return everything the figure shows, ready for JSON."""
    plan = result.plan
    return {
        "data": plan.data,
        "seeds": result.seeds,
        "model_options": plan.model_options,
        "training": plan.training,
        "state": plan.state,
        "scenario_names": result.scenario_names,
        "ceiling": summarise(result.ceiling()),
        "scores": {
            arm: {name: summarise(result.scores(arm, name)) for name in (*SCORES, "best_step")}
            for arm in ARMS
        },
        "layers": {layer: _layer_content(result, layer) for layer in result.layers},
        "plane": {
            arm: result.results[arm][result.seeds[0]]["diversity"]["layers"][plan.layer]["plane"]
            for arm in ARMS
        },
        "scenario": {
            arm: result.results[arm][result.seeds[0]]["diversity"]["scenario"] for arm in ARMS
        },
        "failures": [
            {name: failed[name] for name in ("job", "command", "error")}
            for failed in result.failures
        ],
    }


def _layer_content(result: DiversityResult, layer: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for name in MEASURE_NAMES:
        arms = {arm: result.values(arm, layer, name) for arm in ARMS}
        difference = paired(arms["with"], arms["without"]).as_dict()
        numbers[name] = {arm: summarise(values) for arm, values in arms.items()}
        numbers[name]["difference"] = difference
        if name not in DEPENDENCES:
            chance = {arm: result.values(arm, layer, f"{name}_chance") for arm in ARMS}
            numbers[name]["chance"] = {arm: summarise(values) for arm, values in chance.items()}
    for kind in SIMILARITIES:
        of_kind: dict[str, Any] = {
            arm: {
                "matrix": _plain(result.similarity(arm, layer, kind)),
                "stability": result.stability(arm, layer, kind),
            }
            for arm in ARMS
        }
        if result.has_truth:
            for arm in ARMS:
                of_kind[arm]["planted"] = summarise(result.planted(arm, layer, kind))
        numbers[f"similarity_{kind}"] = of_kind
    return numbers


def diversity_report(result: DiversityResult, command: str) -> FigureReport:
    """Return the report of the figure."""
    pictures = [_similarity_picture(result)]
    if all(_planes(result).values()):
        pictures.insert(0, _plane_picture(result))
    return FigureReport(
        name="diversity",
        title=f"Diversity of the weighting cores on {result.plan.data}",
        verdict=_verdict(result),
        notes=_notes(result),
        command=command,
        pictures=pictures,
        sheets=[
            *(_layer_sheet(result, layer) for layer in result.layers),
            _similarity_sheet(result),
            _pairs_sheet(result),
            _scores_sheet(result),
            *failures_sheet(
                [{**failed, "system": title_of("midpg")} for failed in result.failures]
            ),
        ],
    )


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(x) if np.isfinite(x) else None for x in row] for row in matrix]


def _planes(result: DiversityResult) -> dict[str, Any]:
    first, layer = result.seeds[0], result.plan.layer
    return {arm: result.results[arm][first]["diversity"]["layers"][layer]["plane"] for arm in ARMS}


def _plane_picture(result: DiversityResult) -> Picture:
    first = result.seeds[0]
    panels = {
        ARM_NAMES[arm]: (points, result.results[arm][first]["diversity"]["scenario"])
        for arm, points in _planes(result).items()
    }
    file = BytesIO()
    plot_scatter(panels, result.scenario_names, file)
    return Picture(
        "tsne.png",
        file.getvalue(),
        f"t-SNE of the cores of {result.plan.layer}, a point per test row, seed {first}. Distances "
        "between groups, and their sizes, mean nothing in t-SNE; the numbers below do not use it.",
    )


def _similarity_picture(result: DiversityResult) -> Picture:
    layer = result.plan.layer
    rows = {
        ARM_NAMES[arm]: {kind: result.similarity(arm, layer, kind) for kind in SIMILARITIES}
        for arm in ARMS
    }
    file = BytesIO()
    plot_similarity(rows, result.scenario_names, file)
    return Picture(
        "similarity.png",
        file.getvalue(),
        f"How alike the mean cores of two scenarios are in {layer}, {_of_seeds(result)}. Cosine; "
        "correlation over the entries; deviation: correlation of what each mean has beyond the "
        "mean over all scenarios.",
    )


def _of_seeds(result: DiversityResult) -> str:
    return f"of seed {result.seeds[0]}" if result.has_truth else "mean over seeds"


def _verdict(result: DiversityResult) -> str:
    layer = result.plan.layer
    purities = [summarise(result.values(arm, layer, "purity"))["mean"] for arm in ARMS]
    chance = summarise(result.values("with", layer, "purity_chance"))["mean"]
    sentences = [
        f"In {layer} the nearest neighbour of a core is of its own scenario for "
        f"{_share(purities[0])} of the test rows without MIR and for {_share(purities[1])} with "
        f"it, where chance gives {_share(chance)}."
    ]
    bounds = [summarise(result.values(arm, layer, "probe"))["mean"] for arm in ARMS]
    ceiling = summarise(result.ceiling())["mean"]
    sentences.append(
        f"A probe bounds the dependence of core and context by {number(bounds[0], 3)} nats from "
        f"below without and by {number(bounds[1], 3)} with MIR, of at most {number(ceiling, 3)}."
    )
    difference = paired(result.scores("with", "auc"), result.scores("without", "auc"))
    if difference.mean is not None:
        p = "" if difference.p_t is None else f" (p = {p_value(difference.p_t)})"
        sentences.append(
            f"Test AUC with MIR minus without: {spread(difference.mean, difference.std, '+')}{p}."
        )
    return " ".join(sentences)


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"


def _notes(result: DiversityResult) -> list[str]:
    first = result.results[ARMS[0]][result.seeds[0]]["diversity"]
    seeds = ", ".join(map(str, result.seeds))
    notes = [
        f"Seeds {seeds}; differences are taken seed by seed. Cores of at most "
        f"{result.plan.rows_per_scenario} test rows of each scenario, Euclidean distances; the "
        "mean cores are over all test rows of a scenario. "
        + (
            "Parameters: those of the best validation AUC, which may come before the regulariser "
            "has had much effect; the row on steps says when."
            if result.plan.state == "best"
            else "Parameters: those after all epochs, whatever the validation rows say."
        ),
        "Without MIR: MI-DPG whose regulariser reaches its discriminators only. It weights exactly "
        "as DPG does, and its discriminators learn as those of MI-DPG do, so that both bounds are "
        "measured by the same means.",
        "Dependence: 2 log 2 - L_mi on test rows, a lower bound on twice the Jensen-Shannon "
        "divergence between context and core taken together and taken independently; it is no "
        "bound on the mutual information in the sense of Shannon. By the discriminator: the one "
        "that was trained along; a value at or below 0 says that it has learned nothing that holds "
        "on new rows. By a probe: a logistic regression of the context on the core, fitted "
        "afterwards on one half of the test rows for the other. Neither asks how large the "
        "differences are. The largest possible value is that of a core which is a function of the "
        f"context and tells all {first['n_contexts']} contexts apart.",
    ]
    if result.has_truth:
        notes.append(
            "Agreement with the truth: Spearman's rank correlation, over the pairs of scenarios, "
            "of the similarity of their mean cores with that of the matrices that drew the labels."
        )
    return notes


def _layer_sheet(result: DiversityResult, layer: str) -> Sheet:
    rows = []
    for measure, name in MEASURE_NAMES.items():
        arms = [result.values(arm, layer, measure) for arm in ARMS]
        if measure in DEPENDENCES:
            limit = f"at most {_spread(result.ceiling())}"
        else:
            chance = [summarise(result.values(arm, layer, f"{measure}_chance")) for arm in ARMS]
            known = [c["mean"] for c in chance if c["mean"] is not None]
            limit = f"chance {number(float(np.mean(known)))}" if known else "n/a"
        rows.append((name, *_compared(*arms), limit))
    if result.has_truth:
        for kind in SIMILARITIES:
            arms = [result.planted(arm, layer, kind) for arm in ARMS]
            rows.append((f"agreement with the truth, {kind}", *_compared(*arms), "chance 0"))
    caption = (
        "Mean ± standard deviation over seeds, on test rows; p of a paired t-test, not corrected "
        "for the number of tests."
    )
    head = ("", *ARM_NAMES.values(), "difference", "larger in", "p", "compare")
    return Sheet(f"Cores of {layer}", caption, head, rows)


def _compared(without: BySeed, with_: BySeed) -> tuple[str, ...]:
    """Return the cells of both arms, their difference, seeds ahead and p-value."""
    pair = paired(with_, without)
    return (
        _spread(without),
        _spread(with_),
        spread(pair.mean, pair.std, "+"),
        f"{pair.n_better} of {pair.n_pairs}",
        p_value(pair.p_t),
    )


def _spread(values: BySeed) -> str:
    summary = summarise(values)
    return spread(summary["mean"], summary["std"])


def _similarity_sheet(result: DiversityResult) -> Sheet:
    rows = []
    for layer in result.layers:
        for kind in SIMILARITIES:
            matrices = [result.similarity(arm, layer, kind) for arm in ARMS]
            levels = [_level(matrix) for matrix in matrices]
            stable = [number(result.stability(arm, layer, kind), 3) for arm in ARMS]
            rows.append((f"{layer}, {kind}", *levels, *stable))
    caption = (
        "Mean similarity of two scenarios, and how far two seeds agree on which scenarios are "
        "alike: Spearman's rank correlation over pairs of scenarios, mean over pairs of seeds."
    )
    if result.has_truth:
        caption += f" The similarity is {_of_seeds(result)}: each seed has a truth of its own."
    names = [f"{what} {arm}" for what in ("similarity", "agreement") for arm in ARM_NAMES.values()]
    return Sheet("Similarity of scenarios", caption, ("", *names), rows)


def _level(matrix: np.ndarray) -> str:
    apart = matrix[np.triu_indices(len(matrix), k=1)]
    apart = apart[np.isfinite(apart)]
    return number(float(apart.mean()), 3) if len(apart) else "n/a"


def _pairs_sheet(result: DiversityResult) -> Sheet:
    """Return the pairs of scenarios that are most and least alike with the regulariser."""
    names, layer = result.scenario_names, result.plan.layer
    without, with_ = (result.similarity(arm, layer, "deviation") for arm in ARMS)
    upper = zip(*np.triu_indices(len(names), k=1), strict=True)
    pairs = sorted((p for p in upper if np.isfinite(with_[p])), key=lambda p: -with_[p])
    if len(pairs) > 2 * _SHOWN_PAIRS:
        pairs = pairs[:_SHOWN_PAIRS] + pairs[-_SHOWN_PAIRS:]
    rows = [
        (f"{names[i]} / {names[j]}", number(without[i, j], 3), number(with_[i, j], 3))
        for i, j in pairs
    ]
    caption = f"Deviation of the mean cores of {layer}, {_of_seeds(result)}."
    return Sheet("Most and least alike", caption, ("scenarios", *ARM_NAMES.values()), rows)


def _scores_sheet(result: DiversityResult) -> Sheet:
    rows = [
        (name, *_compared(*(result.scores(arm, metric) for arm in ARMS)))
        for metric, name in SCORES.items()
    ]
    steps = [summarise(result.scores(arm, "best_step")) for arm in ARMS]
    cells = [
        f"{s['mean']:,.0f}" + ("" if s["std"] is None else f" ± {s['std']:,.0f}") for s in steps
    ]
    rows.append(("steps until this state", *cells, "", "", ""))
    caption = "On the test rows; mean ± standard deviation over seeds, p of a paired t-test."
    head = ("", *ARM_NAMES.values(), "difference", "larger in", "p")
    return Sheet("Scores", caption, head, rows)
