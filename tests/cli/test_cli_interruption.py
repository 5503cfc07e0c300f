"""Killing or interrupting ``midpg train`` anywhere and resuming gives the bits of one run."""

import signal
import time

import pytest
from midpg_command import midpg_process, start

# 40 checkpoints for each of the two models, so that a kill lands within the training.
COMMAND = (
    *("train", "--data-option", "n_rows=3000", "--epochs", 6, "--batch-size", 64),
    *("--set", "checkpoint_every=5", "--set", "patience=null", "--no-gradcheck"),
)


def stop_after(n_saves, checkpoint, how, *arguments):
    """Start a training, send a signal once its checkpoint was saved so often; its exit code."""
    process = start(*arguments)
    seen, deadline = set(), time.monotonic() + 120
    while len(seen) < n_saves and process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.001)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, err


@pytest.mark.slow
def test_kill_9_in_baseline_and_model_then_resume(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert midpg_process(*COMMAND, "--out", straight).code == 0
    for n_saves, part in ((4, "baseline"), (4, ""), (9, "")):
        checkpoint = killed / part / "checkpoint.safetensors"
        resume = ["--resume"] if killed.exists() else []
        code, _ = stop_after(
            n_saves, checkpoint, signal.SIGKILL, *COMMAND, "--out", killed, *resume
        )
        assert code == -signal.SIGKILL
        assert checkpoint.exists() and not (killed / "metrics.json").exists()
    refused = midpg_process(*COMMAND, "--out", killed)
    assert (
        refused.code == 2 and "holds an interrupted run; go on with it by --resume" in refused.err
    )
    finished = midpg_process(*COMMAND, "--out", killed, "--resume")
    assert finished.code == 0, finished.err
    for model in ("model.safetensors", "baseline/model.safetensors"):
        assert (killed / model).read_bytes() == (straight / model).read_bytes()
    assert not list(killed.rglob("checkpoint.safetensors")) and not list(killed.rglob(".*"))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    folder = tmp_path / "x"
    checkpoint = folder / "checkpoint.safetensors"
    command = (*COMMAND, "--baseline", "none", "--out", folder)
    code, err = stop_after(3, checkpoint, signal.SIGINT, *command)
    assert code == 130
    assert err.splitlines()[-1] == (
        f"interrupted; the same command with --out {folder} --resume goes on."
    )
    assert midpg_process(*command, "--resume").code == 0
