"""Every backward is the derivative of its forward: to 1e-12 by complex step, 1e-7 by differences.

The catalogue holds every op, loss and layer; ``small.SMALL_MODELS`` every model and option.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from small import (
    SMALL_MODELS,
    assert_close,
    inference_case,
    named_model,
    run,
    small_model,
    training_case,
    upstream,
)
from strategies import generator, models, random_model, random_sizes, seeds, sizes
from systems import SYSTEMS

from midpg_np.checks import check_directions, check_gradients, shift_from_kinks
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.repeat import REPEAT_MODES
from midpg_np.losses import CROSS_ENTROPIES, LOSS_REDUCTIONS
from midpg_np.models import DPG
from midpg_np.tree import tree_astype, tree_flatten

# Cases whose forward or backward holds a float64 constant of its own (labels, weights, zeros):
# they cannot run in float32; test_ops.py, test_losses.py and the models do that part.
FLOAT64_CONSTANT = {
    "split",
    *(f"cross_entropy {kind} {reduce}" for kind in CROSS_ENTROPIES for reduce in LOSS_REDUCTIONS),
    "modulated_bias block",
    "modulated_bias tile",
}
SQUARE_FREE = Sizes()  # 6 x 8: a square W would hide a transposition
STOPPED = [(kind, options) for kind, system in SYSTEMS.items() for options in system.stopped]


@pytest.mark.parametrize("name", CASES)
def test_every_entry_of_every_op_and_layer(name):
    case = CASES[name](SQUARE_FREE, generator(1))
    check_gradients(case, generator(2)).raise_if_wrong()


@pytest.mark.parametrize("name", CASES)
@given(sizes=sizes(), seed=seeds)
def test_ops_and_layers_of_any_size(name, sizes, seed):
    rng = generator(seed)
    case = CASES[name](sizes, rng)
    check_gradients(case, rng, differences=False, max_entries=2).raise_if_wrong()


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_model_option(name):
    case = training_case(named_model(name), generator(3))
    check_gradients(case, generator(4), max_entries=6).raise_if_wrong()


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_model_option_at_inference(name):
    case = inference_case(named_model(name), generator(3))
    check_gradients(case, generator(4), differences=False, max_entries=3).raise_if_wrong()


@pytest.mark.parametrize("kind", SYSTEMS)
def test_every_entry_of_a_model(kind):
    check_gradients(training_case(small_model(kind), generator(5)), generator(6)).raise_if_wrong()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_entry_of_every_model_option(name):
    """By the complex step; the second witness, at twice its cost, sees some entries above."""
    case = training_case(named_model(name), generator(7))
    check_gradients(case, generator(8), differences=False).raise_if_wrong()


@given(model=models(), seed=seeds)
def test_any_combination_of_options(model, seed):
    rng = generator(seed)
    case = training_case(model, rng, n_rows=1 + seed % 9)
    check_gradients(case, rng, max_entries=2).raise_if_wrong()


def test_one_direction_through_a_model_of_full_width():
    model = small_model("midpg", hidden=(128, 64, 32), row_divisor=2, col_divisor=4)
    check_directions(training_case(model, generator(9), 64), generator(10)).raise_if_wrong()


@pytest.mark.slow
def test_no_false_alarm_in_500_draws():
    names = list(CASES)
    for seed in range(500):
        rng = generator(seed)
        case = CASES[names[seed % len(names)]](random_sizes(rng), rng)
        check_gradients(case, rng, max_entries=8).raise_if_wrong()
        rng = generator(1000 + seed)  # so that models do not change with the list of layers
        case = training_case(random_model(rng), rng, n_rows=int(rng.integers(1, 10)))
        check_gradients(case, rng, max_entries=2).raise_if_wrong()


# --- float32 -------------------------------------------------------------------------------------


def assert_float32_agrees(case):
    """Differences mean nothing in float32, so its gradients are compared with float64's."""
    case = shift_from_kinks(case)
    outputs, _ = case.forward(case.inputs, None)
    d_outputs = upstream(outputs, generator(11))
    _, exact = run(case, d_outputs)
    single = replace(case, inputs=tree_astype(case.inputs, np.float32))
    values, grads = run(single, tuple(np.asarray(d, np.float32)[()] for d in d_outputs))
    assert {value.dtype for value in values} == {np.dtype(np.float32)}
    assert {path: g.dtype for path, g in grads.items()} == dict.fromkeys(exact, np.float32)
    assert_close(grads, exact, tol=1e-5)


@pytest.mark.parametrize("name", sorted(CASES.keys() - FLOAT64_CONSTANT))
def test_float32_agrees_with_float64_in_ops_and_layers(name):
    assert_float32_agrees(CASES[name](SQUARE_FREE, generator(12)))


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_float32_agrees_with_float64_in_models(name):
    assert_float32_agrees(training_case(named_model(name), generator(13)))


# --- one calculation, several forms --------------------------------------------------------------


@pytest.mark.parametrize("mode", REPEAT_MODES)
@given(sizes=sizes(), seed=seeds)
def test_all_forms_of_the_modulated_product_are_equal(mode, sizes, seed):
    results = {}
    for form in FORMS:
        case = CASES[f"modulated {form} {mode}"](sizes, generator(seed))
        (A,), grads = run(case, rng=generator(seed + 1))
        results[form] = grads | {"A": A}
    assert_close(results["row"], results["textbook"])
    assert_close(results["column"], results["textbook"])


@pytest.mark.parametrize("disc", ["mlp", "bilinear"])
@pytest.mark.parametrize("full", ["", " full block", " full tile"])
@given(sizes=sizes(), seed=seeds)
def test_both_forms_of_the_regulariser_are_equal(disc, full, sizes, seed):
    results = []
    for form in ("grouped", "textbook"):
        case = CASES[f"mir {disc} {form}{full}"](sizes, generator(seed))
        (loss,), grads = run(case, (1.0,))
        results.append(grads | {"loss": loss})
    assert_close(*results)


@pytest.mark.parametrize("layer", ["scenario_affine", "scenario_mlp"])
@given(sizes=sizes(), seed=seeds)
def test_both_forms_of_weights_by_scenario_are_equal(layer, sizes, seed):
    results = []
    for form in ("grouped", "textbook"):
        case = CASES[f"{layer} {form}"](sizes, generator(seed))
        outputs, grads = run(case, rng=generator(seed + 1))
        results.append(grads | {"A": outputs[0]})
    assert_close(*results)


@given(model=models(), seed=seeds)
def test_all_forms_of_a_whole_model_are_equal(model, seed):
    if not isinstance(model, DPG):
        return
    results = {}
    for form in ("textbook", "grouped", "row", "column"):
        outputs, grads = run(
            training_case(replace(model, form=form), generator(seed)), rng=generator(1)
        )
        results[form] = grads | dict(zip(("logit", "mi"), outputs, strict=False))
    for form in ("grouped", "row", "column"):
        assert_close(results[form], results["textbook"])


# --- stop-gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), STOPPED)
def test_values_behind_a_stop_gradient_are_held_fixed(kind, options):
    case = training_case(small_model(kind, **options), generator(14))
    check_gradients(case, generator(15), max_entries=10).raise_if_wrong()


@pytest.mark.parametrize(("kind", "options"), STOPPED)
def test_without_holding_them_fixed_the_check_disagrees(kind, options):
    case = training_case(small_model(kind, **options), generator(14))
    thawed = replace(case, forward=lambda inputs, frozen: case.forward(inputs, None))
    report = check_gradients(thawed, generator(15), differences=False, max_entries=10)
    assert not report.ok


def test_a_parameter_behind_a_stop_gradient_has_a_gradient_of_exactly_zero():
    case = training_case(small_model("midpg", mi_grad_to="disc"), generator(16))
    outputs, cache = case.forward(case.inputs, None)
    grads = tree_flatten(case.backward((np.zeros_like(outputs[0]), 1.0), cache))
    moved = {path.split(".")[0] for path, g in grads.items() if g.any()}
    assert moved == {"discriminators"}
