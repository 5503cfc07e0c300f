"""What gradient checks cost and how exact they are.

Prints three Markdown tables.  The command ``midpg gradcheck`` on one and on two processes, start
included.  One random direction per parameter array of every model of full size (8 fields x 16,
hidden layers of 128, 64 and 32 units, float64).  And, on a small network, the complex step beside
central differences and, where PyTorch is installed, ``torch.autograd.gradcheck`` of its twin.
Beside seconds on the clock stand those of the processor, which a busy machine changes less.

    python benchmarks/gradcheck.py
    python benchmarks/gradcheck.py --rows 64 512 --vocab 1000 100000
    python benchmarks/gradcheck.py --only directions
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from midpg_np.checks import Case, check_directions, linearise, shift_from_kinks, wake_units
from midpg_np.checks.catalogue import Sizes
from midpg_np.checks.numeric import central_differences, complex_steps
from midpg_np.experiments.full_size_models import FULL_SIZE_CASES
from midpg_np.experiments.small_models import MODEL_CASES
from midpg_np.training.blas import blas_threads
from midpg_np.tree import tree_flatten

COMMAND = "from midpg_np.cli import main; main()"


def timed(function: Callable[[], Any], n_times: int = 1) -> tuple[Any, float, float]:
    """Return the result, seconds on the clock and of the processor: least of ``n_times``."""
    times = []
    for _ in range(n_times):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return result, min(t[0] for t in times), min(t[1] for t in times)


def catalogue() -> None:
    """Time the whole command."""
    print("| processes | checks | entries | s | s of processor | complex step | differences |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for n_processes in (1, 2):
        limits = {"LOKY_MAX_CPU_COUNT": str(n_processes), "OPENBLAS_NUM_THREADS": "1"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "gradcheck", "--json"],
            env=os.environ | limits,
            stdout=subprocess.PIPE,
            check=True,
        )
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        reports = json.loads(done.stdout)
        worst = [max(r[key] for r in reports) for key in ("complex_step_error", "difference_error")]
        print(
            f"| {n_processes} | {len(reports)} | {sum(r['entries'] for r in reports):,} "
            f"| {wall:.1f} | {cpu:.1f} | {worst[0]:.0e} | {worst[1]:.0e} |"
        )


def directions(batch_sizes: list[int], vocab_sizes: list[int], n_times: int) -> None:
    """Time one direction per array, forward and backward included, building the model not."""
    print("| model | codes per field | rows | arrays | entries | s | s of processor | deviation |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for vocab_size in vocab_sizes:
        for n_rows in batch_sizes:
            for name, builder in FULL_SIZE_CASES.items():
                rng = np.random.default_rng(0)
                case = builder(rng, n_rows=n_rows, vocab_size=vocab_size)
                report, wall, cpu = timed(lambda c=case, r=rng: check_directions(c, r), n_times)
                report.raise_if_wrong()
                print(
                    f"| `{name}` | {vocab_size:,} | {n_rows} | {len(report.blocks)} "
                    f"| {report.n_entries:,} | {wall:.2f} | {cpu:.2f} "
                    f"| {report.complex_error:.0e} |",
                    flush=True,
                )


def witnesses() -> None:
    """Compare ways to differentiate one small network, entry by entry."""
    rng = np.random.default_rng(0)
    case = shift_from_kinks(wake_units(MODEL_CASES["dnn"](Sizes(), rng)))
    linearised = linearise(case, rng)
    f, inputs, grads = linearised.function, case.inputs, tree_flatten(linearised.grads)
    largest = max(np.abs(g).max() for g in grads.values())
    ways = {
        "complex step, 1e-20": complex_steps,
        "4th order, 1e-4": central_differences,
        "2nd order, 1e-5": lambda *args: central_differences(*args, order=2),
    }
    print("| dnn, small | entries | ms | µs per entry | deviation / largest entry |")
    print("|---|---:|---:|---:|---:|")
    n_entries = sum(g.size for g in grads.values())
    for title, way in ways.items():
        numeric, seconds, _ = timed(
            lambda way=way: {p: way(f, inputs, p, np.ndindex(g.shape)) for p, g in grads.items()}, 5
        )
        errors = [np.abs(numeric[path] - g.ravel()).max() for path, g in grads.items()]
        print(
            f"| {title} | {n_entries} | {1e3 * seconds:.1f} | {1e6 * seconds / n_entries:.0f} "
            f"| {max(errors) / largest:.0e} |"
        )
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    twin, leaves = torch_twin(torch, case)
    assert abs(twin(*leaves).sum().item() - case.forward(inputs, None)[0][0].sum()) < 1e-12
    check = torch.autograd.gradcheck
    _, seconds, _ = timed(lambda: check(twin, leaves), 5)
    passed = [
        k for k in range(4, 16) if check(twin, leaves, atol=10.0**-k, rtol=0, raise_exception=False)
    ]
    print(
        f"| torch.autograd.gradcheck, 1e-6 | {n_entries} | {1e3 * seconds:.1f} "
        f"| {1e6 * seconds / n_entries:.0f} | passes with atol 1e-{max(passed):02d} |"
    )


def torch_twin(torch: Any, case: Case) -> tuple[Callable, list[Any]]:
    """Return the small plain network in PyTorch, and its parameters as leaves."""
    leaves = {p: torch.tensor(x, requires_grad=True) for p, x in tree_flatten(case.inputs).items()}
    ids = torch.tensor(case.forward(case.inputs, None)[1].embedding.ids)
    layers = sorted({path.rpartition(".")[0] for path in leaves} - {"embedding"})

    def forward(*tensors: Any) -> Any:
        params = dict(zip(leaves, tensors, strict=True))
        H = params["embedding.table"][ids].reshape(len(ids), -1)
        for name in layers:
            A = H @ params[f"{name}.W"] + params[f"{name}.b"]
            H = torch.relu(A)
        return A[:, 0]

    return forward, list(leaves.values())


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[64])
    parser.add_argument("--vocab", type=int, nargs="+", default=[1000])
    parser.add_argument("--times", type=int, default=3, help="runs of a direction check")
    parser.add_argument("--only", choices=("catalogue", "directions", "witnesses"))
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, NumPy {np.__version__}, one BLAS thread")
    if options.only in (None, "catalogue"):
        catalogue()
    with blas_threads(1):
        if options.only in (None, "directions"):
            directions(options.rows, options.vocab, options.times)
        if options.only in (None, "witnesses"):
            witnesses()


if __name__ == "__main__":
    main()
