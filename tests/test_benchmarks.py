"""The benchmarks against other frameworks print a table, and refuse what is not equal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = ("--tiny", "--rounds", "1")


def run(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
def test_the_table_of_the_training_step():
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    options = "--models dnn midpg --variants r --sizes 8 --batch 32 --threads 1 --forms 1".split()
    done = run("training_step.py", *TINY, *options, "--frameworks", "ours", "eager")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    details = {(row[0].strip(), row[3].strip()): float(row[4]) for row in rows if len(row) == 10
               and row[1].strip().isdigit()}  # fmt: skip
    assert {model for model, _ in details} == {"dnn", "midpg r 1/8"}
    assert len(details) == 4
    assert min(details.values()) > 0.0


@pytest.mark.parametrize("model, options", [("dnn", ("", 0)), ("midpg", ("r", 8))])
def test_equal_until_one_gradient_is_spoiled(modules, model, options):
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    import cases
    from frameworks.candidates import Candidate, candidates
    from frameworks.equality import DifferentError, check, measure

    case = cases.Case(model, *options, 24, 1, sizes=cases.TINY)
    batch, draws = case.draw(np.random.default_rng(0))

    def measured(candidate, network=lambda step: None):
        step = candidate.build(case.config, case.params(), "float64", "cpu", 1)
        network(step)
        return measure(step, batch, draws)

    ours = measured(Candidate("ours"))
    for candidate in candidates(model, ["materialised", "eager"], 9, "cpu"):
        check(ours, measured(candidate), "float64")

        def spoil(step):
            right = step.network.unpack
            step.network.unpack = lambda x: {
                path: leaf * (1.0 + 1e-6 * (path == "embedding.table"))
                for path, leaf in right(x).items()
            }

        with pytest.raises(DifferentError, match=r"the gradient of embedding\.table"):
            check(ours, measured(candidate, spoil), "float64")


@pytest.mark.slow
def test_what_differs_is_not_timed(modules, monkeypatch):
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    import cases
    import turns
    from frameworks.candidates import Candidate

    true_reference = turns.reference_of

    def other_reference(case):
        found = true_reference(case)
        return found._replace(loss=found.loss * 1.001)

    monkeypatch.setattr(turns, "reference_of", other_reference)
    case = cases.Case("dnn", "", 0, 24, 1, sizes=cases.TINY)
    (result,) = turns.time_case(case, [Candidate("torch", "plain")], 1, turns.Proofs())
    assert "the loss differs" in result.error
    assert result.times == []
