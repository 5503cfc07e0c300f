"""Processes that are timed in turn, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np
from cases import Case
from frameworks.candidates import Candidate
from frameworks.equality import DifferentError, Reference, check
from frameworks.worker import prove, refer, serve

PAUSE = 0.15  # idle threads of a BLAS spin for a while after a product
TURN = 0.25  # seconds of steps per turn, at most ``MOST`` steps


@dataclass
class Timed:
    """One implementation of a case: its times in seconds, memory in MB, or why it was refused."""

    candidate: Candidate
    error: str = ""
    difference: float = 0.0
    baseline: float = float("nan")
    peak: float = float("nan")
    times: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median time, NaN if refused."""
        return float(np.median(self.times)) if self.times else float("nan")

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile."""
        low, high = np.percentile(self.times or [np.nan], [25, 75])
        return float(low), float(high)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started inside."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def without_script() -> Iterator[None]:
    """Let processes that are started inside not import the script, whose memory is not theirs."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    main.__file__ = None
    try:
        yield
    finally:
        main.__file__ = file


def start(target: Callable, case: Case, candidate: Candidate, *args: Any) -> tuple[Any, Any]:
    """Start a fresh process and return it with our end of a pipe."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, case, candidate, *args), daemon=True)
    with environment(candidate.environment(case.threads)), without_script():
        process.start()
    there.close()
    return process, here


def answer(conn: Any) -> Any:
    """Return what the process sends, or an error if it died."""
    try:
        return conn.recv()
    except EOFError:
        return {"error": "its process ended; see above."}


def reference_of(case: Case) -> Reference:
    """Our float64 step on the batch that every process is checked with.

    From a process of its own, since memory of a GPU comes back only when its process ends.
    """
    process, conn = start(refer, case, Candidate("ours"))
    reference = answer(conn)
    process.join()
    return reference


class Proofs:
    """Comparisons in float64, made once per model and form.

    Compiled code is the same code in another mode; it is compared as it is timed, in float32.
    """

    def __init__(self) -> None:
        self.known: dict[Any, str] = {}

    def error(self, case: Case, candidate: Candidate) -> str:
        """Return why a candidate must not be timed, or ""."""
        if candidate.framework == "ours" or candidate.compile_mode is not None:
            return ""
        key = (case.config, candidate.framework, candidate.form)
        if key not in self.known:
            process, conn = start(prove, case, candidate)
            self.known[key] = answer(conn).get("error", "")
            process.join()
        return self.known[key]


def time_case(
    case: Case,
    candidates: list[Candidate],
    rounds: int,
    proofs: Proofs,
    kind: str = "step",
    clock: str = "wall",
) -> list[Timed]:
    """Check all candidates and time those that are equal to the package, in turn."""
    results = [Timed(candidate) for candidate in candidates]
    reference = reference_of(case)
    started: list[tuple[Timed, Any, Any]] = []
    for result in results:
        result.error = proofs.error(case, result.candidate)
        if not result.error:  # all compile at the same time
            args = clock, kind == "predict"
            started.append((result, *start(serve, case, result.candidate, *args)))
    running = []
    for result, process, conn in started:
        greeting = answer(conn)
        result.error = greeting.get("error", "")
        if not result.error:
            result.baseline = greeting["baseline"]
            try:
                result.difference = check(reference, greeting["found"], "float32")
                running.append((result, process, conn))
            except DifferentError as error:
                result.error = str(error)
                process.terminate()
                process.join()
    for result in results:
        if result.error:
            message = f"refused: {result.candidate.label} on {case.label}: {result.error}"
            print(message, file=sys.stderr)
    most = 30 if case.device == "cpu" else 200
    n_steps = {id(result): 2 for result, _, _ in running}
    for number in range(rounds + 1):  # the first round finds out how many steps fit in a turn
        for result, _, conn in running:
            time.sleep(PAUSE)
            n = n_steps[id(result)]
            conn.send(("predict", n) if kind == "predict" else n)
            times = answer(conn)
            if number:
                result.times += times
            else:
                n_steps[id(result)] = int(np.clip(TURN / max(min(times), 1e-6), 3, most))
    for result, process, conn in running:
        conn.send("peak")
        result.peak = answer(conn)
        conn.send(None)
        process.join()
    return results
