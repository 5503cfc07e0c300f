"""Memory and time of one epoch of MI-DPG on generated data of the paper's sizes.

`synthetic-marketbias` at full size, held in memory; `industrial` at 1 and at 5 million rows, read
from disk.  Every measurement is a process of its own: it generates and encodes the rows, trains one
epoch (batch 512, every option at its default), validates once, and scores the test rows.  Prints
seconds of each, and the largest resident memory of the process.

    python benchmarks/paper_scale.py [--only NAME:ROWS ...] [--model midpg] [--threads 1]
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from itertools import pairwise

RUNS = ("synthetic-marketbias:1292954", "industrial:1000000", "industrial:5000000")
PHASES = ("load", "epoch", "score")
FULL_SIZE = {"synthetic-marketbias": 1_292_954, "industrial": 108_649_408}


def main() -> None:
    """Measure one after another, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=RUNS, metavar="NAME:ROWS")
    parser.add_argument("--model", default="midpg")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.child, options.model, options.threads)))
        return
    print(f"{platform.platform()}, Python {platform.python_version()}\n")
    print("| data | training rows | largest memory | generate, encode | epoch | score | test AUC |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for run in options.only:
        how = ["--model", options.model, "--threads", str(options.threads)]
        command = [sys.executable, __file__, "--child", run, *how]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        m = json.loads(done.stdout)
        print(
            f"| {run} | {m['rows']:,} | {m['memory']:.0f} MiB | {m['load']:.0f} s | "
            f"{m['epoch']:.0f} s | {m['score']:.1f} s | {m['auc']:.4f} |",
            flush=True,
        )


def measured(run: str, model_name: str, threads: int) -> dict[str, float]:
    """Train one epoch and return what it took."""
    from midpg_np.data import load_dataset
    from midpg_np.experiments.comparison import build_model
    from midpg_np.training.config import TrainConfig
    from midpg_np.training.evaluate import evaluate
    from midpg_np.training.loop import fit

    name, rows = run.split(":")
    times = [time.perf_counter()]
    splits = load_dataset(name, fraction=min(int(rows) / FULL_SIZE[name], 1.0))
    times.append(time.perf_counter())
    model = build_model(model_name, splits.train, {})
    result = fit(model, splits.train, splits.valid, TrainConfig(epochs=1, threads=threads))
    times.append(time.perf_counter())
    metrics = evaluate(model, result.params, splits.test)
    times.append(time.perf_counter())
    assert metrics.auc is not None
    return {
        "rows": len(splits.train),
        "auc": metrics.auc,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        **{name: b - a for name, (a, b) in zip(PHASES, pairwise(times), strict=True)},
    }


if __name__ == "__main__":
    main()
