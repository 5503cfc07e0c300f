"""Results of jobs on disk: one JSON file per job, named by its hash, whole or not there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from midpg_np.experiments.jobs import Job
from midpg_np.training.checkpoint import replacing

JOB_FORMAT = "midpg_np.job"
VERSION = 1


@dataclass(frozen=True)
class JobStore:
    """A folder of results, which several commands may use at the same time.

    Parameters
    ----------
    folder : Path
        Made when the first result is saved.
    """

    folder: Path

    def path(self, key: str) -> Path:
        """Return the file of a job, given the job's key."""
        return self.folder / f"{key}.json"

    def save(self, key: str, result: dict[str, Any]) -> None:
        """Save the result of ``run_job``; OSError if it cannot be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": JOB_FORMAT, "version": VERSION} | result, indent=1)
        # Under a name of its own first: another command may be saving the same job.
        own = self.folder / f"{key}.{uuid4().hex}"
        with replacing(own) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(own, self.path(key))

    def load(self, key: str, job: Job) -> dict[str, Any] | None:
        """Return what was saved; None if nothing was, or if the file is damaged or foreign.

        The result names the job as it is now: its files may have lain elsewhere.
        """
        try:
            content = json.loads(self.path(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # no such file, no text, no JSON
            return None
        if not isinstance(content, dict) or content.get("key") != key:
            return None
        if (content.pop("format", None), content.pop("version", None)) != (JOB_FORMAT, VERSION):
            return None
        return content | {"job": job.as_dict()}
