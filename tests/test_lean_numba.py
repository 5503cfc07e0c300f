"""Loops without SciPy's linear algebra, and SciPy's linear algebra after them: real processes."""

import subprocess
import sys

import pytest

pytest.importorskip("numba")

LOOPS = """
import sys
import numpy as np
from midpg_np import kernels
with kernels.compiled_loops("compiled"):
    y, _ = kernels.relu(np.array([[-1.0, 2.0]], np.float32))
assert y.tolist() == [[0.0, 2.0]]
"""
AFTERWARDS = {
    "nothing of it is loaded": "assert not [m for m in sys.modules if 'scipy.linalg' in m]",
    "scipy.linalg is the real one": """
import scipy.linalg
assert abs(scipy.linalg.svdvals(np.diag([3.0, 2.0])) - [3.0, 2.0]).max() < 1e-12
""",
    "the attribute of scipy, too": """
import scipy
assert scipy.linalg.det(np.diag([3.0, 2.0])) == 6.0
""",
    "Numba finds it": """
import numba
product = numba.njit(lambda a: np.dot(a, a))
assert product(np.diag([3.0, 2.0])).tolist() == [[9.0, 0.0], [0.0, 4.0]]
inverse = numba.njit(lambda a: np.linalg.inv(a))
assert inverse(np.diag([4.0, 2.0])).tolist() == [[0.25, 0.0], [0.0, 0.5]]
""",
}


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("afterwards", AFTERWARDS)
def test_loops_do_without_it_and_others_do_not(afterwards):
    run(LOOPS + AFTERWARDS[afterwards])


def test_what_is_loaded_already_stays():
    run(
        "import scipy.linalg as before\n"
        + LOOPS
        + "import scipy.linalg\nassert scipy.linalg is before"
    )


def test_without_scipy_numba_is_told_so():
    """A name that stands for None in ``sys.modules`` cannot be imported."""
    hidden = """
import sys
sys.modules["scipy"] = None
"""
    seen = "from numba.np import arraymath\nassert not arraymath._HAVE_BLAS\n"
    run(hidden + LOOPS + seen)


def test_yaml_is_loaded_where_numba_has_settings_to_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(LOOPS + "assert 'yaml' not in sys.modules\nimport numba\nassert not numba.config.DEBUG_JIT")
    (tmp_path / ".numba_config.yaml").write_text("debug_jit: 1\n")
    settings = "import numba\nassert numba.config.DEBUG_JIT == 1\n"
    load = "import sys\nfrom midpg_np.kernels.compiled.lean_numba import import_numba\n"
    run(load + "import_numba()\nassert 'yaml' in sys.modules\n" + settings)
