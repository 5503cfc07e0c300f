"""What the machine can do, measured, and what a training step asks of it, counted.

python benchmarks/roofline.py [--threads 1 2] [--batch 512]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cases import CLOCKS, WEIGHTED, Case

from midpg_np.workspace import empty

IN_CACHE = 32_768  # float32 numbers of one operand: 128 KiB
OUT_OF_CACHE = 2**26  # 256 MiB


class Roofline(NamedTuple):
    """Measured rates.

    Parameters
    ----------
    peak : float
        GFLOP/s of the best sgemm.
    products : dict
        GFLOP/s of products as they occur in a step, by description.
    copy : float
        GB/s of a large copy, read and written bytes together.
    element : float
        ns per element of an element-wise product in cache, one thread, arrays on cache lines.
    unaligned : float
        The same on arrays that start 16 bytes behind a cache line, as NumPy's do.
    tanh : float
        ns per element of float32 tanh, one thread.
    """

    peak: float
    products: dict[str, float]
    copy: float
    element: float
    unaligned: float
    tanh: float


def fastest(
    action: Callable[[], Any],
    clock: Callable[[], float],
    n_times: int = 25,
    at_least: float = 0.004,
) -> float:
    """Return the shortest time of a call in seconds, each sample lasting about ``at_least``."""
    action()
    started = clock()
    action()
    n_calls = max(1, int(at_least / max(clock() - started, 1e-7)))
    samples = []
    for _ in range(n_times):
        started = clock()
        for _ in range(n_calls):
            action()
        samples.append((clock() - started) / n_calls)
    return min(samples)


def product_rate(shape: tuple[int, ...], clock: Callable[[], float]) -> float:
    """Return the GFLOP/s of a (batched) product: (m, k, n) or (batch, m, k, n)."""
    *batch, m, k, n = shape
    rng = np.random.default_rng(0)
    a = rng.random((*batch, m, k), dtype=np.float32)
    b = rng.random((*batch, k, n), dtype=np.float32)
    out = np.empty((*batch, m, n), dtype=np.float32)
    seconds = fastest(lambda: np.matmul(a, b, out=out), clock)
    return 2e-9 * float(np.prod(shape)) / seconds


def measure(batch: int = 512, threads: int = 1, clock_name: str = "wall") -> Roofline:
    """Measure products on ``threads`` threads of BLAS, element-wise work on one.

    Processor time ("processor") means something on one thread only.
    """
    from threadpoolctl import threadpool_limits

    one = CLOCKS[clock_name]
    clock = one if threads == 1 else CLOCKS["wall"]
    shapes = {
        f"128 x 128 by 128 x {batch}": (128, 128, batch),
        f"32 x 160 by 160 x {batch}": (32, 160, batch),
        f"16 of 128 x 8 by 8 x {batch}": (16, 128, 8, batch),
        f"64 of 128 x 2 by 2 x {batch}": (64, 128, 2, batch),
    }
    with threadpool_limits(threads, user_api="blas"):
        products = {name: product_rate(shape, clock) for name, shape in shapes.items()}
        peak = max(product_rate((n, n, n), clock) for n in (512, 1024, 2048))
    element, unaligned = (
        fastest(lambda x=x: np.multiply(x[0], x[1], out=x[2]), one) / IN_CACHE
        for x in (_arrays(0), _arrays(16))
    )
    a, _, out = _arrays(0)
    tanh = fastest(lambda: np.tanh(a, out=out), one) / IN_CACHE
    large, target = np.ones(OUT_OF_CACHE, np.float32), np.empty(OUT_OF_CACHE, np.float32)
    copy = 8e-9 * OUT_OF_CACHE / fastest(lambda: np.copyto(target, large), one, n_times=5)
    rates = (1e9 * seconds for seconds in (element, unaligned, tanh))
    return Roofline(max(peak, *products.values()), products, copy, *rates)


def _arrays(offset: int) -> list[np.ndarray]:
    """Return three arrays that start ``offset`` bytes behind a cache line."""
    n_bytes = 4 * IN_CACHE
    memory = [empty(np, (n_bytes + 64,), np.uint8, None) for _ in range(3)]
    arrays = [block[offset : offset + n_bytes].view(np.float32) for block in memory]
    for array in arrays:
        array[:] = np.linspace(0.5, 1.0, IN_CACHE)
    return arrays


def gigaflop(case: Case) -> float:
    """GFLOP of the multiply-adds of a step: one forward and two backward, two each.

    The multiply-adds are those of ``count_params``, which are of a prediction, and those of the
    discriminators, whose first product serves matching and shuffled pairs.
    """
    model = case.config
    multiply_adds = model.count_params().multiply_adds
    if hasattr(model, "mi_weight"):
        for mi in model.regularisers.values():
            first = (mi.dim_context + mi.dim_signal) * mi.hidden[0]
            multiply_adds += first + 2 * mi.hidden[0]
    return 2e-9 * 3 * multiply_adds * case.batch


def element_floor(case: Case, rates: Roofline) -> float | None:
    """Seconds of the element-wise work that one thread cannot avoid in this form, in cache.

    Counted as passes over numbers per row, one pass being one multiplication or addition of two
    arrays.  With w = min(d_r d_n, d_c d_m), the numbers that are weighted, and c = d_r d_c:

    - 5 w: multiply and sum; backward, adjoint of what is weighted, adjoint of the core, its sum;
    - 5 c and one tanh per c: sigmoid, its derivative, and the adjoint of a second reader;
    - 5 d_k c unless "non": the product of the factors, and two multiply-and-sum backward;
    - 10 per parameter, once a step: Adam.

    Vectors of the width of a layer are left out.  None for models without a core.
    """
    if case.model not in WEIGHTED:
        return None
    passes, cores = 0.0, 0
    for layer in case.config.layers.values():
        weighting = layer.weighting
        core = weighting.d_r * weighting.d_c
        weighted = min(weighting.d_r * layer.dim_out, weighting.d_c * layer.dim_in)
        factors = 0 if weighting.variant == "non" else 5 * weighting.d_k * core
        passes += 5 * weighted + 5 * core + factors
        cores += core
    count = case.config.count_params()
    adam = 10 * (count.serving + count.training_only + count.embedding)
    return 1e-9 * (rates.element * (case.batch * passes + adam) + rates.tanh * case.batch * cores)


def show(rates: Roofline, threads: int) -> None:
    """Print the rates as a table."""
    print(f"\nMeasured on {threads} thread(s) of BLAS; element-wise work on one.\n")
    print("| what | rate |\n|---|---:|")
    print(f"| sgemm, best | {rates.peak:.0f} GFLOP/s |")
    for name, rate in rates.products.items():
        print(f"| sgemm, {name} | {rate:.0f} GFLOP/s |")
    print(f"| copy of 256 MiB, read and written | {rates.copy:.1f} GB/s |")
    print(f"| product of two arrays in cache | {rates.element:.3f} ns per element |")
    print(f"| the same, 16 bytes behind a cache line | {rates.unaligned:.3f} ns per element |")
    print(f"| tanh in cache | {rates.tanh:.3f} ns per element |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the machine can do.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    for n_threads in arguments.threads:
        show(measure(arguments.batch, n_threads, arguments.clock), n_threads)
