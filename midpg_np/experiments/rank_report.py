"""The rank figure as a report: what it shows, in a picture and in numbers."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from typing import Any

from midpg_np.experiments.figure_report import FigureReport, Picture
from midpg_np.experiments.jobs import Job
from midpg_np.experiments.rank import ALIGNED_WITH, PARTS, RankResult, Setting
from midpg_np.experiments.statistics import SIGNIFICANT, Paired, summarise
from midpg_np.experiments.table_report import (
    Sheet,
    failures_sheet,
    number,
    p_value,
    spread,
    tests_sheet,
    title_of,
)
from midpg_np.plots import plot_rank

PART_NAMES = {"valid": "validation", "test": "test"}


def method_name(result: RankResult, method: str) -> str:
    """Return the name under which a method is printed, such as "DPG r"."""
    return title_of("apg") if method == "apg" else f"{title_of(result.plan.model)} {method}"


def rank_content(result: RankResult) -> dict[str, Any]:
    """Return everything the figure shows, ready for JSON."""
    plan = result.plan
    return {
        "data": plan.data,
        "model": plan.model,
        "seeds": list(plan.seeds),
        "training": plan.training,
        "settings": [
            _described(setting)
            | {part: {str(seed): value for seed, value in auc[part].items()} for part in PARTS}
            for setting, auc in zip(result.settings, result.auc, strict=True)
        ],
        "lines": {part: {m: result.line(m, part) for m in result.methods} for part in PARTS},
        "best": {m: _described(result.best(m)[0]) for m in result.methods},
        "slopes": {
            part: {m: _plain(result.slope(m, part)) for m in result.methods} for part in PARTS
        },
        "comparisons": {name: pair.as_dict() for name, pair in _comparisons(result).items()},
        "failures": [
            {name: failed[name] for name in ("job", "command", "error")}
            for failed in result.failures
        ],
    }


def rank_report(result: RankResult, command: str) -> FigureReport:
    """Return the report of the figure.

    Raises
    ------
    RuntimeError
        If no training gave an AUC.
    """
    if not result.methods:
        first = result.failures[0]["error"] if result.failures else "an AUC that is not defined."
        raise RuntimeError(f"all trainings on {result.plan.data!r} failed, the first with: {first}")
    return FigureReport(
        name="rank",
        title=f"Rank of the weighting cores on {result.plan.data}",
        verdict=_verdict(result),
        notes=_notes(result),
        command=command,
        pictures=[_picture(result)],
        sheets=[
            _best_sheet(result),
            _slope_sheet(result),
            *_test_sheets(result),
            *_aligned_sheets(result),
            _settings_sheet(result),
            *failures_sheet(
                [{**failed, "system": _system(failed["job"])} for failed in result.failures]
            ),
        ],
    )


def _described(setting: Setting) -> dict[str, Any]:
    return {
        "method": setting.method,
        **setting.point._asdict(),
        "size": setting.point.size,
        "model": setting.model,
        "options": setting.options,
        "serving": setting.serving,
        "target": setting.target,
        "mismatch": setting.mismatch,
    }


def _plain(pair: Paired | None) -> dict[str, Any] | None:
    return None if pair is None else pair.as_dict()


def _system(job: dict[str, Any]) -> str:
    return title_of(Job.from_dict(job).model)


def _reference(result: RankResult) -> str:
    return ALIGNED_WITH if ALIGNED_WITH in result.methods else result.methods[0]


def _comparisons(result: RankResult) -> dict[str, Paired]:
    return result.comparisons(_reference(result)) if result.methods else {}


def _picture(result: RankResult) -> Picture:
    lines, stars = {}, {}
    for part, name in PART_NAMES.items():
        lines[name] = {method_name(result, m): result.line(m, part) for m in result.methods}
        stars[name] = {
            method_name(result, m): (
                setting.point.size,
                summarise(auc[part])["mean"],
            )
            for m in result.methods
            for setting, auc in [result.best(m)]
        }
    file = BytesIO()
    plot_rank(lines, stars, file)
    return Picture(
        "rank.png",
        file.getvalue(),
        "AUC against the low-rank size. Lines: mean over the settings of a size; bars: one "
        "standard deviation over seeds; stars: the setting of each method with the best validation "
        "AUC, in both panels.",
    )


def _verdict(result: RankResult) -> str:
    auc = {m: summarise(result.best(m)[1]["test"]) for m in result.methods}
    ordered = sorted(auc, key=lambda m: -(auc[m]["mean"] or 0.0))
    order = ", ".join(f"{method_name(result, m)} {number(auc[m]['mean'])}" for m in ordered)
    sentences = [f"Test AUC of the settings chosen on the validation rows, from the best: {order}."]
    if len(result.methods) > 1 and len(result.plan.seeds) > 1:
        sentences.append(_differences(result))
    slopes = {m: result.slope(m, "test") for m in result.methods}
    moved = [
        f"{method_name(result, m)} {number(slope.mean, 5, '+')}"
        for m, slope in slopes.items()
        if slope is not None
    ]
    if moved:
        sentences.append(f"Change of test AUC per doubling of the size: {', '.join(moved)}.")
    return " ".join(sentences)


def _differences(result: RankResult) -> str:
    reference = method_name(result, _reference(result))
    apart = [m for m, pair in _comparisons(result).items() if _is_significant(pair)]
    if not apart:
        return f"None differs from {reference} by more than chance over seeds."
    names = " and ".join(method_name(result, m) for m in apart)
    return (
        f"{names} differ{'s' if len(apart) == 1 else ''} from {reference} by more than chance over "
        "seeds (paired t-test, Holm)."
    )


def _is_significant(pair: Paired) -> bool:
    return pair.holm_t is not None and pair.holm_t <= SIGNIFICANT


def _notes(result: RankResult) -> list[str]:
    counts = ", ".join(f"{method_name(result, m)} {len(result.of(m))}" for m in result.methods)
    seeds = result.plan.seeds
    named = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
    return [
        f"{named}, the same for all settings. A method with more settings has more to choose from: "
        f"{counts}. The choice is made on the validation rows, so the AUC there favours it a "
        "little; that on the test rows does not.",
        "The paper finds r > rc > c > non, the variants of DPG flat over the low-rank size, and "
        "APG falling as it shrinks.",
    ]


def _fraction(value: float) -> str:
    return str(Fraction(value).limit_denominator(10_000))


def _where(setting: Setting) -> tuple[str, ...]:
    """Return the cells that say where in the grid a setting stands."""
    if setting.method == "non":
        return ("d_m", "d_n", "n/a", "1")
    point = setting.point
    d_r, d_c = (
        f"{name}/{divisor}" if divisor > 1 else name
        for name, divisor in (("d_m", point.row_divisor), ("d_n", point.col_divisor))
    )
    return (d_r, d_c, str(point.d_k), _fraction(point.size))


_WHERE = ("d_r", "d_c", "d_k", "size")


def _scores(auc: dict[str, dict[int, float]]) -> tuple[str, ...]:
    found = (summarise(auc[part]) for part in PARTS)
    return tuple(spread(summary["mean"], summary["std"]) for summary in found)


def _best_sheet(result: RankResult) -> Sheet:
    rows = []
    for method in result.methods:
        setting, auc = result.best(method)
        name = method_name(result, method)
        if method == "apg":
            name += f", K = {setting.options['rank']}"
        rows.append((name, *_where(setting), f"{setting.serving:,}", *_scores(auc)))
    caption = (
        "The setting of each method with the best mean validation AUC; mean ± standard deviation "
        "over seeds. Parameters: those of a prediction, without embedding tables."
    )
    head = ("method", *_WHERE, "parameters", "validation AUC", "test AUC")
    return Sheet("Best settings", caption, head, rows)


def _slope_sheet(result: RankResult) -> Sheet:
    rows = []
    for method in result.methods:
        slopes = [result.slope(method, part) for part in PARTS]
        cells = [
            cell
            for slope in slopes
            for cell in (("n/a", "n/a") if slope is None else (_slope(slope), p_value(slope.p_t)))
        ]
        rows.append((method_name(result, method), *cells))
    caption = (
        "Change of AUC per doubling of the low-rank size: the slope of a straight line over all "
        "settings of a method, fitted for each seed; mean ± standard deviation over seeds, and the "
        "p-value of a t-test against no change."
    )
    head = ("method", "validation", "p", "test", "p")
    return Sheet("Flat or falling", caption, head, rows)


def _slope(slope: Paired) -> str:
    mean = number(slope.mean, 5, "+")
    return mean if slope.std is None else f"{mean} ± {number(slope.std, 5)}"


def _test_sheets(result: RankResult) -> list[Sheet]:
    if len(result.methods) < 2:
        return []
    reference = method_name(result, _reference(result))
    pairs = {method_name(result, m): p.as_dict() for m, p in _comparisons(result).items()}
    caption = (
        f"Test AUC of the best setting of each method minus that of {reference}, seed by seed; "
        "Holm's correction over the methods."
    )
    return [tests_sheet(f"Against {reference}", caption, "method", pairs)]


def _aligned_sheets(result: RankResult) -> list[Sheet]:
    aligned = {s.target: s for s in result.settings if s.method == "apg"}
    if not aligned:
        return []
    rows = [
        (
            f"{target:,}",
            str(setting.options["rank"]),
            str(setting.options["over_rank"]),
            f"{setting.serving:,}",
            f"{100 * (setting.mismatch or 0.0):+.1f} %",
        )
        for target, setting in sorted(aligned.items(), key=lambda item: item[0] or 0)
    ]
    caption = (
        f"APG's rank K is the one whose number of parameters comes nearest to that of variant "
        f"{ALIGNED_WITH} at the same point of the grid; K cannot exceed the narrowest width."
    )
    head = (f"parameters of {ALIGNED_WITH}", "K", "P in training", "parameters of APG", "mismatch")
    return [Sheet("APG's alignment", caption, head, rows)]


def _settings_sheet(result: RankResult) -> Sheet:
    rows = [
        (
            method_name(result, method),
            *_where(setting),
            f"{setting.serving:,}",
            str(len(auc["valid"])),
            *_scores(auc),
        )
        for method in result.methods
        for setting, auc in result.of(method)
    ]
    head = ("method", *_WHERE, "parameters", "seeds", "validation AUC", "test AUC")
    return Sheet("All settings", "Mean ± standard deviation over seeds.", head, rows)
