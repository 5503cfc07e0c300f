"""A check that cannot fail proves nothing: it must reject every wrong backward, every time.

The last test keeps the comparison that explains why the check is as strict as it is: what popular
weaker checks miss.
"""

import numpy as np
import pytest
from same_forward import derivatives_taken_once
from small import training_case
from strategies import generator, random_sizes
from wrong_backwards import WRONG as WRONG_LAYERS
from wrong_kinds import WrongClass
from wrong_models import WRONG_MODELS as WRONG_MIDPG
from wrong_systems import WRONG as WRONG_SYSTEM_LAYERS
from wrong_systems import WRONG_FORWARDS
from wrong_systems import WRONG_MODELS as WRONG_SYSTEMS

from midpg_np.checks import GradientMismatchError, check_directions, check_gradients
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.checks.numeric import central_differences
from midpg_np.tree import tree_flatten

WRONG = WRONG_LAYERS | WRONG_SYSTEM_LAYERS
WRONG_MODELS = WRONG_MIDPG | WRONG_SYSTEMS
N_DRAWS = 20
few_and_all_draws = pytest.mark.parametrize(
    "draws",
    [range(2), pytest.param(range(2, N_DRAWS), marks=pytest.mark.slow)],
    ids=["few", "all"],
)


def by_forward(wrong):
    """Names of mistakes by the case or model whose backward they spoil."""
    names = {}
    for name, mistake in wrong.items():
        names.setdefault(mistake.forward, []).append(name)
    return names


LAYERS, SYSTEMS = by_forward(WRONG), by_forward(WRONG_MODELS)


def test_there_are_many_mistakes():
    assert len(WRONG) + len(WRONG_MODELS) + len(WRONG_FORWARDS) >= 300


@few_and_all_draws
@pytest.mark.parametrize("case", LAYERS)
def test_wrong_ops_and_layers_are_rejected_in_every_draw(case, draws):
    """And the right ones are accepted in the same draws."""
    for seed in draws:
        with derivatives_taken_once():
            rng = generator(seed)
            right = CASES[case](random_sizes(rng, min_rows=4), rng)
            check_gradients(right, rng, differences=False).raise_if_wrong()
            for name in LAYERS[case]:
                rng = generator(seed)
                wrong = WRONG[name].build(random_sizes(rng, min_rows=4), rng)
                assert not check_gradients(wrong, rng, differences=False).ok, (name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("case", LAYERS)
def test_differences_reject_them_without_the_complex_step(case, monkeypatch):
    monkeypatch.setattr("midpg_np.checks.gradient.COMPLEX_TOLERANCE", np.inf)
    with derivatives_taken_once():
        for name in LAYERS[case]:
            wrong = WRONG[name].build(Sizes(), generator(1))
            assert not check_gradients(wrong, generator(2)).ok, name


@few_and_all_draws
@pytest.mark.parametrize("model", SYSTEMS)
def test_wrong_models_are_rejected_in_every_draw(model, draws):
    """And the right ones are accepted in the same draws."""
    for seed in draws:
        with derivatives_taken_once():
            rng = generator(seed)
            right = training_case(WRONG_MODELS[SYSTEMS[model][0]].right, rng)
            check_gradients(right, rng, differences=False, max_entries=12).raise_if_wrong()
            for name in SYSTEMS[model]:
                rng = generator(seed)
                wrong = WRONG_MODELS[name].build(rng)
                report = check_gradients(wrong, rng, differences=False, max_entries=12)
                assert not report.ok, (name, seed)


@pytest.mark.parametrize("name", [n for n, w in WRONG_MODELS.items() if isinstance(w, WrongClass)])
def test_one_direction_rejects_wrong_models(name):
    assert not check_directions(WRONG_MODELS[name].build(generator(1)), generator(2)).ok


def test_the_message_names_the_entry_and_both_numbers():
    case = WRONG["affine: one entry 5 % off"].build(Sizes(), generator(3))
    report = check_gradients(case, generator(4))
    with pytest.raises(GradientMismatchError) as error:
        report.raise_if_wrong()
    pattern = r"affine: d/dW\[\d+, \d+\]: backward gives \S+, complex step gives \S+ \(1 of 48 "
    assert error.match(pattern)
    assert "\n" not in str(error.value)


# --- why not something simpler -------------------------------------------------------------------


def weak_check(case, rng, d_output, n_entries, tol):
    """Compare some random entries with differences, relative to the entry, as many tests do."""
    outputs, cache = case.forward(case.inputs, None)
    d_outputs = tuple(d_output(np.shape(y)) for y in outputs)
    grads = tree_flatten(case.backward(d_outputs, cache))

    def function(tree):
        return sum(
            (d * y).sum() for d, y in zip(d_outputs, case.forward(tree, None)[0], strict=True)
        )

    for path, leaf in tree_flatten(case.inputs).items():
        entries = list(np.ndindex(leaf.shape))
        for i in rng.choice(len(entries), min(n_entries, len(entries)), replace=False):
            (exact,) = central_differences(function, case.inputs, path, [entries[i]])
            if abs(grads[path][entries[i]] - exact) > tol * max(1.0, abs(exact)):
                return False
    return True


def caught(name, check):
    """Share of the draws in which a check rejects a mistake."""
    rejected = 0
    for seed in range(N_DRAWS):
        rng = generator(seed)
        rejected += not check(WRONG[name].build(random_sizes(rng, min_rows=4), rng), rng)
    return rejected / N_DRAWS


def sum_of_outputs_one_entry(case, rng):
    return weak_check(case, rng, np.ones, n_entries=1, tol=1e-2)


def sum_of_outputs_all_entries(case, rng):
    return weak_check(case, rng, np.ones, n_entries=10**6, tol=1e-3)


def this_check(case, rng):
    return check_gradients(case, rng, differences=False).ok


def test_what_weaker_checks_miss():
    """Ones as upstream gradient cannot see softmax or row order; one entry sees hardly anything."""
    table = {
        "softmax returns zeros": (0.0, 0.0),
        "affine: dW pairs the wrong rows": (0.0, 0.0),
        "affine: one entry 5 % off": (0.25, 1.0),
    }
    for name, limits in table.items():
        shares = [
            caught(name, check) for check in (sum_of_outputs_one_entry, sum_of_outputs_all_entries)
        ]
        print(f"{name:45s} {shares[0]:4.0%} {shares[1]:4.0%} {caught(name, this_check):4.0%}")
        assert all(share <= limit for share, limit in zip(shares, limits, strict=True)), name
        assert caught(name, this_check) == 1.0
