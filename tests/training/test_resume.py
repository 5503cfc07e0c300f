"""Interrupting a run, by any means and anywhere, changes no bit of its result."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from toy import toy_dataset, toy_midpg, toy_model

from midpg_np.training.checkpoint import save_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit
from midpg_np.tree import tree_items

CONFIG = TrainConfig(epochs=4, batch_size=64, lr=5e-3, checkpoint_every=3, valid_every=7)


class InterruptionError(Exception):
    pass


def same_bits(a, b):
    leaves = dict(tree_items(b))
    return all(leaf.tobytes() == leaves[path].tobytes() for path, leaf in tree_items(a))


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


@cache
def straight_run(model, config):
    """Result of a run that nothing interrupts."""
    return fit(model, toy_dataset(600), toy_dataset(300, 1), config)


@pytest.mark.parametrize("stop_at", [1, 10, 12, 14])
@pytest.mark.parametrize("table_mode", ["table", "rows", "replay"])
@pytest.mark.parametrize("model", [toy_model(), toy_midpg()], ids=["dnn", "midpg"])
def test_exception_then_resume_gives_the_same_bits(tmp_path, model, table_mode, stop_at):
    config = replace(CONFIG, table_mode=table_mode)
    train, valid = toy_dataset(600), toy_dataset(300, 1)

    def interrupt(progress):
        if progress.step == stop_at:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fit(model, train, valid, config, run_dir=tmp_path, progress=interrupt)
    resumed = fit(model, train, valid, config, run_dir=tmp_path, resume=True)
    straight = straight_run(model, config)
    assert same_bits(resumed.params, straight.params)
    assert without_seconds(resumed.history) == without_seconds(straight.history)
    assert resumed.best_step == straight.best_step


CHILD = """
import sys
from pathlib import Path
from time import sleep
sys.path.insert(0, {tests!r})
from test_resume import CONFIG
from toy import toy_dataset, toy_midpg
from midpg_np.training.checkpoint import save_model
from midpg_np.training.loop import fit

folder = Path(sys.argv[1])

def slowly(progress):
    (folder / "step").write_text(str(progress.step))
    sleep(0.01)

result = fit(toy_midpg(), toy_dataset(600), toy_dataset(300, 1), CONFIG,
             run_dir=folder, resume=True, progress=slowly)
save_model(folder / "model.safetensors", toy_midpg(), result.params)
"""


@pytest.mark.slow
def test_kill_9_several_times_then_resume_gives_the_same_file(tmp_path):
    code = CHILD.format(tests=str(Path(__file__).parent))
    n_kills = 0
    for target in (5, 11, 17, 10_000):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        while process.poll() is None:
            text = (tmp_path / "step").read_text() if (tmp_path / "step").exists() else ""
            if text and int(text) >= target:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                n_kills += 1
                (tmp_path / "step").unlink(missing_ok=True)
                break
            time.sleep(0.002)
    assert n_kills == 3
    assert process.returncode == 0
    straight = straight_run(toy_midpg(), CONFIG)
    save_model(tmp_path / "straight.safetensors", toy_midpg(), straight.params)
    killed_bits = (tmp_path / "model.safetensors").read_bytes()
    assert killed_bits == (tmp_path / "straight.safetensors").read_bytes()


def test_two_runs_with_one_seed_have_the_same_bits_and_another_seed_has_not():
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    config = TrainConfig(epochs=2, batch_size=32)
    first, second = (fit(toy_model(), train, valid, config) for _ in range(2))
    assert same_bits(first.params, second.params)
    assert without_seconds(first.history) == without_seconds(second.history)
    other = fit(toy_model(), train, valid, TrainConfig(epochs=2, batch_size=32, seed=1))
    assert not same_bits(first.params, other.params)


def test_more_epochs_can_be_added_to_a_finished_run(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    short = TrainConfig(epochs=1, batch_size=32, patience=None)
    long = TrainConfig(epochs=3, batch_size=32, patience=None)
    fit(toy_model(), train, valid, short, run_dir=tmp_path)
    resumed = fit(toy_model(), train, valid, long, run_dir=tmp_path, resume=True)
    assert same_bits(resumed.params, fit(toy_model(), train, valid, long).params)


def test_resume_refuses_other_settings_data_and_models(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    config = TrainConfig(epochs=1, batch_size=32)
    fit(toy_model(), train, valid, config, run_dir=tmp_path)
    other = TrainConfig(epochs=1, batch_size=32, lr=0.1)
    with pytest.raises(ValueError, match=r"lr = 0\.001, this run has lr = 0\.1"):
        fit(toy_model(), train, valid, other, run_dir=tmp_path, resume=True)
    other = TrainConfig(epochs=1, batch_size=32, loss_reduce="scenario_mean")
    with pytest.raises(ValueError, match="loss_reduce = mean, this run has loss_reduce = scen"):
        fit(toy_model(), train, valid, other, run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="training rows"):
        fit(toy_model(), toy_dataset(301), valid, config, run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="model = DNN"):
        fit(toy_model(activation="tanh"), train, valid, config, run_dir=tmp_path, resume=True)


def test_a_checkpoint_is_not_overwritten_unasked(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    config = TrainConfig(epochs=1, batch_size=32)
    fit(toy_model(), train, valid, config, run_dir=tmp_path)
    with pytest.raises(FileExistsError, match="an earlier run left this checkpoint"):
        fit(toy_model(), train, valid, config, run_dir=tmp_path)


def test_saving_a_checkpoint_does_not_change_the_run(tmp_path):
    train, valid = toy_dataset(300), toy_dataset(200, 1)
    options = {"epochs": 2, "batch_size": 32, "table_mode": "rows"}
    often = TrainConfig(**options, checkpoint_every=1)
    with_checkpoints = fit(toy_model(), train, valid, often, run_dir=tmp_path)
    without = fit(toy_model(), train, valid, TrainConfig(**options))
    assert same_bits(with_checkpoints.params, without.params)
    assert np.isfinite(without.params["embedding"]["table"]).all()
