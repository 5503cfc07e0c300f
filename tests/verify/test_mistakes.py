"""Every entry of the catalogue is a mistake: it changes what it says, there and nowhere before.

The gradient checks reject those in gradients, and cannot see those in values; that is why both the
checks and the comparison with a reference exist.
"""

import re

import numpy as np
import pytest
from same_forward import derivatives_taken_once
from sizes import ENTRIES, IDS, case_of, small_case
from small import SMALL_MODELS

from midpg_np.checks import Case, check_gradients
from midpg_np.models import MODELS
from midpg_np.tree import tree_flatten, tree_unflatten
from midpg_np.verify.mistakes import MISTAKES, mistakes_in, mistakes_of
from midpg_np.verify.outcome import INPUTS, calculations, outcome

TOLERANCE = 1e-11
entries = pytest.mark.parametrize(("name", "kind"), ENTRIES, ids=IDS)


def differs(a, b):
    """Whether an array differs from another by more than rounding."""
    if np.shape(a) != np.shape(b):
        return True
    return np.abs(np.asarray(a) - b).max(initial=0.0) > TOLERANCE * np.abs(b).max(initial=1e-3)


def wrong_names(case, mistakes):
    """Names that the mistakes change, in order of computation."""
    found = outcome(case.model, case.given, mistakes)
    assert found.keys() >= case.arrays.keys() - {"serving.logit"}
    return [name for name, right in case.arrays.items() if differs(found[name], right)], found


@entries
def test_the_first_thing_that_differs_is_the_mistakes_own(name, kind):
    mistake, case = MISTAKES[name], case_of(name, kind)
    wrong, _ = wrong_names(case, [mistake])
    assert wrong
    assert wrong[0] in mistake.own_names(case.calculation, case.model)


@entries
def test_it_shows_as_it_says(name, kind):
    mistake, case = MISTAKES[name], case_of(name, kind)
    wrong, _ = wrong_names(case, [mistake])
    in_values = [n for n in wrong if not n.startswith(("d.", "next.", "serving."))]
    in_gradients = [n for n in wrong if n.startswith("d.")]
    if mistake.shows == "value":
        assert in_values
    else:
        assert not in_values
        assert bool(in_gradients) == (mistake.shows == "gradient")
    if mistake.shows in ("serving", "state"):
        start = {"serving": "serving.", "state": "next."}[mistake.shows]
        assert all(n.startswith(start) for n in wrong)


def as_check(case, mistake):
    """Turn a mistaken step into a case of the gradient checks: given numbers in, loss out."""
    calculation, _ = calculations(case.model, [mistake])
    real = {k: v for k, v in case.given.items() if k in case.params}
    held = {k: v for k, v in case.given.items() if k not in real}

    def forward(inputs, frozen):
        values = calculation.run(held | tree_flatten(inputs), frozen)
        stopped = {s.output: values[s.output] for s in calculation.steps if s.rule.is_stop}
        return (values["loss"],), Cache(values, stopped)

    def backward(d_outputs, cache):
        adjoints = calculation.adjoints(cache.values)
        return tree_unflatten({k: d_outputs[0] * adjoints[k] for k in real})

    return Case(mistake.name if mistake else "right", tree_unflatten(real), forward, backward)


class Cache:
    def __init__(self, values, detached):
        self.values, self.detached = values, detached


def with_right_values(kind):
    """Mistakes of a model that leave the step's values right, by the case in which they show."""
    found = {}
    for mistake in mistakes_of(kind):
        if mistake.shows != "value":
            key = tuple(sorted(mistake.options.items(), key=str)), mistake.n_rows
            found.setdefault(key, []).append(mistake)
    return found.values()


def is_accepted(mistake, kind, n_entries):
    case, rng = as_check(case_of(mistake.name, kind), mistake), np.random.default_rng(1)
    return check_gradients(case, rng, differences=False, max_entries=n_entries).ok


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_gradient_checks_reject_wrong_gradients(kind):
    """And accept what shows in a prediction or after the step, where the step itself is right."""
    for mistakes in with_right_values(kind):
        with derivatives_taken_once():
            for mistake in mistakes:
                is_right = mistake.shows != "gradient"
                assert is_accepted(mistake, kind, n_entries=12) == is_right, mistake.name


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_gradient_checks_accept_wrong_values(kind):
    """A finite difference follows the wrong value as faithfully as the right one."""
    for mistake in mistakes_of(kind):
        if mistake.shows == "value":
            assert is_accepted(mistake, kind, n_entries=4), mistake.name


@pytest.mark.parametrize("kind", MODELS)
def test_no_two_entries_of_a_model_do_the_same(kind):
    prints = {}
    for mistake in mistakes_of(kind):
        case = case_of(mistake.name, kind)
        wrong, found = wrong_names(case, [mistake])
        key = (tuple(sorted(mistake.options.items(), key=str)), mistake.n_rows, tuple(wrong))
        for other, numbers in prints.setdefault(key, {}).items():
            same = all(not differs(found[n], numbers[n]) for n in wrong)
            assert not same, f"{mistake.name} and {other}"
        prints[key][mistake.name] = found


def test_the_catalogue_is_large_and_well_told():
    assert len(MISTAKES) >= 60
    for mistake in MISTAKES.values():
        assert set(mistake.models) <= set(MODELS)
        assert mistake.shows in ("value", "gradient", "serving", "state")
        assert re.fullmatch(r"\d+(\.\d+)?", mistake.equation), mistake.name
        assert mistake.wrong != mistake.right
        assert mistake.fix.endswith("."), mistake.name
        assert mistake.changes or mistake.update


def test_inputs_are_not_parameters():
    assert not set(INPUTS) & set(case_of("labels exchanged", "dnn").params)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_mistake_can_be_made_under_every_option(name):
    """A diagnosis tries them all: one that does not fit the options must say so, not fail."""
    kind, options = SMALL_MODELS[name]
    case = small_case(kind, **options)
    for mistake in mistakes_in(case.model):
        found = outcome(case.model, case.given, [mistake])
        lost = case.arrays.keys() - found.keys()  # what a mistake leaves unread has no adjoint
        assert all(name.startswith("d.") for name in lost), mistake.name
