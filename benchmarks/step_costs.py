"""What one training step of every model takes: multiplications of its products, and memory kept.

Prints the second table of docs/derivations/parameter_counts.md: 512 rows, default options, NumPy's
operations.  Nothing is timed.  Products are counted where NumPy does them: every array of the step
is of a type that adds up its matrix products (``matmul``, ``einsum``, outer products).

    python benchmarks/step_costs.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from midpg_np.batch import Batch
from midpg_np.models import MODELS, make_model
from midpg_np.models.protocol import ModelOutput
from midpg_np.training.blas import blas_threads
from midpg_np.tree import tree_items, tree_map

SIZES = {"vocab_sizes": (50,) * 16, "n_aware": 2, "n_scenarios": 10}
OPTIONS = {"pepnet": {"prior_fields": (2, 3, 4, 5)}}
N_ROWS = 512


class Counted(np.ndarray):
    """An array that counts the multiplications of the products it takes part in."""

    total = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Do as NumPy does, and count."""
        outs = options.pop("out", None)
        if outs is not None:
            options["out"] = tuple(map(_plain, outs))
        inputs = tuple(map(_plain, inputs))
        result = getattr(ufunc, method)(*inputs, **options)
        if ufunc is np.matmul and all(x.ndim > 1 for x in inputs):  # a vector sums, no product
            Counted.total += result.size * inputs[0].shape[-1]
        if ufunc is np.multiply and method == "__call__" and _is_outer(*inputs):
            Counted.total += result.size
        return _counted(result) if outs is None else outs[0]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """Do as NumPy does, and count."""
        out = options.get("out")
        args, options = _plain(args), {name: _plain(value) for name, value in options.items()}
        result = function(*args, **options)
        if function is np.einsum:
            Counted.total += _einsum_size(*args)
        return _counted(result) if out is None else out


def _plain(x: Any) -> Any:
    if isinstance(x, Counted):
        return x.view(np.ndarray)
    return type(x)(map(_plain, x)) if type(x) in (list, tuple) else x


def _counted(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.view(Counted)
    return tuple(map(_counted, x)) if isinstance(x, tuple) else x


def _is_outer(a: Any, b: Any) -> bool:
    if not all(isinstance(x, np.ndarray) and x.ndim == 2 for x in (a, b)):
        return False
    return (a.shape[1] == b.shape[0] == 1) or (a.shape[0] == b.shape[1] == 1)


def _einsum_size(subscripts: str, *operands: np.ndarray) -> int:
    sizes: dict[str, int] = {}
    for letters, operand in zip(subscripts.split("->")[0].split(","), operands, strict=True):
        own = letters.replace("...", "")
        lead = operand.ndim - len(own)
        sizes |= dict(zip(own, operand.shape[lead:], strict=True))
        sizes["..."] = math.prod(operand.shape[:lead])
    return math.prod(sizes.values())


@contextmanager
def counting() -> Iterator[None]:
    """Make every new array a counted one."""
    makers: dict[str, Callable[..., Any]] = {
        name: getattr(np, name) for name in ("empty", "zeros", "ones")
    }
    for name, make in makers.items():
        setattr(np, name, lambda *args, make=make, **options: _counted(make(*args, **options)))
    try:
        yield
    finally:
        for name, make in makers.items():
            setattr(np, name, make)


def counted_since(start: int) -> int:
    """Multiplications per row since the count stood at ``start``."""
    return round((Counted.total - start) / N_ROWS)


def kept_bytes(cache: Any, params: Any) -> int:
    """Bytes of all arrays that a cache refers to, each once, parameters left out."""
    found: dict[int, np.ndarray] = {}
    owned = {id(_owner(leaf)) for _, leaf in tree_items(params)}

    def visit(x: Any) -> None:
        if isinstance(x, np.ndarray):
            found[id(_owner(x))] = _owner(x)
        elif isinstance(x, dict):
            visit(tuple(x.values()))
        elif isinstance(x, (tuple, list)):
            for part in x:
                visit(part)
        elif hasattr(x, "__dict__"):
            visit(vars(x))

    visit(cache)
    return sum(array.nbytes for key, array in found.items() if key not in owned)


def _owner(x: np.ndarray) -> np.ndarray:
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def step_costs(name: str) -> tuple[int, int, int]:
    """Return multiplications forward and backward, and bytes kept, all per row."""
    rng = np.random.default_rng(0)
    model = make_model(name, **SIZES, **OPTIONS.get(name, {}))
    params = tree_map(_counted, model.init(rng))
    codes = rng.integers(0, 50, size=(N_ROWS, 16))
    batch = Batch(codes, np.arange(N_ROWS) % 10, rng.integers(0, 2, N_ROWS).astype(float))
    draws = model.draw(rng, batch)
    with counting(), blas_threads(1):
        start = Counted.total
        _, cache = model.forward(params, batch, draws=draws)
        forward, start = counted_since(start), Counted.total
        d_logit = _counted(np.full(N_ROWS, 1.0 / N_ROWS))
        model.backward(ModelOutput(d_logit, model.auxiliary_weights), cache)
        backward = counted_since(start)
    return forward, backward, round(kept_bytes(cache, params) / N_ROWS)


def main() -> None:
    """Print the table."""
    print("| model | multiply-adds forward | backward | kept, bytes per row in float64 |")
    print("|---|---:|---:|---:|")
    for name in MODELS:
        forward, backward, kept = step_costs(name)
        print(f"| `{name}` | {forward} | {backward} | {kept} |")


if __name__ == "__main__":
    main()
