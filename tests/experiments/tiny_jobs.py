"""Jobs of a second or less, and what two runs of them must share."""

import os
import signal

from midpg_np.experiments.jobs import Job

ROWS = {"n_rows": 1200, "n_scenarios": 3}
SMALL = {"hidden": (16, 8), "dim_embedding": 4}


def tiny_job(model="dnn", seed=0, **changes):
    """One epoch of 7 steps."""
    fields = {
        "data": "synthetic",
        "path": None,
        "data_options": ROWS,
        "model": model,
        "model_options": SMALL,
        "training": {"epochs": 1, "batch_size": 128},
        "seed": seed,
    }
    return Job(**(fields | changes))


def bad_job():
    """Name an option that no model has."""
    return tiny_job(model_options={"hiden": (16, 8)})


def without_time(results):
    """Results without what differs from run to run; the package may be edited in the meantime."""
    times = ("seconds", "seconds_per_epoch", "versions")
    return [
        {name: value for name, value in result.items() if name not in times} for result in results
    ]


class DeadlyJob(Job):
    """Ends every process but the one named by the environment variable ALIVE."""

    def as_dict(self):
        if os.environ.get("ALIVE") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().as_dict()


def deadly_job():
    """Return a job that kills the process it is sent to, as one does that runs out of memory."""
    job = tiny_job(seed=99)
    return DeadlyJob(**{name: getattr(job, name) for name in job.__dataclass_fields__})
