"""One direction per parameter array of a model of full size: a wrong array is named."""

from dataclasses import replace

import numpy as np
import pytest
from strategies import generator
from wrong_models import HeadForgotten, LastFieldForgotten

from midpg_np.checks import Case, check_directions, model_case, perturbed_params
from midpg_np.experiments.full_size_models import FULL_SIZE_CASES, full_size_batch
from midpg_np.models import MODELS, make_model
from midpg_np.tree import tree_flatten, tree_set


def named(report):
    """Arrays that a report calls wrong."""
    return [failure.split()[0].removeprefix("d/d") for failure in report.failures]


def test_every_model_is_there():
    assert {title.split()[0] for title in FULL_SIZE_CASES} == set(MODELS)


LARGE = {name for name in FULL_SIZE_CASES if name.endswith((" 1/2", " non"))}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in FULL_SIZE_CASES],
)
def test_models_of_full_size_are_right(name):
    report = check_directions(FULL_SIZE_CASES[name](generator(1)), generator(2))
    report.raise_if_wrong()
    assert report.n_entries > 150_000
    assert report.complex_error < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FULL_SIZE_CASES.keys() - LARGE))
def test_models_of_full_size_are_right_in_every_draw(name):
    for seed in range(5):
        case = FULL_SIZE_CASES[name](generator(seed), n_rows=64 * (1 + seed), vocab_size=100)
        check_directions(case, generator(seed)).raise_if_wrong()


MISTAKES = {
    "a thousandth too large": lambda g: 1.001 * g,
    "of the wrong sign": np.negative,
    "zero": np.zeros_like,
    "not a number": lambda g: np.full_like(g, np.nan),
    "of the next row": lambda g: np.roll(g, 1, axis=0),
    "one entry too large": lambda g: g * np.where(np.abs(g) == np.abs(g).max(), 1.01, 1.0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", ["midpg r 1/8", "ple"])
def test_the_one_wrong_array_is_named(name, mistake):
    """In every draw, whichever array it is."""
    for seed in range(4):
        rng = generator(seed)
        case = FULL_SIZE_CASES[name](rng, vocab_size=20)
        paths = [p for p, leaf in tree_flatten(case.inputs).items() if len(leaf) > 1]
        path = str(rng.choice(paths))

        def backward(d_outputs, cache, right=case.backward, path=path):
            grads = right(d_outputs, cache)
            return tree_set(grads, path, MISTAKES[mistake](tree_flatten(grads)[path]))

        report = check_directions(replace(case, backward=backward), rng)
        assert named(report) == [path], seed


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(HeadForgotten, ["head.W", "head.b"]), (LastFieldForgotten, ["embedding.table"])],
)
def test_wrong_models_of_full_size(kind, wrong):
    sizes = {"vocab_sizes": (20,) * 8, "n_aware": 2, "n_scenarios": 10, "dim_embedding": 16}
    base = kind.__mro__[1]
    right = make_model(next(name for name, cls in MODELS.items() if cls is base), **sizes)
    model = kind(**{field: getattr(right, field) for field in right.__dataclass_fields__})
    for seed in range(5):
        rng = generator(seed)
        batch = full_size_batch(rng, vocab_size=20)
        case = model_case(model, perturbed_params(model, rng, 0.1), batch, model.draw(rng, batch))
        assert named(check_directions(case, rng)) == wrong, seed


@pytest.mark.parametrize(("factor", "ok"), [(1.0, True), (1.0 + 1e-11, True), (1.0 + 1e-6, False)])
def test_a_small_array_is_measured_against_a_thousandth_of_the_largest(factor, ok):
    """What is left of terms that cancel has lost digits; a mistake is far larger than that."""

    def forward(inputs, frozen):
        return (1e3 * inputs["large"], 1e-3 * inputs["small"]), None

    def backward(d_outputs, cache):
        return {"large": 1e3 * d_outputs[0], "small": 1e-3 * factor * d_outputs[1]}

    case = Case("two", {"large": np.ones(9), "small": np.ones(9)}, forward, backward)
    assert check_directions(case, generator(4)).ok is ok
