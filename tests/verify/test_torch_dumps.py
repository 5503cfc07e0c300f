"""Dumps of the independent PyTorch version are cases: right ones, and those of every mistake.

Each entry of the catalogue stands here a second time, as wrong PyTorch code that autograd
differentiates (``tests/torch_mistakes``).  Both must give the same wrong numbers, values and
gradients alike.
"""

import numpy as np
import pytest
from sizes import ENTRIES, SAMPLED, case_of, small_case
from small import SMALL_MODELS, named_model

from midpg_np.models import MODELS
from midpg_np.verify.case import make_case
from midpg_np.verify.compare import compare
from midpg_np.verify.diagnose import diagnose
from midpg_np.verify.mistakes import MISTAKES
from midpg_np.verify.outcome import outcome

torch = pytest.importorskip("torch", reason="the independent reference needs PyTorch")

from torch_mistakes import CARRIERS, MODULES  # noqa: E402
from torch_mistakes.carrier import torch_dump  # noqa: E402


def deviation(ours, theirs):
    """Largest difference, of the largest entry."""
    if np.shape(ours) != np.shape(theirs):
        return np.inf
    scale = max(np.abs(theirs).max(initial=0.0), 1e-3)
    return np.abs(ours - np.asarray(theirs)).max(initial=0.0) / scale


def assert_same(dump, arrays, tolerance):
    """Every name that both have stands for the same numbers.

    A parameter has moved by lr g / (|g| + epsilon): where g is zero but for rounding, this brings
    lr / epsilon = 1e5 times the rounding.
    """
    found = {name: deviation(dump[name], arrays[name]) for name in dump.keys() & arrays.keys()}
    wrong = {
        name: f"{value:.1e}"
        for name, value in found.items()
        if not value <= (max(tolerance, 1e-10) if name.startswith("next.") else tolerance)
    }
    assert not wrong


def assert_is_the_case(dump, case):
    """All that the case computes is in the dump, as it is in the case."""
    assert case.arrays.keys() - case.given.keys() <= dump.keys()
    assert_same(dump, case.arrays, 1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_dump_of_the_reference_is_the_case(kind):
    case = small_case(kind)
    assert_is_the_case(torch_dump(case), case)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, options) in SMALL_MODELS.items() if options])
def test_dump_with_an_option_away_from_its_default(name):
    case = make_case(named_model(name), seed=1, n_rows=12)
    assert_is_the_case(torch_dump(case), case)


@pytest.mark.parametrize("kind", MODELS)
def test_dump_of_a_single_row(kind):
    case = small_case(kind, n_rows=1)
    assert_is_the_case(torch_dump(case), case)


@pytest.mark.parametrize("kind", MODELS)
def test_dump_in_single_precision(kind):
    case = small_case(kind)
    dump = torch_dump(case, dtype=torch.float32)
    assert all(x.dtype == np.float32 for x in dump.values() if x.dtype.kind == "f")
    moved = {name: x for name, x in dump.items() if name.startswith("next.")}
    assert_same({name: dump[name] for name in dump.keys() - moved.keys()}, case.arrays, 1e-4)


@pytest.mark.parametrize(("name", "kind"), SAMPLED)
def test_the_mistake_gives_the_same_wrong_numbers_in_both(name, kind):
    case = case_of(name, kind)
    dump = torch_dump(case, CARRIERS[name])
    assert_same(dump, outcome(case.model, case.given, [MISTAKES[name]]), 1e-10)
    seen = dump.keys() & case.arrays.keys()
    assert any(deviation(dump[key], case.arrays[key]) > 1e-9 for key in seen)


@pytest.mark.slow
def test_at_least_95_of_100_are_found_and_named():
    """The first name that differs is the mistake's own, and the diagnosis names it alone."""
    n_local, n_named = 0, 0
    for name, kind in ENTRIES:
        mistake, case = MISTAKES[name], case_of(name, kind)
        dump = {k: v for k, v in torch_dump(case, CARRIERS[name]).items() if k in case.arrays}
        wrong = compare(case, dump).wrong
        assert wrong, name
        n_local += wrong[0].name in mistake.own_names(case.calculation, case.model)
        n_named += diagnose(case, dump).names == [(name,)]
    assert n_local == len(ENTRIES)
    assert n_named >= 0.95 * len(ENTRIES)


def test_every_entry_is_carried_and_in_one_way():
    assert CARRIERS.keys() == MISTAKES.keys()
    for module in MODULES:
        for name, carrier in module.MISTAKES.items():
            assert CARRIERS[name] == carrier, name


def test_nothing_stays_exchanged_after_a_dump():
    case = small_case("midpg")
    for name in ("labels exchanged", "step goes uphill", "gradient of W without S"):
        torch_dump(case, CARRIERS[name])
    assert_is_the_case(torch_dump(case), case)
