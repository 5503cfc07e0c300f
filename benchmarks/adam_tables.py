"""Adam on a large embedding table: whole table against deferred rows.

Prints milliseconds of processor time per step (median, and range), both forms in turn within one
run, and the seconds that settling all waiting rows takes before a validation.

    python benchmarks/adam_tables.py
"""

import time

import numpy as np

from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.optim import Adam
from midpg_np.training.trainer import one_blas_thread

N_ROWS, WIDTH, IDS_PER_STEP = 1_220_000, 16, 4_096
N_STEPS, N_WARM_UP = 400, 40


def main() -> None:
    """Time both forms on the same gradients."""
    rng = np.random.default_rng(0)
    # Half of the reads go to few rows, so about half of the ids of a step are distinct.
    share = 1.0 / (np.arange(N_ROWS) + 10.0)
    cumulative = np.cumsum(share / share.sum())
    forms = {mode: Adam(table_mode=mode) for mode in ("table", "rows")}
    params = {mode: {"table": np.zeros((N_ROWS, WIDTH), np.float32)} for mode in forms}
    states = {mode: adam.init(params[mode]) for mode, adam in forms.items()}
    times: dict[str, list[float]] = {mode: [] for mode in forms}
    n_distinct = []
    for _ in range(N_STEPS):
        ids = np.unique(np.searchsorted(cumulative, rng.random(IDS_PER_STEP)))
        n_distinct.append(len(ids))
        rows = rng.normal(size=(len(ids), WIDTH)).astype(np.float32)
        grads = {"table": RowGradient(ids, rows, N_ROWS)}
        for mode, adam in forms.items():
            started = time.process_time()
            adam.prepare(params[mode], states[mode], {"table": ids})
            adam.update(params[mode], grads, states[mode])
            times[mode].append(1e3 * (time.process_time() - started))
    started = time.process_time()
    forms["rows"].settle(params["rows"], states["rows"])
    settling = time.process_time() - started
    waiting = int((states["rows"].tables["table"].last >= 0).sum())
    difference = np.abs(params["rows"]["table"] - params["table"]["table"]).max()

    print(f"{N_ROWS:,} x {WIDTH} float32, {np.median(n_distinct):,.0f} distinct rows per step")
    print("| form | ms per step, median | 10 % to 90 % |\n|---|---|---|")
    for mode, values in times.items():
        low, middle, high = np.percentile(values[N_WARM_UP:], [10, 50, 90])
        print(f"| {mode} | {middle:.1f} | {low:.1f} to {high:.1f} |")
    print(f"settling {waiting:,} rows after {N_STEPS} steps: {settling:.1f} s")
    print(f"largest difference of a weight: {difference:.0e}")


if __name__ == "__main__":
    with one_blas_thread():
        main()
