"""Diagnosis: every mistake is named, pairs too, and what is no known mistake is localised."""

from dataclasses import replace

import numpy as np
import pytest
from sizes import SAMPLED, case_of, random_pairs, small_case

from midpg_np.verify.diagnose import diagnose
from midpg_np.verify.longhand.rules import scale
from midpg_np.verify.mistakes import MISTAKES, mistakes_of
from midpg_np.verify.outcome import outcome


def dump_with(case, *mistakes):
    found = outcome(case.model, case.given, mistakes)
    return {name: array for name, array in found.items() if name in case.arrays}


@pytest.mark.parametrize(("name", "kind"), SAMPLED)
def test_a_mistake_is_named_and_blamed_on_its_own_quantities(name, kind):
    mistake, case = MISTAKES[name], case_of(name, kind)
    diagnosis = diagnose(case, dump_with(case, mistake))
    assert diagnosis.names == [(name,)]
    own = mistake.own_names(case.calculation, case.model)
    assert own.intersection(diagnosis.blamed) or mistake.shows == "serving"
    assert diagnosis.comparison.wrong[0].name in own | {"serving.logit"}


def what_users_dump(case, found):
    """Logit, losses and the gradients of parameters: no intermediates."""
    kept = {"logit", "loss", *(f"d.{path}" for path in case.params)}
    return {name: array for name, array in found.items() if name in kept}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dnn", "star", "midpg"])
def test_most_are_named_without_any_intermediate(kind):
    """Ties remain where the same parameters get the same wrong gradients in two ways."""
    n_named, n_shown = 0, 0
    for mistake in mistakes_of(kind):
        if mistake.shows in ("state", "serving"):
            continue
        case = case_of(mistake.name, kind)
        diagnosis = diagnose(case, what_users_dump(case, dump_with(case, mistake)))
        if diagnosis.comparison.ok:
            continue
        n_shown += 1
        n_named += (mistake.name,) in diagnosis.names
    assert n_named == n_shown > 5


def test_float32_dumps_are_diagnosed_too():
    case = small_case("midpg")
    for name in ("adjoint of repeat averaged", "negatives gathered in place of scattered"):
        found = dump_with(case, MISTAKES[name])
        narrow = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in found.items()}
        assert diagnose(case, narrow).names == [(name,)]


def test_a_mistake_in_one_layer_alone():
    case = small_case("midpg")
    (only,) = [
        part
        for part in MISTAKES["gradient of W without S"].in_single_places(case.calculation)
        if "layer_2" in part.name
    ]
    diagnosis = diagnose(case, dump_with(case, only))
    assert diagnosis.names == [("gradient of W without S (only in layer_2)",)]
    assert diagnosis.blamed == ("d.layer_2.W",)


def test_what_is_no_known_mistake_is_localised():
    case = small_case("midpg")
    dump = dict(case.arrays)
    dump["layer_2.P"] = np.cos(case.arrays["layer_2.P"])  # and everything behind it as it was
    dump["d.head.W"] = 3.0 * case.arrays["d.head.W"]
    diagnosis = diagnose(case, dump)
    assert diagnosis.matches == ()
    # Q is no longer what follows from P; the adjoint of the last layer's kernel is off by itself.
    assert diagnosis.blamed == ("layer_2.P", "layer_2.Q", "d.head.W", "next.head.W")
    assert diagnosis.n_tried > 0


def test_consequences_are_not_blamed():
    """A wrong rule with everything computed from its result: one name, however much differs."""
    case = small_case("midpg")

    steps = [
        replace(step, rule=scale(0.3)) if step.output == "layer_1.Q" else step
        for step in case.calculation.steps
    ]
    strange = replace(case.calculation, steps=tuple(steps))
    values = strange.run(case.given)
    adjoints = {f"d.{k}": v for k, v in strange.adjoints(values).items()}
    diagnosis = diagnose(case, {k: v for k, v in (values | adjoints).items() if k in case.arrays})
    assert len(diagnosis.comparison.wrong) > 50
    assert diagnosis.matches == ()
    assert diagnosis.blamed == ("layer_1.Q",)


def test_a_right_dump_has_no_diagnosis():
    case = small_case("dnn")
    diagnosis = diagnose(case, case.arrays)
    assert (diagnosis.matches, diagnosis.blamed, diagnosis.n_tried) == ((), (), 0)


def both_places(case, first, second, blamed):
    """Whether a name of either mistake is blamed."""
    return all(
        m.own_names(case.calculation, case.model).intersection(blamed) for m in (first, second)
    )


@pytest.mark.slow
def test_pairs_are_named_or_localised_to_both_places():
    """At least 80 of 100; the rest hide one another, such as two wrong losses in one place."""
    n_found = 0
    for kind, first, second in random_pairs(100, seed=0):
        case = case_of(first.name, kind)
        diagnosis = diagnose(case, dump_with(case, first, second))
        names = {frozenset(match) for match in diagnosis.names}
        n_found += frozenset((first.name, second.name)) in names or both_places(
            case, first, second, diagnosis.blamed
        )
    assert n_found >= 80
