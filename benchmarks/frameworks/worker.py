"""One implementation in a process of its own: says what a step gives, takes steps when asked."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from cases import CLOCKS, Case

from frameworks.candidates import Candidate
from frameworks.equality import DifferentError, check, measure
from midpg_np.checks.model import perturbed_params

N_BATCHES = 6
N_DROPPED = 2


def peak_megabytes() -> float:
    """Largest resident size of this process so far.

    Linux's VmHWM begins anew with a program; ``ru_maxrss`` is at least what the parent held.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (found or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] / 1024


def serve(
    conn: Connection,
    case: Case,
    candidate: Candidate,
    clock: str,
    predicts: bool,
) -> None:
    """Run until the parent sends None.

    A process whose steps of training are timed ``predicts`` nothing, so its peak is theirs.

    Sends first a dictionary: ``found``, what a step gives (the parent compares it, so that this
    process holds nothing for it), ``baseline`` memory after the imports and with the parameters,
    or ``error``.  Then answers a number of steps k, or
    ("predict", k), with the seconds of each (on a GPU: of all of them by k), and "peak" with
    megabytes.
    """
    if case.threads == 1 and case.device == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    try:
        step = candidate.build(case.config, case.params(), "float32", case.device, case.threads)
        baseline = peak_megabytes()
        found = measure(step, *case.proof(), predicts)
    except NotImplementedError as error:
        conn.send({"error": str(error)})
        return
    conn.send({"baseline": baseline, "found": found})
    del found
    rng = np.random.default_rng(2)
    pool = cycle([step.stage(*case.draw(rng)) for _ in range(N_BATCHES)])
    while (asked := conn.recv()) is not None:
        if asked == "peak":
            conn.send(peak_megabytes())
        elif isinstance(asked, tuple):
            conn.send(_time(step, step.predict, pool, asked[1], case.device, CLOCKS[clock]))
        else:
            conn.send(_time(step, step.step, pool, asked, case.device, CLOCKS[clock]))


def _time(
    step: Any, action: Any, pool: Any, n_times: int, device: str, clock: Callable[[], float]
) -> list[float]:
    for _ in range(N_DROPPED):
        action(next(pool))
    step.wait()
    times = []
    started = clock()
    for _ in range(n_times):
        action(next(pool))
        if device == "cpu":
            step.wait()
            now = clock()
            times.append(now - started)
            started = now
    if device != "cpu":  # waiting after every step would hide that the host runs ahead
        step.wait()
        times = [(clock() - started) / n_times]
    return times


def refer(conn: Connection, case: Case, candidate: Candidate) -> None:
    """Send the step of a candidate in float64 on the batch that every process is checked with."""
    step = candidate.build(case.config, case.params(), "float64", case.device, 1)
    conn.send(measure(step, *case.proof()))


def prove(conn: Connection, case: Case, candidate: Candidate) -> None:
    """Compare with the package in float64 on few rows; send the difference, or the error."""
    rng = np.random.default_rng(3)
    batch, draws = case.draw(rng, 64)
    moved = perturbed_params(case.config, rng, scale=0.3)
    try:
        ours = Candidate("ours").build(case.config, moved, "float64", "cpu", 1)
        theirs = candidate.build(case.config, moved, "float64", "cpu", 1)
        found = check(measure(ours, batch, draws), measure(theirs, batch, draws), "float64")
        conn.send({"difference": found})
    except (DifferentError, NotImplementedError) as error:
        conn.send({"error": str(error)})
