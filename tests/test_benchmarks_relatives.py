"""The framework versions of the comparison models compute what the package computes."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from midpg_np.batch import Batch
from midpg_np.checks.model import perturbed_params

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODELS = ("ple", "star", "pepnet", "adasparse", "apg", "optmsm")


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def case_of(model):
    import cases

    sizes = dataclasses.replace(cases.TINY, n_scenarios=5, hidden=(16, 12, 8))
    return cases.Case(model, "", 0, 24, 1, sizes=sizes)


def batch_of(case):
    """Rows of unequal scenarios: one is absent, one has a single row, whose statistics differ."""
    batch, _ = case.draw(np.random.default_rng(0))
    scenario = np.repeat([3, 0, 4, 2, 0], [6, 5, 1, 7, 5])
    return Batch(batch.codes, scenario, batch.label)


def assert_all_equal(case, word, dtypes=("float64", "float32")):
    from frameworks.candidates import Candidate, candidates
    from frameworks.equality import check, measure

    rng = np.random.default_rng(2)
    params = perturbed_params(case.config, rng)
    batch = batch_of(case)
    for dtype in dtypes:  # PyTorch multiplies slices in another way for each

        def measured(candidate, dtype=dtype):
            step = candidate.build(case.config, params, dtype, "cpu", 1)
            return measure(step, batch, {})

        ours = measured(Candidate("ours"))
        found = candidates(case.model, [word], 9, "cpu")
        assert found
        for candidate in found:
            check(ours, measured(candidate), dtype)


@pytest.mark.parametrize("model", MODELS)
def test_every_form_in_pytorch_is_the_model(model):
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    assert_all_equal(case_of(model), "eager")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_form_in_jax_is_the_model(model, monkeypatch):
    jax = pytest.importorskip("jax", reason="the benchmark compares with JAX")
    from jax_options import compile_fast

    monkeypatch.setattr(jax, "jit", partial(jax.jit, compiler_options=compile_fast()))
    # Each dtype is compiled anew; the benchmark itself proves float32 before it times it.
    assert_all_equal(case_of(model), "jax", dtypes=("float64",))


def test_an_option_that_is_not_written_is_refused():
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    from frameworks.candidates import networks

    config = dataclasses.replace(case_of("ple").config, gate_bias=False)
    with pytest.raises(NotImplementedError, match="gate_bias"):
        next(iter(networks("torch")["ple"].values()))(config)


# PyTorch's tracer makes an instance of every autograd function, against its own warning.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("model", MODELS)
def test_a_compiler_gets_one_graph(model):
    torch = pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    from frameworks.candidates import Candidate, candidates

    case = case_of(model)
    for candidate in candidates(model, ["eager"], 9, "cpu"):
        if candidate.form == "split":  # sizes of slices are numbers of the host
            continue
        step = Candidate("torch", candidate.form).build(
            case.config, case.params(), "float32", "cpu", 1
        )
        torch._dynamo.reset()
        staged = step.stage(batch_of(case), {})
        explained = torch._dynamo.explain(step._loss)(step.params, *staged)
        assert explained.graph_break_count == 0, (candidate.form, explained.break_reasons)
