"""Update of an embedding table against the number of its rows: gather, gradient and Adam.

Every step reads 4,096 ids (512 rows of 8 fields, width 16, float32).  Batches of all tables repeat
ids alike: they are drawn for a table of 10,000 rows, and in a larger one each of those rows stands
for as many rows as are needed, one of which is chosen anew for every batch.  All rows had a
gradient within the last 5,000 steps, so every row that is read has steps to make up for.

- *table*, *rows*, *replay*: the forms of ``midpg_np.training.optim.Adam``; one optimiser, the same
  weights to rounding.
- *PyTorch*: ``nn.Embedding`` with ``Adam(fused=True)``, the same optimiser; and, as another one
  that leaves rows without gradient where they are, ``sparse=True`` with ``SparseAdam``.

Milliseconds of processor time, one thread; the forms take turns in one process, a few steps each.
The last table is a whole training step of MI-DPG in the rows form: the shortest one (r, 1/8) and a
long one (rc, 1/2).

    python benchmarks/embedding_update.py [--max-rows 10000000] [--rounds 12]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from midpg_np.batch import Batch
from midpg_np.kernels import compiled_loops
from midpg_np.layers.embedding import Embedding
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import make_model
from midpg_np.training.optim import Adam, AdamState
from midpg_np.training.step import rows_read, training_step
from midpg_np.training.tiles import Tiles
from midpg_np.tree import Tree, tree_astype

N_BATCH, N_FIELDS, WIDTH, SMALLEST = 512, 8, 16, 10_000
N_PAST = 5_000  # steps taken before the first one that is timed
Steps = Callable[[np.ndarray], None]  # one step on ids (B, F)


class Drawing:
    """Batches of ids that repeat alike in tables of any size."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        share = 1.0 / (np.arange(SMALLEST // N_FIELDS) + 10.0)
        self.cumulative = np.cumsum(share / share.sum())

    def batch(self, n_rows: int) -> np.ndarray:
        """Return ids (B, F); field f reads the f-th part of the table."""
        per_field = SMALLEST // N_FIELDS
        codes = np.searchsorted(self.cumulative, self.rng.random((N_BATCH, N_FIELDS)))
        codes = np.minimum(codes, per_field - 1) + per_field * np.arange(N_FIELDS)
        factor = n_rows // SMALLEST
        chosen = self.rng.integers(0, factor, SMALLEST)
        return codes * factor + chosen[codes]


def give_a_past(state: AdamState, seed: int) -> None:
    """Let every row have had its last gradient at some step before the present one."""
    rng = np.random.default_rng(seed)
    state.step = N_PAST
    for moments in state.tables.values():
        n_rows = len(moments.m)
        some = rng.normal(size=(SMALLEST, moments.m.shape[1])).astype(np.float32)
        for start in range(0, n_rows, SMALLEST):
            part = slice(start, min(start + SMALLEST, n_rows))
            moments.m[part] = 1e-4 * some[: part.stop - start]
            moments.v[part] = 1e-7 * some[: part.stop - start] ** 2
        if moments.last is not None:
            moments.last[:] = rng.integers(1, N_PAST, n_rows)


def ours(n_rows: int, table_mode: str) -> tuple[Steps, Callable[[], None]]:
    """Return a step of the package, and the settling of all rows."""
    layer, adam = Embedding((n_rows,), WIDTH), Adam(table_mode=table_mode)
    params: Tree = {"e": {"table": np.zeros((n_rows, WIDTH), np.float32)}}
    params["e"]["table"] += np.float32(0.01)
    params = adam.laid_out(params)  # as fit does
    state = adam.init(params)
    give_a_past(state, 1)
    gradient = np.random.default_rng(2).normal(size=(N_BATCH, N_FIELDS * WIDTH)) / N_BATCH
    gradient = gradient.astype(np.float32)

    def step(ids: np.ndarray) -> None:
        adam.prepare(params, state, {"e.table": ids})
        _, cache = layer.forward(params["e"], ids)
        adam.update(params, {"e": layer.backward(gradient, cache)}, state)

    return step, lambda: adam.settle(params, state)


def theirs(n_rows: int, is_sparse: bool) -> Steps:
    """Return a step of PyTorch."""
    import torch

    table = torch.nn.Embedding(n_rows, WIDTH, sparse=is_sparse)
    optimiser = (
        torch.optim.SparseAdam(list(table.parameters()))
        if is_sparse
        else torch.optim.Adam(table.parameters(), fused=True)
    )
    gradient = torch.randn(N_BATCH, N_FIELDS, WIDTH) / N_BATCH

    def step(ids: np.ndarray) -> None:
        optimiser.zero_grad(set_to_none=True)
        table(torch.from_numpy(ids)).backward(gradient)
        optimiser.step()

    return step


def whole_step(n_rows: int, variant: str, divisor: int) -> Steps:
    """Return a whole training step of MI-DPG, rows form."""
    rng = np.random.default_rng(3)
    vocab_sizes = (n_rows // N_FIELDS,) * N_FIELDS
    sizes = {"dim_embedding": WIDTH, "row_divisor": divisor, "col_divisor": divisor}
    sizes |= {"n_aware": 2, "n_scenarios": 10, "hidden": (128, 64, 32)}
    model = make_model("midpg", vocab_sizes=vocab_sizes, variant=variant, **sizes)
    adam = Adam(table_mode="rows")
    params = adam.laid_out(tree_astype(model.init(rng), np.float32))  # as fit does
    state = adam.init(params)
    give_a_past(state, 4)
    scenario = np.minimum(rng.geometric(0.3, N_BATCH) - 1, 9)
    label = (rng.random(N_BATCH) < 0.1).astype(np.float32)
    offsets = np.asarray(model.embedding.offsets)
    loops, tiles = compiled_loops(), Tiles()  # as fit does

    def step(ids: np.ndarray) -> None:
        batch = Batch(ids - offsets, scenario, label)
        draws = model.draw(rng, batch)
        with loops:
            adam.prepare(params, state, rows_read(model, batch))
            loss = CROSS_ENTROPIES["full"]
            result = training_step(model, loss, params, batch, draws, tiles=tiles)
            adam.update(params, result.grads, state)

    return step


def in_turns(
    steps: dict[tuple[int, str], Steps], n_rounds: int, n_each: int = 8
) -> dict[tuple[int, str], list[float]]:
    """Return milliseconds per step of each, the first two of every turn left out."""
    drawing, times = Drawing(0), {key: [] for key in steps}
    for _ in range(n_rounds):
        for (n_rows, name), step in steps.items():
            is_slow = n_rows > 300_000 and name in ("table", "PyTorch, dense")
            for i in range(3 if is_slow else n_each):
                ids = drawing.batch(n_rows)
                started = time.process_time()
                step(ids)
                if i >= (1 if is_slow else 2):
                    times[n_rows, name].append(1e3 * (time.process_time() - started))
    return times


def show(times: dict[tuple[int, str], list[float]]) -> None:
    """Print one row per size of table, one column per form: median (10 to 90 %)."""
    sizes = sorted({n_rows for n_rows, _ in times})
    names = list(dict.fromkeys(name for _, name in times))
    print("| rows | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for n_rows in sizes:
        cells = []
        for name in names:
            low, middle, high = np.percentile(times[n_rows, name], [10, 50, 90])
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {n_rows:,} | " + " | ".join(cells) + " |")


def main() -> None:
    """Time and print both tables, and the time of settling."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    sizes = [n for n in (10_000, 100_000, 1_000_000, 10_000_000) if n <= options.max_rows]
    try:
        import torch

        torch.set_num_threads(1)
        has_torch = True
    except ImportError:
        has_torch = False
    with threadpool_limits(limits=1, user_api="blas"):
        for n_rows in sizes:  # one size after the other: all at once need 20 GB
            steps: dict[tuple[int, str], Steps] = {}
            for mode in ("rows", "replay", "table"):
                steps[n_rows, mode], settle = ours(n_rows, mode)
                if mode == "rows":
                    settle_rows = settle
            if has_torch:
                steps[n_rows, "PyTorch, dense"] = theirs(n_rows, is_sparse=False)
                steps[n_rows, "PyTorch, SparseAdam"] = theirs(n_rows, is_sparse=True)
            show(in_turns(steps, options.rounds))
            started = time.process_time()
            settle_rows()
            print(f"settling the rows form: {1e3 * (time.process_time() - started):.0f} ms\n")
        del steps, settle, settle_rows
        both = [sizes[0], sizes[-1]]
        print("gather, gradient and Adam, rows form, in turns")
        show(in_turns({(n, "rows"): ours(n, "rows")[0] for n in both}, options.rounds))
        print("\nwhole step of MI-DPG, rows form, in turns")
        for variant, divisor in (("r", 8), ("rc", 2)):
            name = f"{variant} 1/{divisor}"
            steps = {(n, name): whole_step(n, variant, divisor) for n in both}
            show(in_turns(steps, options.rounds))


if __name__ == "__main__":
    main()
