"""The fixture of small cases in a test run of its own; what is missing is named."""

import subprocess
import sys

import pytest

from midpg_np.models import MODELS
from midpg_np.verify.case import make_case
from midpg_np.verify.pytest import SIZES, SIZES_OF, case_fixture, small_models

TESTS = """
import numpy as np
from midpg_np.verify.compare import compare
from midpg_np.verify.pytest import case_fixture

case = case_fixture("midpg", "dnn", variant=["r", "c"], activation=["relu", "tanh"])
rare = case_fixture("star", name="many", seeds=(3, 4), n_rows=7, hidden=(9,))
made = []


def test_every_case(case):
    made.append(case)
    assert case.n_rows == 16 and case.config["hidden"] == (12, 6)
    compare(case, {name: case.arrays[name] for name in ("logit", "d.logit")}).raise_if_wrong()


def test_the_same_case_again(case):
    assert any(case is other for other in made)


def test_another_name(many):
    assert many.n_rows == 7 and many.config["hidden"] == (9,) and many.seed in (3, 4)
"""
NAMES = [
    "midpg-variant=r-activation=relu",
    "midpg-variant=r-activation=tanh",
    "midpg-variant=c-activation=relu",
    "midpg-variant=c-activation=tanh",
    "dnn-activation=relu",
    "dnn-activation=tanh",
]


def pytest_on(folder, *options):
    """Run pytest in a folder as another project would, warnings as errors."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_fixture_in_a_run_of_its_own(tmp_path):
    (tmp_path / "test_cases.py").write_text(TESTS, encoding="utf-8")
    done = pytest_on(tmp_path, "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line.split()[0] for line in done.stdout.splitlines() if " PASSED" in line]
    assert len(passed) == 2 * len(NAMES) + 2
    for name in NAMES:
        assert f"test_cases.py::test_every_case[{name}]" in passed
    assert "test_cases.py::test_another_name[star-seed=4]" in passed


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_has_a_small_case(kind):
    ((name, model),) = small_models(kind, {})
    assert name == kind
    known = make_case(model)
    assert sum(array.size for array in known.params.values()) < 1500
    assert all(known.arrays[f"d.{name}"].any() for name in known.params)


def test_sizes_are_options_of_their_models():
    assert set(SIZES_OF) <= set(MODELS)
    for kind, sizes in SIZES_OF.items():
        assert not set(sizes) & set(SIZES)
        assert set(sizes) <= {field for field in MODELS[kind].__dataclass_fields__}


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (("midgp",), {}, r"model must be one of .*; got 'midgp'\. Did you mean 'midpg'\?"),
        (("midpg",), {"varient": ["r"]}, r"no option 'varient' in .*\. Did you mean 'variant'\?"),
        (("midpg",), {"variant": ["r", "x"]}, r"variant must be one of .*; got 'x'"),
        (("midpg",), {"variant": []}, "variant is an empty list"),
        (("midpg",), {"hidden": (12, 7)}, r"7"),
        ((), {}, "needs a model and a seed"),
        (("dnn",), {"seeds": ()}, "needs a model and a seed"),
    ],
)
def test_bad_options_are_refused_where_the_fixture_is_made(models, options, message):
    with pytest.raises(ValueError, match=message):
        case_fixture(*models, **options)


def test_missing_packages_are_named(monkeypatch):
    from midpg_np.verify.torch import check

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs PyTorch, .* \(pip install torch\)"):
        check(None, None)
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ImportError, match=r"case_fixture needs pytest, .* \(pip install pytest\)"):
        case_fixture("dnn")


def test_the_adapters_are_light():
    """Neither loads its package before it is used."""
    code = (
        "import sys, midpg_np.verify.torch, midpg_np.verify.pytest; "
        "assert not {'torch', 'pytest', '_pytest'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
