"""One job of an experiment: one model, trained once on one data set with one seed, and scored.

A job is plain data, so that it can be sent to another process or machine, written to disk, and
recognised again by a hash of its content.
"""

from __future__ import annotations

import json
import shlex
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import midpg_np
from midpg_np.data import DATASETS, Schema, Splits, load_dataset, load_table
from midpg_np.data.splits import PARTS
from midpg_np.experiments.comparison import build_model
from midpg_np.experiments.presets import training_options
from midpg_np.training.blas import blas_threads
from midpg_np.training.config import TrainConfig
from midpg_np.training.evaluate import evaluate
from midpg_np.training.loop import fit
from midpg_np.training.run import versions
from midpg_np.tree import Tree

# Of larger files names, sizes and the first bytes are compared: reading them would take minutes.
_LARGEST_READ = 2**28
_HEAD = 2**20
# Parts of the package that change no result.
_NO_NUMBERS = ("checks", "commands", "experiments", "verify", "cli.py", "pages.py", "plots")
# A process that trains in two threads at once would share its limit on the threads of BLAS.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Job:
    """What to train, on what, and what to score; options are kept as JSON would give them back.

    Parameters
    ----------
    data : str
        Name of a built-in data set, or a table of the user's own.
    path : str or None
        File or folder of a built-in data set.
    data_options : dict
        Options of the loader of the data.
    model : str
        Name of a model.
    model_options : dict
        Its options, where they are not the defaults.
    training : dict
        Options of ``TrainConfig``, where they are not its defaults (the presets of a data set are
        not added here); ``seed`` stands apart.
    seed : int
        Seed of the training and of everything random about the data, as in ``midpg train``.
    parts : tuple of str
        Which rows are scored: "train", "valid", "test".
    schema : str or None
        TOML file with the roles of the columns, for a table of the user's own.

    Raises
    ------
    TypeError, ValueError
        If an option is not JSON, or a part or the seed is not one.
    """

    data: str
    path: str | None
    data_options: dict[str, Any]
    model: str
    model_options: dict[str, Any]
    training: dict[str, Any]
    seed: int
    parts: tuple[str, ...] = ("valid", "test")
    schema: str | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name in ("data_options", "model_options", "training"):
            set_(self, name, _as_json(name, getattr(self, name)))
        for name in ("path", "schema"):
            if getattr(self, name) is not None:
                set_(self, name, str(getattr(self, name)))
        set_(self, "parts", tuple(self.parts))
        for part in self.parts:
            if part not in PARTS:
                raise ValueError(f"parts of a job must be among {PARTS}; got {part!r}.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"the seed of a job must be a whole number >= 0; got {self.seed!r}.")
        if "seed" in self.training:
            raise ValueError("the seed of a job stands apart; leave it out of its training.")

    def __hash__(self) -> int:
        return hash((self.data, self.model, self.seed, self.parts))

    @property
    def key(self) -> str:
        """Hash of all that decides the result.

        Files count by their content, wherever they lie; the version of the package counts, since
        its defaults may change.
        """
        files = {"path": _content(self.path), "schema": _content(self.schema)}
        if self.data not in DATASETS:
            files["data"] = _content(self.data)
        return _digest(_canonical(self.as_dict() | files | {"midpg_np": midpg_np.__version__}))

    @property
    def command(self) -> str:
        """A line for the shell that trains the same model on the same rows."""
        words = ["midpg", "train", "--data", self.data]
        words += [] if self.path is None else ["--path", self.path]
        words += [] if self.schema is None else ["--schema", self.schema]
        words += [w for o in _settings(self.data_options) for w in ("--data-option", o)]
        words += ["--model", self.model, "--baseline", "none", "--seed", str(self.seed)]
        # ``midpg train`` starts from the presets of the data, a job does not.
        defaults = TrainConfig().as_dict()
        presets = {name: defaults[name] for name in training_options(self.data)}
        training = presets | self.training
        device = training.pop("device", "cpu")
        words += [] if device == "cpu" else ["--device", str(device)]
        words += [w for o in _settings(self.model_options | training) for w in ("--set", o)]
        return shlex.join(words)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self) | {"parts": list(self.parts)}

    def measure(self, model: Any, params: Tree, splits: Splits) -> dict[str, Any]:
        """Return what the result is to hold beside the scores: nothing here, JSON in a subclass."""
        return {}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Job:
        """Inverse of ``as_dict``; ValueError for a field that is missing or does not exist."""
        known = {field.name for field in fields(cls)}
        if not content.keys() <= known:
            raise ValueError(f"a job has the fields {sorted(known)}; got {sorted(content)}.")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"this is not a whole job ({error}); got {dict(content)}.") from error


def run_job(job: Job) -> dict[str, Any]:
    """Train and score; the result is JSON.

    Returns
    -------
    dict
        ``key`` and ``job``; ``metrics`` by part, as ``Metrics.as_dict`` gives them; ``params``, the
        counts of ``ParamCount``; ``best_epoch``, ``best_step``, ``n_steps``, ``stopped_by``;
        ``epochs``, passes over the training rows (not always whole); ``seconds`` of training with
        validation, and ``seconds_per_epoch``; ``versions``.

    Raises
    ------
    Exception
        Whatever loading, building, training and scoring raise.
    """
    with _one_at_a_time, blas_threads(1):
        splits = load_job_data(job)
        config = TrainConfig.from_dict(job.training | {"seed": job.seed})
        model = build_model(job.model, splits.train, job.model_options)
        result = fit(model, splits.train, splits.valid, config)
        scores = {
            part: evaluate(model, result.params, splits.parts[part], device=config.device)
            for part in job.parts
        }
        further = _as_json("measures", job.measure(model, result.params, splits))
    epochs = result.n_steps / _steps_per_epoch(len(splits.train), config.batch_size)
    return {
        "key": job.key,
        "job": job.as_dict(),
        "metrics": {part: _as_json("metrics", score.as_dict()) for part, score in scores.items()},
        "params": model.count_params()._asdict(),
        "best_epoch": result.best_epoch,
        "best_step": result.best_step,
        "n_steps": result.n_steps,
        "stopped_by": result.stopped_by,
        "epochs": epochs,
        "seconds": result.seconds,
        "seconds_per_epoch": result.seconds / epochs,
        "versions": job_versions(),
        **further,
    }


def _steps_per_epoch(n_rows: int, batch_size: int) -> int:
    joined = n_rows % batch_size == 1 and n_rows > batch_size > 1  # as iterate_batches does
    return -(-n_rows // batch_size) - joined


def attempt_job(job: Job) -> dict[str, Any]:
    """Run a job; an error becomes a result, as ``failure`` describes it."""
    try:
        return run_job(job)
    except Exception as error:  # whatever is wrong with one job, the others go on
        return failure(job, f"{type(error).__name__}: {error}", traceback.format_exc())


def failure(job: Job, error: str, trace: str = "") -> dict[str, Any]:
    """Return the result of a job that failed: ``job``, ``command``, ``error``, ``traceback``."""
    return {"job": job.as_dict(), "command": job.command, "error": error, "traceback": trace}


def load_job_data(job: Job) -> Splits:
    """Load the rows of a job; the last two data sets are kept, for the next job of this process."""
    options = _canonical(job.data_options)
    files = tuple(_content(file) for file in (job.path, job.schema, _own_table(job)))
    return _load(job.data, job.path, job.schema, options, job.seed, files)


@lru_cache(maxsize=2)
def _load(
    data: str,
    path: str | None,
    schema: str | None,
    options: str,
    seed: int,
    files: tuple[Any, ...],  # a changed file is read again
) -> Splits:
    # A seed among the options is that of the rows alone: trials can share one division.
    chosen = {"seed": seed} | json.loads(options)
    if data not in DATASETS and schema is not None:
        return load_table(data, Schema.from_toml(schema), **chosen)
    return load_dataset(data, path, **chosen)


def _own_table(job: Job) -> str | None:
    return None if job.data in DATASETS else job.data


def _content(path: str | None) -> str | None:
    """Return what identifies the content of a file or folder; None where there is nothing."""
    if path is None or not Path(path).exists():
        return None
    root = Path(path)
    files = [root] if root.is_file() else sorted(f for f in root.rglob("*") if f.is_file())
    # A single file may have another name elsewhere; in a folder names say what is what.
    names = ["" if file == root else file.relative_to(root).as_posix() for file in files]
    return _digest(_canonical(list(zip(names, map(_file_content, files), strict=True))))


def _file_content(file: Path) -> str:
    stat = file.stat()
    return _file_hash(str(file), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _file_hash(path: str, size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        content = file.read(-1 if size <= _LARGEST_READ else _HEAD)
    return f"{size} bytes, {blake2b(content, digest_size=16).hexdigest()}"


def job_versions() -> dict[str, str]:
    """Return the versions that the numbers depend on, and a hash of this package's own source."""
    try:
        numba = version("numba")
    except PackageNotFoundError:  # then other loops run
        numba = "not installed"
    return versions() | {"numba": numba, "source": _source()}


@lru_cache(maxsize=1)
def _source() -> str:
    root = Path(midpg_np.__file__).parent
    files = (f for f in root.rglob("*.py") if f.relative_to(root).parts[0] not in _NO_NUMBERS)
    return _digest(_canonical([f.read_text(encoding="utf-8") for f in sorted(files)]))


def _settings(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_as_setting(value)}" for name, value in options.items()]


def _as_setting(value: Any) -> str:
    """Return the text that ``midpg train`` reads as this value."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except json.JSONDecodeError:
        return value
    return json.dumps(value)  # "1" in quotes, not the number


def _as_json(name: str, options: Any) -> Any:
    """Return options as they come back from JSON: tuples are lists, numbers Python's."""
    try:
        return json.loads(json.dumps(options, default=_plain_value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} of a job must be JSON ({error}); got {options!r}.") from error


def _plain_value(value: Any) -> Any:
    if getattr(value, "shape", None) == ():  # a NumPy scalar
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
