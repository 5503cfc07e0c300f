"""``midpg predict`` on long files: seconds and memory of the process, by format and length.

Writes a model file (MI-DPG, 8 fields of 16 wide, 8 x 1,000 codes, hidden 128-64-32, not trained)
and tables of raw rows, half of their columns text, half integers, with some unknown and some
missing values; then runs the command in a process of its own for each, in turn.  The hash is that
of the file written.

    python benchmarks/predict_file.py [--rows 1000000] [--rounds 3] [--variant r]
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

N_FIELDS, N_CATEGORIES, N_SCENARIOS = 8, 999, 10
CHILD = """
import resource, sys
from midpg_np.cli import main
try:
    main()
finally:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, file=sys.stderr)
"""


def main() -> None:
    """Write the files, run the command on them in turn, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", default="r")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        write(options.child, options.rows, options.variant)
        return
    n_cores = len(os.sched_getaffinity(0))
    results: dict[tuple, list[tuple]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # A process of its own: children inherit the largest memory of their parent.
        subprocess.run([sys.executable, *sys.argv, "--child", folder], check=True)
        cases = [
            (f"{n_rows}.{suffix}", out, cores)
            for n_rows in (options.rows // 4, options.rows)
            for suffix, out in (("csv.gz", "csv"), ("csv", "csv"), ("parquet", "parquet"))
            for cores in dict.fromkeys((1, n_cores))
        ]
        for _ in range(options.rounds):
            for case in cases:
                results.setdefault(case, []).append(measured(Path(folder), *case))
    show(options, results)


def write(folder: Path, n_rows: int, variant: str) -> None:
    """Write a model with its encoder, and tables of two lengths in three formats."""
    import gzip

    import polars as pl

    from midpg_np.data import Encoder, Schema
    from midpg_np.models import make_model
    from midpg_np.training.checkpoint import save_model
    from midpg_np.tree import tree_astype

    rng = np.random.default_rng(0)
    fields = [f"field_{i}" for i in range(N_FIELDS)]
    schema = Schema("bought", "shop", tuple(fields[:2]), tuple(fields[2:]))

    def table(codes: np.ndarray) -> pl.DataFrame:
        columns: dict[str, object] = {"shop": rng.integers(0, N_SCENARIOS, len(codes))}
        for i, name in enumerate(fields):
            column = pl.Series(codes[:, i] + 1000)
            columns[name] = pl.format("article {}", column.cast(pl.String)) if i % 2 else column
        frame = pl.select(**columns)
        return frame.with_columns(
            pl.when(pl.Series(rng.random(len(codes)) > 0.01)).then(pl.col(f)).alias(f)
            for f in fields[2:4]
        )

    every = np.arange(N_CATEGORIES).repeat(N_FIELDS).reshape(-1, N_FIELDS)
    train = table(every).with_columns(bought=pl.Series(np.arange(len(every)) % 2))
    encoder = Encoder(schema).fit(train)
    sizes = {n: getattr(encoder, n) for n in ("vocab_sizes", "n_scenarios")} | {"n_aware": 2}
    model = make_model("midpg", **sizes, dim_embedding=16, variant=variant)
    params = tree_astype(model.init(rng), np.float32)
    save_model(folder / "model.safetensors", model, params, encoder)
    rows = table(rng.integers(0, N_CATEGORIES + 3, size=(n_rows, N_FIELDS)))
    for length in (n_rows // 4, n_rows):
        part = rows[:length]
        part.write_csv(folder / f"{length}.csv")
        part.write_parquet(folder / f"{length}.parquet")
        with gzip.open(folder / f"{length}.csv.gz", "wb", compresslevel=6) as file:
            file.write((folder / f"{length}.csv").read_bytes())


def measured(folder: Path, name: str, suffix: str, n_cores: int) -> tuple:
    """Run the command; return wall seconds, processor seconds, GiB and a hash."""
    out = folder / f"out.{suffix}"
    limits = {"LOKY_MAX_CPU_COUNT": str(n_cores), "POLARS_MAX_THREADS": str(n_cores)}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, "predict"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, folder / "model.safetensors", folder / name, "--out", out],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | limits,
    )
    seconds = time.perf_counter() - started
    processor, peak = map(float, done.stderr.strip().split("\n")[-1].split())
    return seconds, processor, peak, hashlib.sha256(out.read_bytes()).hexdigest()[:12]


def show(options: argparse.Namespace, results: dict[tuple, list[tuple]]) -> None:
    """Print the table."""
    print(f"`python benchmarks/predict_file.py --rows {options.rows} --variant {options.variant}`,")
    print(f"medians of {options.rounds} processes each (in brackets the fastest); ", end="")
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, polars {version('polars')}")
    print("\n| rows | from, to | cores | s | processor s | peak memory, GiB | hash |")
    print("|---|---|---|---|---|---|---|")
    for (name, out, cores), runs in results.items():
        n_rows, suffix = name.split(".", 1)
        seconds, processor, peak = np.median([run[:3] for run in runs], axis=0)
        fastest = min(run[0] for run in runs)
        (digest,) = {run[3] for run in runs}
        print(
            f"| {int(n_rows):,} | .{suffix}, .{out} | {cores} | {seconds:.1f} ({fastest:.1f}) ",
            end="",
        )
        print(f"| {processor:.1f} | {peak:.2f} | {digest} |")


if __name__ == "__main__":
    main()
