"""Reading, dividing and encoding a large table, as ``midpg train --data FILE`` does.

Writes two tables of 1,292,954 rows and 8 columns, gzip-compressed CSV, with generated content:
users and items named by text in one, by integers in the other (some 775,000 distinct users), a few
missing values.  Every measurement is a process of its own; the files are taken in turn.  Prints
seconds of the work, seconds from the start of the process to its end, seconds of processor time and
the largest resident memory.  The hash is that of all codes, scenario ids, labels and vocabularies,
so that two versions can be seen to encode alike.

    python benchmarks/reading.py [--rows 1292954] [--rounds 3] [--keep FOLDER]
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_ROWS, N_USERS, N_ITEMS = 1_292_954, 1_160_000, 9_560
SCHEMA = {
    "label": "bought",
    "scenario": "category",
    "aware": ["category", "model_attr"],
    "agnostic": ["user_id", "item_id", "brand", "year", "price"],
    "numeric": ["price"],
}
LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype="S1")


def main() -> None:
    """Write the files, measure in turn, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=N_ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the files; reused if they are there")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, path = options.child
        if what.startswith("write-"):
            write(Path(path), what.removeprefix("write-"), options.rows)
        else:
            print(json.dumps(measured(what, path)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        paths = {
            kind: folder / f"rows-{kind}-{options.rows}.csv.gz" for kind in ("text", "integer")
        }
        for kind, path in paths.items():
            if not path.exists():
                # A process of its own: children inherit the largest memory of their parent.
                child(f"write-{kind}", path, "--rows", str(options.rows))
        compare(paths, options.rounds)


def child(what: str, path: Path, *arguments: str) -> str:
    """Do one thing in a process of its own, and return what it prints."""
    command = [sys.executable, __file__, "--child", what, str(path), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def write(path: Path, kind: str, n_rows: int) -> None:
    """Write a table that resembles ratings in a shop."""
    import gzip

    import polars as pl

    rng = np.random.default_rng(0)
    item = np.minimum(rng.geometric(3 / N_ITEMS, n_rows) - 1, N_ITEMS - 1)
    user = rng.integers(0, N_USERS, n_rows)
    of_item = {
        "category": np.array(["Headphones", "Computers & Accessories", "Camera", "Home Audio"]),
        "model_attr": np.array(["Female", "Male", "Female&Male"]),
        "brand": np.array([None, *(f"Brand {i}" for i in range(50))]),
    }
    columns = {
        "user_id": names(rng, N_USERS, kind)[user],
        "item_id": names(rng, N_ITEMS, kind)[item],
    }
    for name, values in of_item.items():
        columns[name] = values[rng.integers(0, len(values), N_ITEMS)][item]
    columns["year"] = rng.integers(1999, 2019, N_ITEMS)[item]
    columns["price"] = np.round(rng.lognormal(3.0, size=N_ITEMS), 2)[item]
    columns["bought"] = (rng.random(n_rows) < 0.75).astype(int)
    frame = pl.DataFrame({name: list(column) for name, column in columns.items()})
    missing = pl.Series(rng.random(n_rows) < 0.01)
    for name in ("user_id", "year", "price"):
        frame = frame.with_columns(pl.when(~missing).then(pl.col(name)).alias(name))
        missing = missing.shift(7, fill_value=False)
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(frame.write_csv().encode())


def names(rng: np.random.Generator, n_names: int, kind: str) -> np.ndarray:
    """Return distinct identifiers: fourteen letters and digits, or long integers."""
    if kind == "integer":
        return rng.permutation(4 * n_names)[:n_names] + 10**9
    letters = rng.choice(LETTERS, size=(n_names, 14))
    letters[:, 0] = b"A"
    return letters.view("S14")[:, 0].astype(str)


def measured(what: str, path: str) -> dict:
    """Read a file, or read, divide and encode it, in this process."""
    from midpg_np.data import Schema, load_table, read_table

    schema = Schema.from_dict(SCHEMA)
    started = time.perf_counter()
    digest = ""
    if what == "read":
        read_table(path, schema.columns)
    else:
        splits = load_table(path, schema)
        content = hashlib.sha256()
        seconds = time.perf_counter() - started
        for part in splits.parts.values():
            for array in (part.codes, part.scenario, part.label):
                content.update(array.tobytes())
        for name, array in sorted(splits.encoder.state()[1].items()):
            content.update(name.encode() + array.tobytes())
        digest = content.hexdigest()[:16]
        started = time.perf_counter() - seconds
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": time.perf_counter() - started,
        "processor": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss / 2**20,
        "digest": digest,
    }


def compare(paths: dict[str, Path], n_rounds: int) -> None:
    """Measure both files in turn, and print medians."""
    from importlib.metadata import version

    results: dict[tuple[str, str], list[dict]] = {}
    for _ in range(n_rounds):
        for kind, path in paths.items():
            for what in ("read", "load"):
                started = time.perf_counter()
                result = json.loads(child(what, path))
                result["whole"] = time.perf_counter() - started
                results.setdefault((kind, what), []).append(result)
    print(f"`python benchmarks/reading.py`, medians of {n_rounds} processes each; ", end="")
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(
        f"Python {platform.python_version()}, NumPy {np.__version__}, polars {version('polars')}\n"
    )
    print(
        "| users and items | what | s | whole process, s | processor, s | peak memory, GiB | hash |"
    )
    print("|---|---|---|---|---|---|---|")
    labels = {"read": "reading", "load": "reading, dividing, encoding"}
    for (kind, what), runs in results.items():
        seconds, whole, processor, peak = (
            float(np.median([run[key] for run in runs]))
            for key in ("seconds", "whole", "processor", "peak")
        )
        (digest,) = {run["digest"] for run in runs}
        print(f"| {kind} | {labels[what]} | {seconds:.2f} | {whole:.2f} ", end="")
        print(f"| {processor:.2f} | {peak:.2f} | {digest} |")


if __name__ == "__main__":
    main()
