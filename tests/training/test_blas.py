"""Who may use the threads of a training: tiles, or BLAS."""

import pytest
from threadpoolctl import threadpool_info
from toy import toy_dataset, toy_midpg, toy_model

from midpg_np.training import trainer
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit


def threads_of_blas():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize(
    ("model", "threads", "expected"),
    [(toy_model(), 1, 1), (toy_model(), 2, 2), (toy_midpg(), 1, 1), (toy_midpg(), 2, 1)],
    ids=["whole batches", "whole batches, 2", "tiles", "tiles, 2"],
)
def test_threads_of_blas_during_a_step(model, threads, expected, monkeypatch):
    step, found = trainer.training_step, []

    def watched(*args):
        found.append(threads_of_blas())
        return step(*args)

    monkeypatch.setattr(trainer, "training_step", watched)
    before = threads_of_blas()
    fit(model, toy_dataset(60), None, TrainConfig(epochs=1, batch_size=30, threads=threads))
    assert found == [{expected}] * 2
    assert threads_of_blas() == before
