"""Running the command ``midpg``: in this process, where that is enough, or in one of its own."""

import io
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from midpg_np.cli import main
from midpg_np.data import UnknownCategoryWarning

# A short training: one epoch of 33 steps for each of the two models.
SHORT = ("--data-option", "n_rows=3000", "--epochs", "1", "--batch-size", "64")

SCHEMA = """
label = "bought"
scenario = "channel"
aware = ["channel", "device"]
agnostic = ["item", "price"]
numeric = ["price"]
"""


class Outcome(NamedTuple):
    """Exit code and the two streams."""

    code: int
    out: str
    err: str


def midpg(*arguments, err=None):
    """Run a command in this process."""
    out, err = (io.StringIO(), io.StringIO()) if err is None else (err, err)
    argv = ["midpg", *map(str, arguments)]
    with (
        patch.object(sys, "argv", argv),
        redirect_stdout(out),
        redirect_stderr(err),
        warnings.catch_warnings(),  # main() replaces warnings.showwarning
    ):
        warnings.simplefilter("default", UnknownCategoryWarning)
        try:
            main()
            code = 0
        except SystemExit as finished:
            code = finished.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


def terminal(*arguments):
    """Run a command in this process and return what a terminal would show, both streams as one."""
    return midpg(*arguments, err=io.StringIO()).out


def start(*arguments, prelude=""):
    """Start a command in its own process; ``prelude`` is Python that runs before it."""
    code = f"import sys\n{prelude}\nfrom midpg_np.cli import main\nmain()"
    how = ["-c", code] if prelude else ["-m", "midpg_np.cli"]
    return subprocess.Popen(
        [sys.executable, *how, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"},
    )


def midpg_process(*arguments, prelude=""):
    """Run a command in its own process to the end."""
    process = start(*arguments, prelude=prelude)
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)


def one_sentence(outcome):
    """Assert that a command failed with a message of one line and nothing else; return it."""
    assert outcome.code == 2, outcome
    lines = outcome.err.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("midpg: "), outcome.err
    assert lines[0].endswith((".", "?")), lines[0]
    assert outcome.out == ""
    return lines[0].removeprefix("midpg: ")


def words(text):
    """Text on one line, without the frames of tables."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "│┃"), " ")).split())


def write_rows(path, n_rows, seed=0, **columns):
    """Write a CSV of a shop with four columns and a label; ``columns`` replace whole columns."""
    rng = np.random.default_rng(seed)
    price = np.round(rng.lognormal(size=n_rows), 2)
    device = rng.choice(["phone", "desktop"], n_rows)
    logit = np.where(device == "phone", 1.5, -1.5) * np.log(price + 0.01) - 0.3
    table = {
        "channel": rng.choice(["app", "web", "mail"], n_rows, p=[0.6, 0.3, 0.1]),
        "device": device,
        "item": rng.integers(100, 120, n_rows),
        "price": price,
        "bought": (rng.random(n_rows) < 1 / (1 + np.exp(-logit))).astype(int),
    }
    table = {name: values for name, values in (table | columns).items() if values is not None}
    lines = [table, *zip(*table.values(), strict=True)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in lines), encoding="utf-8")
    return path
