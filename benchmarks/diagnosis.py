"""How well mistakes are found: a confusion table over the whole catalogue.

For every entry and every model that can have it, the independent PyTorch version carries the
mistake (tests/torch_mistakes), a training step is dumped, and the dump is checked and diagnosed;
then random pairs of mistakes, put into the reference.

    python benchmarks/diagnosis.py [--pairs 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "verify")]

from sizes import case_of, random_pairs  # noqa: E402
from torch_mistakes import CARRIERS  # noqa: E402
from torch_mistakes.carrier import torch_dump  # noqa: E402

from midpg_np.models import MODELS  # noqa: E402
from midpg_np.verify.case import make_case  # noqa: E402
from midpg_np.verify.compare import compare  # noqa: E402
from midpg_np.verify.diagnose import Diagnosis, diagnose  # noqa: E402
from midpg_np.verify.mistakes import MISTAKES, Mistake, mistakes_of  # noqa: E402
from midpg_np.verify.outcome import outcome  # noqa: E402
from midpg_np.verify.ready import sized_model  # noqa: E402


def dump_of(case: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return what a comparison can use of an outcome or a PyTorch dump."""
    return {name: array for name, array in found.items() if name in case.arrays}


def judged(case: Any, mistake: Mistake, diagnosis: Diagnosis) -> list[str]:
    """Return what holds of a diagnosis: "wrong", "local", "exact" or "tie"."""
    own = mistake.own_names(case.calculation, case.model)
    verdicts = [] if diagnosis.comparison.ok else ["wrong"]
    if not diagnosis.comparison.ok and diagnosis.comparison.wrong[0].name in own:
        verdicts.append("local")
    if diagnosis.names == [(mistake.name,)]:
        verdicts.append("exact")
    elif (mistake.name,) in diagnosis.names:
        verdicts.append("tie")
    return verdicts


def print_entries() -> None:
    """Print the table over all entries, and each entry that was not named alone."""
    print("| model | entries | reported wrong | first name is its own | named | tie | ms, median |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    totals: Counter[str] = Counter()
    others = []
    for kind in MODELS:
        count: Counter[str] = Counter()
        seconds = []
        for mistake in mistakes_of(kind):
            case = case_of(mistake.name, kind)
            dump = dump_of(case, torch_dump(case, CARRIERS[mistake.name]))
            start = time.perf_counter()
            diagnosis = diagnose(case, dump)
            seconds.append(time.perf_counter() - start)
            verdicts = judged(case, mistake, diagnosis)
            count.update(["entries", *verdicts])
            if "exact" not in verdicts:
                others.append(f"- {kind}, {mistake.name}: {diagnosis.names or diagnosis.blamed}")
        totals.update(count)
        print_row(kind, count, f"{1e3 * np.median(seconds):.0f}")
    print_row("all", totals, "")
    print("\n" + "\n".join(others or ["Every entry is named alone."]))


def print_row(name: str, count: Counter[str], milliseconds: str) -> None:
    """Print one row of the table."""
    numbers = [str(count[key]) for key in ("entries", "wrong", "local", "exact", "tie")]
    print(f"| {name} | {' | '.join(numbers)} | {milliseconds} |")


def print_pairs(n: int, seed: int) -> None:
    """Print how many of n random pairs are named, or localised to both places."""
    count: Counter[str] = Counter()
    for kind, first, second in random_pairs(n, seed):
        case = case_of(first.name, kind)
        diagnosis = diagnose(case, dump_of(case, outcome(case.model, case.given, [first, second])))
        both = {first.name, second.name}
        own = [m.own_names(case.calculation, case.model) for m in (first, second)]
        if any(set(names) == both for names in diagnosis.names):
            count["named"] += 1
        elif all(names.intersection(diagnosis.blamed) for names in own):
            count["localised to both places"] += 1
        else:
            count["neither"] += 1
    counted = ", ".join(f"{v} {k}" for k, v in count.items())
    print(f"\nOf {n} random pairs: {counted}")


def print_times() -> None:
    """Print how long a default-sized MI-DPG takes: to check, and to diagnose with few names."""
    case = make_case(sized_model("midpg", {}, small=False))
    names = ("adjoint of repeat averaged", "regulariser averaged over 2B")
    found = dump_of(case, outcome(case.model, case.given, [MISTAKES[name] for name in names]))
    few = {k: v for k, v in found.items() if k == "logit" or k.removeprefix("d.") in case.params}
    print("\nDefault-sized MI-DPG, a dump with two mistakes:")
    for what, run in (
        ("check of every name", lambda: compare(case, found)),
        ("diagnosis from every name", lambda: diagnose(case, found)),
        ("diagnosis from the logit and the parameters' gradients", lambda: diagnose(case, few)),
        ("a mistake that nobody knows, same names", lambda: diagnose(case, unknown(case, few))),
    ):
        start = time.perf_counter()
        run()
        print(f"- {what}: {time.perf_counter() - start:.2f} s")


def unknown(case: Any, few: dict[str, Any]) -> dict[str, Any]:
    """Return a dump that no entry and no pair explains, so that all are tried."""
    return few | {"logit": case.arrays["logit"] ** 3}


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_entries()
    print_pairs(arguments.pairs, arguments.seed)
    print_times()


if __name__ == "__main__":
    main()
