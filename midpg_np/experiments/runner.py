"""Run many jobs, on the cores of this machine or on a Dask cluster, each of them once.

Every result is stored as it arrives, so whatever is interrupted - a job, a worker process, the
command itself - the same call computes what is missing and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from midpg_np.data import DATASETS, MissingExtraError
from midpg_np.experiments.job_store import JobStore
from midpg_np.experiments.jobs import Job, attempt_job, failure, job_versions

SECONDS_TO_CONNECT = 10
_DIED = "the process that ran it died each time; did it run out of memory?"


def run_jobs(
    jobs: Iterable[Job],
    out: str | Path,
    *,
    workers: int = -1,
    dask: str | None = None,
    on_done: Callable[[Job, dict[str, Any]], None] | None = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Run the jobs that have no stored result; return the results of all, in their order.

    Parameters
    ----------
    jobs : iterable of Job
        Equal ones are computed once.
    out : path
        Folder; the results lie below it, in ``jobs/<key>.json``.
    workers : int
        Processes on this machine; -1: one per core, 1: this process.
    dask : str, optional
        Address of the scheduler of a Dask cluster, which then does the work instead.
    on_done : callable, optional
        Called with every job and its result, in the order in which they finish; stored ones first.
    progress : bool, optional
        Show a bar with the time left; if not given, where stderr is a terminal.

    Returns
    -------
    list of dict
        As ``run_job`` returns them.  For a job that failed: ``job``, ``command``, ``error`` and
        ``traceback``; such jobs are also listed on stderr at the end, and are not stored.

    Raises
    ------
    ValueError
        If ``workers`` is neither -1 nor at least 1.
    MissingExtraError
        If ``dask`` is given and Dask is not installed.
    ConnectionError
        If the cluster cannot be reached, or is lost; what had arrived is stored.
    OSError
        If a result cannot be stored.
    """
    if workers != -1 and workers < 1:
        raise ValueError(f"workers must be at least 1, or -1 for all cores; got {workers}.")
    asked = [(job.key, job) for job in jobs]
    distinct, store = dict(asked), JobStore(Path(out) / "jobs")
    results: dict[str, dict[str, Any]] = {}

    def finish(key: str, result: dict[str, Any]) -> None:
        results[key] = result
        for job in (job for other, job in asked if other == key):
            if on_done is not None:
                on_done(job, result)

    for key, result in _stored(distinct, store).items():
        finish(key, result)
    missing = {key: job for key, job in distinct.items() if key not in results}
    with _bar(progress, len(distinct), len(results)) as tell:
        for key, result in _computed(missing, store, workers, dask):
            finish(key, result)
            tell(result)
    failed = [result for result in results.values() if is_failure(result)]
    if failed:
        _say(describe_failures(failed, len(results)))
    return [results[key] for key, _ in asked]


def is_failure(result: Mapping[str, Any]) -> bool:
    """Whether a result of ``run_jobs`` is that of a job that failed."""
    return "error" in result


def describe_failures(failed: list[dict[str, Any]], n_jobs: int) -> str:
    """Return the text on failed jobs, of so many in all, with the command of each."""
    lines = [f"{len(failed)} of {n_jobs} jobs failed; the same command tries them again:"]
    for result in failed:
        lines += [f"  {result['error']}", f"    {result['command']}"]
    return "\n".join(lines)


def _stored(jobs: dict[str, Job], store: JobStore) -> dict[str, dict[str, Any]]:
    loaded = {key: store.load(key, job) for key, job in jobs.items()}
    found = {key: result for key, result in loaded.items() if result is not None}
    source = job_versions()["source"]
    n_other = sum(result["versions"]["source"] != source for result in found.values())
    if n_other:
        _say(
            f"{n_other} of {len(found)} stored results come from another source code of midpg_np "
            f"than this; to compute all anew, remove {store.folder}."
        )
    return found


def _computed(
    jobs: dict[str, Job], store: JobStore, workers: int, dask: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run jobs; yield key and result of each as it finishes, stored by then unless it failed."""
    if not jobs:
        return
    answers = _in_processes(jobs, workers) if dask is None else _on_cluster(jobs, dask)
    for key, answer in answers:
        result = _checked(answer, key, jobs[key])
        if not is_failure(result):
            store.save(key, result)
        yield key, result


def _checked(result: dict[str, Any], key: str, job: Job) -> dict[str, Any]:
    """Return the result of a job, or its failure if the process that ran it saw other data."""
    if is_failure(result):
        return failure(job, result["error"], result["traceback"])
    if result["key"] == key:
        return result | {"job": job.as_dict()}
    own, other = (v["midpg_np"] for v in (job_versions(), result["versions"]))
    return failure(
        job,
        f"the process that ran it (midpg_np {other}, here {own}) found other data at "
        f"{job.path or job.data} than there is here; all machines need the same files and version.",
    )


def _in_processes(jobs: dict[str, Job], workers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run jobs in processes of this machine, each with one thread of BLAS; yield as they finish."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    left = dict(jobs)
    while left:
        started: list[str] = []
        try:
            for key, result in _parallel(left, workers, started):
                del left[key]
                yield key, result
        except BrokenProcessPool:
            # One of these ended its process, and the others with it; alone it will show.
            for key in [key for key in started if key in left]:
                yield key, _alone(key, left.pop(key))


def _parallel(
    jobs: dict[str, Job], workers: int, started: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    from joblib import Parallel, delayed, parallel_config

    def tasks() -> Iterator[Any]:
        for key, job in list(jobs.items()):
            started.append(key)
            yield delayed(_attempt)(key, job)

    with parallel_config(backend="loky", inner_max_num_threads=1):
        # Dispatched one by one, so that ``started`` names those that run.
        pool = Parallel(workers, return_as="generator_unordered", pre_dispatch="n_jobs")
        yield from pool(tasks())


def _alone(key: str, job: Job) -> dict[str, Any]:
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        # Two processes, of which one is idle: with one, joblib would run the job in this process.
        return dict(_parallel({key: job}, 2, []))[key]
    except BrokenProcessPool:
        return failure(job, _DIED)


def _attempt(key: str, job: Job) -> tuple[str, dict[str, Any]]:
    return key, attempt_job(job)


def _on_cluster(jobs: dict[str, Job], address: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run jobs on a Dask cluster; yield as they finish.

    The scheduler gives the jobs of a worker that dies to another one.  A job has the same name for
    every client, so two commands that want the same job at the same time share it.
    """
    try:
        from dask.distributed import as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise MissingExtraError(
            "--dask needs Dask; install the extra 'dask' (pip install 'midpg_np[dask]')."
        ) from error
    with _client(address) as client:
        if not client.nthreads():
            _say(f"the cluster at {address} has no workers yet; waiting for the first.")
        keys = {}
        for key, job in jobs.items():
            future = client.submit(attempt_job, _with_full_paths(job), key=f"midpg-{key}")
            keys[future] = key
        for future in as_completed(list(keys), loop=client.loop):
            key = keys.pop(future)
            if future.status in ("cancelled", "lost"):
                raise ConnectionError(
                    f"the connection to the Dask scheduler at {address} was lost; the results that "
                    "had arrived are stored, and the same command goes on from there."
                )
            try:
                yield key, future.result()
            except KilledWorker:
                yield key, failure(jobs[key], _DIED)
            except Exception as error:  # whatever keeps a worker from running this job
                yield key, failure(jobs[key], f"{type(error).__name__}: {error}")


def _client(address: str) -> AbstractContextManager[Any]:
    from dask.distributed import Client

    try:
        return Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address!r} ({error}); start one with 'dask scheduler' "
            "and give the address that it prints, such as tcp://HOST:8786."
        ) from error


def _with_full_paths(job: Job) -> Job:
    """Return the job for a worker, which has a working directory of its own."""

    def full(path: str | None) -> str | None:
        return str(Path(path).resolve()) if path is not None and Path(path).exists() else path

    data = job.data if job.data in DATASETS else full(job.data) or job.data
    return replace(job, data=data, path=full(job.path), schema=full(job.schema))


@contextmanager
def _bar(
    wanted: bool | None, n_jobs: int, n_stored: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show on stderr how many jobs have finished and the time left; yield what is told results."""
    if wanted is None:
        wanted = sys.stderr.isatty() and find_spec("rich") is not None
    if not wanted:
        yield lambda result: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"),
        *columns,
        TextColumn("{task.fields[failed]}"),
        console=Console(stderr=True),
        # Results that are printed to a file must get there; those on a terminal, above the bar.
        redirect_stdout=sys.stdout.isatty(),
        speed_estimate_period=float("inf"),  # a job may take minutes
    ) as bar:
        task = bar.add_task("jobs", total=n_jobs, completed=n_stored, failed="")
        bar.advance(task, 0)  # from now on, so that the first job to finish gives an estimate
        n_failed = 0

        def tell(result: Mapping[str, Any]) -> None:
            nonlocal n_failed
            n_failed += is_failure(result)
            bar.update(task, failed=f"{n_failed} failed" if n_failed else "")
            bar.advance(task)

        yield tell


def _say(message: str) -> None:
    print(message, file=sys.stderr)
