"""Rows per second of a prediction, for every model and batch size.

First our ``predict_logits`` on one table, all models in turn, processor time of one thread; then a
batch at a time against PyTorch and JAX, each in its own process and checked equal first, in turn.

    python benchmarks/prediction.py [--batch 512 4096 32768] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
from cases import CLOCKS, SIZES, TINY, WEIGHTED, Case
from frameworks.candidates import DEFAULT, FRAMEWORKS, candidates
from turns import Proofs, time_case

from midpg_np.data.batches import Dataset
from midpg_np.models import MODELS
from midpg_np.training.blas import blas_threads
from midpg_np.training.evaluate import predict_logits
from midpg_np.tree import tree_astype

COMPARED = ("dnn", "midpg")


def table_of(case: Case, n_rows: int) -> Dataset:
    """Draw rows as a data set without labels."""
    batch, _ = case.draw(np.random.default_rng(4), n_rows)
    model = case.config
    return Dataset(
        codes=batch.codes,
        scenario=batch.scenario,
        label=None,
        vocab_sizes=model.vocab_sizes,
        n_aware=model.n_aware,
        n_scenarios=model.n_scenarios,
        field_names=tuple(f"field_{i}" for i in range(len(model.vocab_sizes))),
        scenario_names=tuple(map(str, range(model.n_scenarios))),
    )


def case_of(model: str, batch: int, threads: int, sizes: Any) -> Case:
    """Return a model's case: "rc" at 1/8 where there is a core."""
    variant, divisor = ("rc", 8) if model in WEIGHTED else ("", 0)
    return Case(model, variant, divisor, batch, threads, sizes=sizes)


def ours(args: argparse.Namespace, sizes: Any) -> None:
    """Print rows per second of ``predict_logits``."""
    n_rows = max(args.rows, *args.batch)
    cases = [case_of(name, 1, 1, sizes) for name in args.models]
    params = [tree_astype(case.params(), np.float32) for case in cases]
    tables = [table_of(case, n_rows) for case in cases]
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(args.rounds):
        for i, case in enumerate(cases):
            for batch in args.batch:
                started = time.process_time()
                predict_logits(case.config, params[i], tables[i], batch)
                times.setdefault((i, batch), []).append(time.process_time() - started)
    print(f"\nOur `predict_logits`, {n_rows:,} rows, thousand rows per second.\n")
    print("| model | " + " | ".join(f"batch {b}" for b in args.batch) + " |")
    print("|---|" + "---:|" * len(args.batch))
    for i, case in enumerate(cases):
        rates = [1e-3 * n_rows / np.median(times[i, batch]) for batch in args.batch]
        print(f"| {case.label} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |")


def compared(args: argparse.Namespace, sizes: Any) -> None:
    """Print rows per second against PyTorch and JAX."""
    print(f"\nBatch by batch against others, {args.clock} time, thousand rows per second.\n")
    print("| model | batch | threads | implementation | median | quartiles |")
    print("|---|---:|---:|---|---:|---:|")
    proofs = Proofs()
    for name in (name for name in COMPARED if name in args.models):
        chosen = candidates(name, args.frameworks, 2, "cpu")
        for n_threads in args.threads:
            for batch in args.batch:
                case = replace(case_of(name, batch, n_threads, sizes))
                results = time_case(case, chosen, args.rounds, proofs, "predict", args.clock)
                for r in results:
                    rate = [1e-3 * batch / x for x in (r.median, *reversed(r.quartiles))]
                    cells = [case.label, f"{batch}", f"{n_threads}", r.candidate.label]
                    cells += ["refused" if r.error else f"{rate[0]:,.0f}"]
                    cells += ["" if r.error else f"{rate[1]:,.0f} to {rate[2]:,.0f}"]
                    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=[512, 4096, 32768])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(DEFAULT))
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the command")
    args = parser.parse_args()
    sizes = TINY if args.tiny else SIZES
    with blas_threads(1):
        ours(args, sizes)
    compared(args, sizes)


if __name__ == "__main__":
    main()
