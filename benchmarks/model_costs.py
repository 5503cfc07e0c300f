"""What every model costs: parameters, multiplications, and measured time per row.

Prints the table of docs/models.md.  The models have the widths of section 12 of
docs/derivations.  Times are processor time on one thread, all models in turn within one run, so
that the ratios hold on a noisy machine: "step" is forward, loss, backward and Adam on 512 rows in
float32, "predict" is a prediction of 4096 rows.

    python benchmarks/model_costs.py
"""

import platform
import time

import numpy as np
from frameworks.ours import OurStep

from midpg_np.batch import Batch
from midpg_np.models import MODELS, make_model
from midpg_np.training.blas import blas_threads
from midpg_np.training.evaluate import serving

SIZES = {"vocab_sizes": (1000,) * 16, "n_aware": 2, "n_scenarios": 10}
OPTIONS = {"pepnet": {"prior_fields": (2, 3, 4, 5)}}
N_ROUNDS, N_WARM_UP = 40, 5


def draw_batch(rng: np.random.Generator, n_rows: int) -> Batch:
    """Draw rows of all scenarios, in unequal numbers."""
    codes = rng.integers(0, 1000, size=(n_rows, 16))
    scenario = np.minimum(rng.geometric(0.3, size=n_rows) - 1, 9)
    return Batch(codes, scenario, (rng.random(n_rows) < 0.2).astype(np.float32))


class Timed:
    """One model with its optimiser, and the times of its steps and predictions."""

    def __init__(self, name: str) -> None:
        self.model = make_model(name, **SIZES, **OPTIONS.get(name, {}))
        self.ours = OurStep(self.model, self.model.init(np.random.default_rng(0)))
        self.steps: list[float] = []
        self.predictions: list[float] = []

    def step(self, batch: Batch, rng: np.random.Generator) -> None:
        """Time one training step."""
        started = time.process_time()
        self.ours.step(self.ours.stage(batch, self.model.draw(rng, batch)))
        self.steps.append(time.process_time() - started)

    def predict(self, batch: Batch) -> None:
        """Time one prediction."""
        model, params = serving(self.model, self.ours.params)
        started = time.process_time()
        model.forward(params, batch)
        self.predictions.append(time.process_time() - started)


def median(times: list[float]) -> float:
    """Median without the first rounds."""
    return float(np.median(times[N_WARM_UP:]))


def main() -> None:
    """Time all models in turn."""
    rng = np.random.default_rng(1)
    timed = {name: Timed(name) for name in MODELS}
    for _ in range(N_ROUNDS):
        training, prediction = draw_batch(rng, 512), draw_batch(rng, 4096)
        for model in timed.values():
            model.step(training, rng)
            model.predict(prediction)
    dnn = timed["dnn"]
    print(f"{platform.processor() or platform.machine()}, NumPy {np.__version__}, one thread")
    print(
        "| model | parameters | while training | state | multiply-adds per row "
        "| step, µs per row | relative | predict, µs per row | relative |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, model in timed.items():
        count = model.model.count_params()
        step, predict = median(model.steps), median(model.predictions)
        cells = [
            f"`{name}`",
            f"{count.serving:,}",
            f"{count.serving + count.training_only:,}",
            f"{count.state:,}",
            f"{count.multiply_adds:,}",
            f"{1e6 * step / 512:.1f}",
            f"{step / median(dnn.steps):.1f}",
            f"{1e6 * predict / 4096:.2f}",
            f"{predict / median(dnn.predictions):.1f}",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    with blas_threads(1):
        main()
