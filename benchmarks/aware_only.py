"""Predictions with ``dwm_inputs="aw_only"``: row by row against one plain network per context.

Processor time per row on a block of rows of MI-DPG (8 fields of 16 wide, 8 x 1,000 codes, hidden
128-64-32, float32, parameters perturbed) by the number of contexts, each with as many rows; one
thread, the least of some rounds in turn.

    python benchmarks/aware_only.py [--rows 65536] [--rounds 3] [--device cpu]
"""

import argparse
import platform
import time

import numpy as np

from midpg_np import perturbed
from midpg_np.batch import Batch
from midpg_np.models import make_model
from midpg_np.training import by_context
from midpg_np.training.blas import blas_threads
from midpg_np.training.evaluate import keep_freed_memory, rows_per_batch
from midpg_np.tree import tree_astype, tree_to_device

SIZES = {"vocab_sizes": (1000,) * 8, "n_aware": 2, "n_scenarios": 10, "dim_embedding": 16}
VARIANTS = (("r", 8), ("rc", 8), ("rc", 2))
CONTEXTS = (10, 256, 1024, 2048, 4096, 8192)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=by_context.BLOCK_ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__},", end=""
    )
    print(f" {options.device}; least of {options.rounds}, us per row\n")
    print(
        "| variant | contexts | rows each | model | by context | plain | model / by context |",
        end="",
    )
    print(" largest difference |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    keep_freed_memory()
    with blas_threads(1):
        for variant, divisor in VARIANTS:
            for n_contexts in CONTEXTS:
                show(options, variant, divisor, n_contexts)


def show(options: argparse.Namespace, variant: str, divisor: int, n_contexts: int) -> None:
    """Print one row of the table."""
    rng = np.random.default_rng(0)
    core = {"variant": variant, "row_divisor": divisor, "col_divisor": divisor}
    model = make_model("midpg", **SIZES, **core, dwm_inputs="aw_only")
    plain = make_model("dnn", **SIZES)
    params, plain_params = (
        tree_to_device(tree_astype(perturbed(m.init(rng), rng), np.float32), options.device)
        for m in (model, plain)
    )
    codes = rng.integers(0, 1000, size=(options.rows, 8))
    context = rng.permutation(np.arange(options.rows) % n_contexts)
    codes[:, :2] = np.stack([context % 1000, context // 1000], axis=1)
    rows = Batch(codes, np.zeros(options.rows, dtype=np.int64))
    size = rows_per_batch(model, params, options.device)
    plain_size = rows_per_batch(plain, plain_params, options.device)
    ways = {
        "model": lambda: by_context.logits_in_batches(model, params, rows, size, options.device),
        "contexts": lambda: by_context.logits_by_context(
            model, params, rows, by_context.context_ids(codes[:, :2]), size, options.device
        ),
        "plain": lambda: by_context.logits_in_batches(
            plain, plain_params, rows, plain_size, options.device
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    logits = {}
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = clock()
            logits[name] = way()
            times[name].append(1e6 * (clock() - start) / options.rows)
    least = {name: min(t) for name, t in times.items()}
    difference = np.abs(logits["contexts"] - logits["model"]).max() / np.abs(logits["model"]).max()
    print(f"| {variant} 1/{divisor} | {n_contexts:,} | {options.rows // n_contexts:,} ", end="")
    print("".join(f"| {t:.2f} " for t in least.values()), end="")
    print(f"| {least['model'] / least['contexts']:.1f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
