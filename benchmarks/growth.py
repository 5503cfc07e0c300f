"""How our training step grows with batch size, scenarios, and the core's sizes d_r, d_c, d_k.

One table each, all cells of a table in turn within one process, medians of processor time on one
thread.  B: DNN and MI-DPG, with the time per row.  D: every model at batch 512.  d_r, d_c, d_k:
MI-DPG "rc" at batch 512; what is not varied is 1/8, or 1/2 where d_k is varied.

    python benchmarks/growth.py [--rounds 10] [--tables B D d_r d_c d_k]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from cases import SIZES, Case
from frameworks.ours import OurStep
from roofline import gigaflop

from midpg_np.models import MODELS
from midpg_np.training.blas import blas_threads

BATCHES = (128, 256, 512, 1024, 2048, 4096, 8192)
SCENARIOS = (2, 10, 50, 200)
DIVISORS = {"d_r": (64, 32, 16, 8, 4, 2, 1), "d_c": (32, 16, 8, 4, 2, 1)}
RANKS = (1, 2, 4, 8, 16)
N_BATCHES, N_STEPS, N_DROPPED = 4, 6, 2
DPG = Case("midpg", "rc", 8, 512, 1)


class Steps:
    """Our step of one case, and its times in milliseconds."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(1)
        self.case, self.times = case, list[float]()
        self.step = OurStep(case.config, case.params())
        self.staged = [self.step.stage(*case.draw(rng)) for _ in range(N_BATCHES)]

    def take(self) -> None:
        """Take some steps and time all but the first."""
        for i in range(N_DROPPED + N_STEPS):
            started = time.process_time()
            self.step.step(self.staged[i % N_BATCHES])
            if i >= N_DROPPED:
                self.times.append(1e3 * (time.process_time() - started))


def medians(cases: list[Case], rounds: int) -> Iterator[tuple[Case, float]]:
    """Yield every case with its median in milliseconds, measured in turn."""
    steps = [Steps(case) for case in cases]
    for _ in range(rounds):
        for step in steps:
            step.take()
    for step in steps:
        yield step.case, float(np.median(step.times))


def show(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| " + " | ".join(columns) + " |")
    print("|" + "---:|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def batch_table(rounds: int) -> None:
    """B: the time of a step should be a little plus something per row."""
    models = (Case("dnn", "", 0, 512, 1), DPG, replace(DPG, divisor=2))
    cases = [replace(case, batch=n_rows) for n_rows in BATCHES for case in models]
    cells = [f"{ms:.2f} ({1e3 * ms / case.batch:.1f})" for case, ms in medians(cases, rounds)]
    rows = [[n_rows, *cells[3 * i : 3 * i + 3]] for i, n_rows in enumerate(BATCHES)]
    show("ms per step (µs per row)", ["B", *(case.label for case in models)], rows)


def scenario_table(rounds: int) -> None:
    """D: what a model without parts per scenario does not depend on."""
    rows = []
    for name in MODELS:
        variant, divisor = ("rc", 8) if name in ("dpg", "midpg") else ("", 0)
        cases = [
            Case(name, variant, divisor, 512, 1, sizes=replace(SIZES, n_scenarios=d))
            for d in SCENARIOS
        ]
        rows.append([cases[0].label, *(f"{ms:.2f}" for _, ms in medians(cases, rounds))])
    show("ms per step", ["model", *(f"D = {d}" for d in SCENARIOS)], rows)


def core_table(name: str, rounds: int) -> None:
    """d_r or d_c of the first layer, the others in proportion; or d_k."""
    if name == "d_k":
        options = [{"row_divisor": 2, "col_divisor": 2, "d_k": d_k} for d_k in RANKS]
    else:
        key = {"d_r": "row_divisor", "d_c": "col_divisor"}[name]
        options = [{key: divisor} for divisor in DIVISORS[name]]
    cases = [replace(DPG, options=tuple(kw.items())) for kw in options]
    rows = []
    for case, ms in medians(cases, rounds):
        weighting = case.config.layers["layer_1"].weighting
        size = getattr(weighting, name)
        rows.append([size, f"{ms:.2f}", f"{gigaflop(case):.3f}"])
    where = "" if name == "d_k" else ", first layer"
    show(f"{DPG.label.split(' 1/')[0]}, batch 512", [f"{name}{where}", "ms", "GFLOP"], rows)


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = ("B", "D", "d_r", "d_c", "d_k")
    parser.add_argument("--tables", nargs="+", choices=tables, default=list(tables))
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    for name in args.tables:
        if name == "B":
            batch_table(args.rounds)
        elif name == "D":
            scenario_table(args.rounds)
        else:
            core_table(name, args.rounds)


if __name__ == "__main__":
    with blas_threads(1):
        main()
