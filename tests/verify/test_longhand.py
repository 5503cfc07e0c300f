"""The long form of every model is its fast form: values, gradients and moved state to rounding."""

import numpy as np
import pytest
from small import SMALL_MODELS, assert_close, named_model, partners, small_batch

from midpg_np.checks import dense_gradients, perturbed_params
from midpg_np.losses import cross_entropy, cross_entropy_backward
from midpg_np.models import ModelOutput
from midpg_np.tree import tree_flatten
from midpg_np.verify.longhand import LONGHAND, write_out

MODELS_WRITTEN = [name for name, (kind, _) in SMALL_MODELS.items() if kind in LONGHAND]


def prepared(name, training):
    """Return a small model, its parameters, batch and draws."""
    rng = np.random.default_rng(3)
    model = named_model(name)
    draws = {"partner": partners(rng, 9)} if training else None
    return model, perturbed_params(model, rng), small_batch(rng), draws


def fast_step(model, params, batch, draws):
    """Return losses, logits and gradients as the model itself computes them."""
    output, cache = model.forward(params, batch, draws=draws)
    ce, c_ce = cross_entropy(output.logit, batch.label)
    weights = model.auxiliary_weights
    loss = ce + sum(weights[k] * v for k, v in output.auxiliary.items())
    d_output = ModelOutput(
        cross_entropy_backward(1.0, c_ce), {k: weights[k] for k in output.auxiliary}
    )
    grads = tree_flatten(dense_gradients(model.backward(d_output, cache)))
    return {"logit": output.logit, "ce": ce, "loss": loss} | output.auxiliary, grads, cache


def given_of(params, batch, draws):
    """Return what a calculation is given."""
    given = tree_flatten(params)
    given |= {"codes": batch.codes, "scenario": batch.scenario, "label": batch.label}
    return given | dict(draws or {})


@pytest.mark.parametrize("training", [True, False], ids=["training", "serving"])
@pytest.mark.parametrize("name", MODELS_WRITTEN)
def test_long_form_equals_the_model(name, training):
    model, params, batch, draws = prepared(name, training)
    values, grads, cache = fast_step(model, params, batch, draws)
    calculation = write_out(model, training=training)
    found = calculation.run(given_of(params, batch, draws))
    if not training:
        assert_close({"logit": found["logit"]}, {"logit": values["logit"]})
        return
    assert_close({k: found[k] for k in values}, values)
    adjoints = calculation.adjoints(found)
    assert_close({k: adjoints[k] for k in grads}, grads)
    assert not set(adjoints) & set(getattr(model, "buffers", ()))
    if hasattr(model, "advance"):
        moved = tree_flatten(model.advance(params, cache))
        assert_close(
            {k: found[f"next.{k}"] for k in model.buffers}, {k: moved[k] for k in model.buffers}
        )


@pytest.mark.parametrize("name", MODELS_WRITTEN)
def test_steps_are_written_before_they_are_read_and_once(name):
    model = named_model(name)
    steps = write_out(model).steps
    outputs = [step.output for step in steps]
    assert len(set(outputs)) == len(outputs)
    known = set(write_out(model).given)
    for step in steps:
        assert known.issuperset(step.inputs), step
        assert step.output not in known, step
        known.add(step.output)
