"""The runner: each job once, here or on a Dask cluster, whatever is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_jobs import bad_job, deadly_job, tiny_job, without_time

from midpg_np.data import MissingExtraError
from midpg_np.experiments import runner
from midpg_np.experiments.job_store import JobStore
from midpg_np.experiments.runner import run_jobs

HERE = Path(__file__).parent
JOBS = [tiny_job(model, seed) for model in ("dnn", "dpg") for seed in (0, 1)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and results of four jobs that ran in this process."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run_jobs(JOBS, folder, workers=1)


@pytest.fixture
def counted(monkeypatch):
    """Keys of the jobs that are computed in this process."""
    keys = []
    attempt = runner.attempt_job
    monkeypatch.setattr(runner, "attempt_job", lambda job: (keys.append(job.key), attempt(job))[1])
    return keys


def test_results_come_in_the_order_of_the_jobs(finished):
    _, results = finished
    assert [result["key"] for result in results] == [job.key for job in JOBS]
    assert [result["job"] for result in results] == [job.as_dict() for job in JOBS]


def test_a_second_call_computes_nothing(finished, counted):
    folder, results = finished
    told = []
    again = run_jobs(JOBS[::-1], folder, workers=1, on_done=lambda *done: told.append(done))
    assert again == results[::-1]
    assert told == list(zip(JOBS[::-1], results[::-1], strict=True))
    assert counted == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "\udcff",
        lambda text: text.replace('"version": 1,', '"version": 2,'),
        lambda text: text.replace('"midpg_np.job"', '"another"'),
        lambda text: text.replace(JOBS[1].key, JOBS[0].key),
    ],
    ids=["truncated", "empty", "no object", "no text", "later version", "foreign", "another job's"],
)
def test_a_damaged_result_is_computed_again(damage, finished, tmp_path, counted):
    _, results = finished
    store = JobStore(tmp_path / "jobs")
    for result in results:
        store.save(result["key"], result)
    file = store.path(JOBS[1].key)
    file.write_text(damage(file.read_text()), errors="surrogateescape")
    assert without_time(run_jobs(JOBS, tmp_path, workers=1)) == without_time(results)
    assert counted == [JOBS[1].key]
    assert store.load(JOBS[1].key, JOBS[1]) is not None


def test_a_failing_job_is_reported_and_stops_no_other(finished, tmp_path, capsys, counted):
    _, results = finished
    jobs = [bad_job(), *JOBS[:2], bad_job()]
    first, *others, last = run_jobs(jobs, tmp_path, workers=1)
    assert without_time(others) == without_time(results[:2])
    assert first == last and "'hiden'" in first["error"]
    assert first["command"] == bad_job().command
    told = capsys.readouterr()
    assert "1 of 3 jobs failed" in told.err and bad_job().command in told.err
    assert told.out == ""
    run_jobs(jobs, tmp_path, workers=1)
    assert counted == [job.key for job in (bad_job(), *JOBS[:2], bad_job())]


def test_an_interrupted_call_keeps_what_had_finished(finished, tmp_path, counted):
    def interrupt(job, result):
        if job == JOBS[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(JOBS, tmp_path, workers=1, on_done=interrupt)
    assert without_time(run_jobs(JOBS, tmp_path, workers=1)) == without_time(finished[1])
    assert sorted(counted) == sorted(job.key for job in JOBS)


def test_results_of_other_source_code_are_pointed_out(finished, tmp_path, capsys):
    _, results = finished
    result = results[0] | {"versions": results[0]["versions"] | {"source": "older"}}
    JobStore(tmp_path / "jobs").save(result["key"], result)
    assert run_jobs(JOBS[:1], tmp_path, workers=1) == [result]
    told = capsys.readouterr().err
    assert "1 of 1 stored results" in told and str(tmp_path / "jobs") in told


def test_a_result_names_the_files_of_the_job_that_asks(finished, tmp_path):
    _, results = finished
    moved = tiny_job(path=tmp_path)  # the key is not looked at here
    store = JobStore(tmp_path / "jobs")
    store.save(results[0]["key"], results[0])
    assert store.load(results[0]["key"], moved)["job"]["path"] == str(tmp_path)


def test_a_store_that_cannot_be_written_stops_the_call(tmp_path):
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(OSError):
        run_jobs(JOBS[:1], tmp_path, workers=1)


def test_data_that_a_process_finds_changed_is_a_failure(tmp_path, monkeypatch):
    attempt = runner.attempt_job
    monkeypatch.setattr(runner, "attempt_job", lambda job: attempt(job) | {"key": "other"})
    (result,) = run_jobs(JOBS[:1], tmp_path, workers=1)
    assert "found other data" in result["error"]


def test_a_bar_shows_failures(tmp_path, capsys):
    run_jobs([bad_job(), *JOBS[:1]], tmp_path, workers=1, progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "1 failed" in shown


def test_the_number_of_workers_is_checked(tmp_path):
    with pytest.raises(ValueError, match="at least 1, or -1"):
        run_jobs(JOBS, tmp_path, workers=0)


def test_without_dask_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MissingExtraError, match="midpg_np\\[dask\\]"):
        run_jobs(JOBS, tmp_path, dask="tcp://127.0.0.1:1")


def children():
    """Process ids of this process's children that are alive, workers of joblib among them."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=1)
    lines = found.stdout.decode().splitlines()
    return [int(line.split()[0]) for line in lines if "loky" in line and "popen" in line]


@pytest.mark.slow
def test_processes_give_the_results_of_this_process(finished, tmp_path):
    results = run_jobs(JOBS, tmp_path, workers=2)
    assert without_time(results) == without_time(finished[1])


@pytest.mark.slow
def test_a_process_that_is_killed_costs_nothing_but_time(finished, tmp_path):
    def kill_once(job, result, killed=[]):  # noqa: B006
        if not killed:
            killed.append(children()[0])
            os.kill(killed[0], signal.SIGKILL)

    jobs = [*JOBS, *(tiny_job("midpg", seed) for seed in range(4))]
    results = run_jobs(jobs, tmp_path, workers=2, on_done=kill_once)
    assert not any(map(runner.is_failure, results))
    assert without_time(results[:4]) == without_time(finished[1])


@pytest.mark.slow
def test_a_job_that_kills_its_process_is_a_failure_of_its_own(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIVE", str(os.getpid()))
    results = run_jobs([JOBS[0], deadly_job(), *JOBS[1:]], tmp_path, workers=2)
    assert "out of memory" in results.pop(1)["error"]
    assert without_time(results) == without_time(finished[1])


# A Dask cluster


SWEEP = [tiny_job(model, seed) for model in ("dnn", "dpg", "midpg", "star") for seed in range(6)]
CLIENT = """
import json, sys
from midpg_np.experiments.jobs import Job
from midpg_np.experiments.runner import run_jobs
jobs, out, address = json.loads(sys.argv[1])
run_jobs(map(Job.from_dict, jobs), out, dask=address, on_done=lambda *_: print("done", flush=True))
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": f"{HERE}", "OPENBLAS_NUM_THREADS": "1"},
    )


@contextmanager
def cluster(folder):
    """Start a scheduler and two workers; yield its address and the three processes."""
    from dask.distributed import Client

    file = folder / "scheduler.json"
    where = ("--scheduler-file", str(file))
    local = ("--host", "127.0.0.1")
    processes = [start("scheduler", *where, *local, "--port", "0")]
    own = ("--nthreads", "1", "--no-nanny", "--death-timeout", "60")
    try:
        wait_until(file.exists)
        for _ in range(2):
            place = ("--local-directory", str(folder))
            processes.append(start("worker", *where, *local, *own, *place))
        address = json.loads(file.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, *processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_until(condition, seconds=60):
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop
        time.sleep(0.05)


@pytest.fixture(scope="module")
def locally(tmp_path_factory):
    """Return the results of the sweep on this machine."""
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    return run_jobs(SWEEP, tmp_path_factory.mktemp("locally"), workers=2)


@pytest.mark.slow
def test_a_cluster_gives_the_results_of_this_machine(locally, tmp_path, monkeypatch, capsys):
    """Also beside a job that fails."""
    with cluster(tmp_path) as (address, *_):
        results = run_jobs([*SWEEP[:12], bad_job(), *SWEEP[12:]], tmp_path, dask=address)
    assert "'hiden'" in results.pop(12)["error"]
    assert without_time(results) == without_time(locally)
    assert bad_job().command in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_is_killed_half_way(locally, tmp_path):
    """It is stopped some time before, so that it surely has jobs in hand when it is killed."""
    with cluster(tmp_path) as (address, _, first, second):
        signals = {6: signal.SIGSTOP, 12: signal.SIGKILL}
        done = []

        def kill_half_way(job, result):
            done.append(job)
            if len(done) in signals:
                first.send_signal(signals[len(done)])

        results = run_jobs(SWEEP, tmp_path, dask=address, on_done=kill_half_way)
        assert first.wait(10) == -signal.SIGKILL
        assert second.poll() is None
    assert without_time(results) == without_time(locally)


@pytest.mark.slow
def test_the_client_is_killed_and_started_again(locally, tmp_path):
    with cluster(tmp_path) as (address, *_):
        arguments = json.dumps([[job.as_dict() for job in SWEEP], str(tmp_path), address])
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, arguments], stdout=subprocess.PIPE, text=True
        )
        for _ in range(8):
            assert client.stdout.readline() == "done\n"
        client.kill()
        client.communicate()
        stored = {f.name: f.read_bytes() for f in (tmp_path / "jobs").glob("*.json")}
        assert 8 <= len(stored) < len(SWEEP)
        results = run_jobs(SWEEP, tmp_path, dask=address)
    for name, content in stored.items():
        assert (tmp_path / "jobs" / name).read_bytes() == content
    assert without_time(results) == without_time(locally)


@pytest.mark.slow
def test_a_job_that_kills_its_worker_is_a_failure(locally, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIVE", str(os.getpid()))
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    with cluster(tmp_path) as (address, *_):
        (result,) = run_jobs([deadly_job()], tmp_path, dask=address)
    assert "out of memory" in result["error"]


@pytest.mark.slow
def test_a_scheduler_that_ends_is_an_error_and_what_had_arrived_is_stored(locally, tmp_path):
    with cluster(tmp_path) as (address, scheduler, *_):
        done = []

        def end_it(job, result):
            done.append(job)
            if len(done) == 4:
                scheduler.kill()

        with pytest.raises(ConnectionError, match="goes on from there"):
            run_jobs(SWEEP, tmp_path, dask=address, on_done=end_it)
    results = run_jobs(SWEEP, tmp_path, workers=2)
    assert len(done) < len(SWEEP)
    assert without_time(results) == without_time(locally)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "foo://x:1", ""])
def test_an_address_without_a_scheduler(address, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    monkeypatch.setattr(runner, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(ConnectionError, match="start one with 'dask scheduler'"):
        run_jobs(JOBS[:1], tmp_path, dask=address)
