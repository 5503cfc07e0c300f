"""A training step of every model against PyTorch and JAX, in one run.

Every implementation runs in its own process and is first compared with the package: loss, every
gradient and three steps of Adam, in float64 (1e-9) and in float32 as it is timed (1e-4).  Those
that agree take steps in turn.  Prints Markdown tables; ends with code 1 if one was refused.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --models midpg --variants rc --sizes 8 --batch 512
    python benchmarks/training_step.py --device cuda --batch 512 4096 65536
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import roofline
from cases import SIZES, TINY, VARIANTS, WEIGHTED, Case
from frameworks.candidates import DEFAULT, FRAMEWORKS, candidates
from turns import Proofs, Timed, time_case

from midpg_np.backend import to_device
from midpg_np.models import MODELS


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["r", "c", "rc"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 2], help="8 means 1/8")
    parser.add_argument("--batch", nargs="+", type=int, default=[512, 4096])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(DEFAULT))
    parser.add_argument("--forms", type=int, default=2, help="fastest forms of each framework")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor time is steadier where others use the machine; for one thread",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all times here as well")
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the command")
    args = parser.parse_args()
    try:
        to_device(np.zeros(1), args.device)
    except Exception as error:  # the package says what is missing
        parser.error(str(error))
    return args


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases."""
    sizes = TINY if args.tiny else SIZES
    threads = args.threads if args.device == "cpu" else args.threads[:1]
    for n_threads in threads:
        for batch in args.batch:
            for model in args.models:
                common = (batch, n_threads, args.device, sizes)
                if model in WEIGHTED:
                    for variant in args.variants:
                        for divisor in args.sizes[:1] if variant == "non" else args.sizes:
                            yield Case(model, variant, divisor, *common)
                else:
                    yield Case(model, "", 0, *common)


def show_machine(names: list[str]) -> None:
    """Print the machine and the versions."""
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    print(f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, ", end="")
    print(", ".join(found + products()))


def products() -> list[str]:
    """Libraries that make NumPy's products, with the kernels they have chosen."""
    from threadpoolctl import threadpool_info  # here, for every process imports this file

    keys = "internal_api", "version", "architecture"
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    return [" ".join(str(lib.get(key, "")) for key in keys) for lib in libraries]


def cpu_name() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def show_details(case: Case, results: list[Timed]) -> None:
    """Print one row per implementation."""
    ours = next((r.median for r in results if r.candidate.framework == "ours"), float("nan"))
    for r in results:
        if r.error:
            cells = ["refused", "", "", "", "", ""]
        else:
            low, high = r.quartiles
            cells = [
                f"{1e3 * r.median:.2f}",
                f"{1e3 * low:.2f} to {1e3 * high:.2f}",
                f"{r.median / ours:.2f}",
                f"{r.peak:.0f}",
                f"{r.baseline:.0f}",
                f"{r.difference:.0e}",
            ]
        start = [case.label, f"{case.batch}", f"{case.threads}", r.candidate.label]
        print("| " + " | ".join(start + cells) + " |", flush=True)


def show_summary(
    measured: dict[Case, list[Timed]], rates: dict[tuple[int, int], roofline.Roofline]
) -> None:
    """Print one row per case: ours against the fastest, and against what the machine can do."""
    print(
        "\n| model | batch | threads | midpg_np, ms | fastest other | its ms | ratio "
        "| ratio to eager materialised | ratio of peak memory | GFLOP | share of best sgemm "
        "| element-wise floor, ms |\n|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    for case, results in measured.items():
        ours = next((r for r in results if r.candidate.framework == "ours" and r.times), None)
        if ours is None:
            continue
        others = [r for r in results if r.times and r is not ours]
        best = min(others, key=lambda r: r.median, default=None)
        usual = next((r for r in others if r.candidate.is_materialised), None)
        rate = rates.get((case.threads, case.batch))
        gflop = roofline.gigaflop(case)
        floor = roofline.element_floor(case, rate) if rate else None
        cells = [
            case.label,
            f"{case.batch}",
            f"{case.threads}",
            f"{1e3 * ours.median:.2f}",
            best.candidate.label if best else "",
            f"{1e3 * best.median:.2f}" if best else "",
            f"**{ours.median / best.median:.2f}**" if best else "",
            f"1/{usual.median / ours.median:.0f}" if usual else "",
            f"{ours.peak / best.peak:.2f}" if best else "",
            f"{gflop:.3f}",
            f"{gflop / ours.median / rate.peak:.0%}" if rate else "",
            f"{1e3 * floor:.2f}" if floor is not None else "",
        ]
        print("| " + " | ".join(cells) + " |")


def as_json(case: Case, results: list[Timed]) -> list[dict]:
    """Return plain records."""
    return [
        {
            "case": case.label,
            "batch": case.batch,
            "threads": case.threads,
            "device": case.device,
            "implementation": r.candidate.label,
            "error": r.error,
            "times": r.times,
            "peak": r.peak,
            "baseline": r.baseline,
            "difference": r.difference,
        }
        for r in results
    ]


def main() -> int:
    """Time all cases."""
    args = arguments()
    show_machine(["numpy", "torch", "jax"])
    print(
        f"float32 on {args.device}; medians of {args.rounds} rounds, {args.clock} time, all "
        "implementations of a case in turn.  Memory is the largest resident size of the process, "
        "and that after its imports with parameters and moments."
        "\n\n| model | batch | threads | implementation | ms, median | quartiles | by midpg_np "
        "| peak MB | start MB | difference |\n|---|---:|---:|---|---:|---:|---:|---:|---:|---:|"
    )
    measured: dict[Case, list[Timed]] = {}
    proofs, records = Proofs(), []
    for case in cases(args):
        chosen = candidates(case.model, args.frameworks, args.forms, args.device)
        measured[case] = time_case(case, chosen, args.rounds, proofs, clock=args.clock)
        show_details(case, measured[case])
        records += as_json(case, measured[case])
        if args.json:
            args.json.write_text(json.dumps(records))
    rates = {}
    if args.device == "cpu" and not args.tiny:
        rates = {
            (n, b): roofline.measure(b, n, args.clock) for n in args.threads for b in args.batch
        }
    show_summary(measured, rates)
    for (n_threads, _), rate in rates.items():
        roofline.show(rate, n_threads)
    return int(any(r.error for results in measured.values() for r in results))


if __name__ == "__main__":
    sys.exit(main())
