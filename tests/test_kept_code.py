"""Machine code of loops, kept from one process to the next, goes when any source has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import midpg_np

pytest.importorskip("numba")

PROGRAM = """
import numpy as np
from midpg_np import kernels
from midpg_np.kernels.compiled import cores
with kernels.compiled_loops("compiled"):
    y = kernels.bounded(np.zeros(3, np.float32), 1.0)
print(float(y[0]), sum(cores._bounded.stats.cache_hits.values()))
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, without what has been compiled of it."""
    source = Path(midpg_np.__file__).parent
    without = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(source, tmp_path / "midpg_np", ignore=without))


def value_and_hits(copy, **environment):
    """Return what a process computes with the copy, and how often kept code was used."""
    settings = os.environ | {"PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=copy.parent, env=settings | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return float(value), int(hits)


def change_the_sigmoid(copy):
    """In another file than that of the loop which calls it."""
    loops = copy / "kernels" / "compiled" / "loops.py"
    text, before, after = loops.read_text(), "_ONE / (_ONE + exp(-x))", "_ONE / (_TWO + exp(-x))"
    assert text.count(before) == 1
    loops.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    "place", ["beside the sources", pytest.param("NUMBA_CACHE_DIR", marks=pytest.mark.slow)]
)
def test_a_changed_helper_reaches_loops_of_other_files(copy, tmp_path, place):
    elsewhere = {"NUMBA_CACHE_DIR": str(tmp_path / "kept")} if place == "NUMBA_CACHE_DIR" else {}
    assert value_and_hits(copy, **elsewhere) == (0.5, 0)
    assert value_and_hits(copy, **elsewhere) == (0.5, 1)
    change_the_sigmoid(copy)
    value, hits = value_and_hits(copy, **elsewhere)
    assert value == pytest.approx(1.0 / 3.0) and hits == 0
    assert value_and_hits(copy, **elsewhere) == (value, 1)
