"""A step costs what its rows cost: more scenarios without rows change nothing.

What a step computes it keeps in its cache or returns as a gradient, so the count of the numbers
in there stands for its work, without a clock.
"""

import numpy as np
import pytest
from small import SMALL_MODELS, arrays_in, partners, small_batch, small_model
from strategies import generator
from systems import SYSTEMS

from midpg_np.models import ModelOutput


def numbers_made(name, n_scenarios):
    """Numbers in the cache and gradients of one step, and whether D matters by definition."""
    kind, options = SMALL_MODELS[name]
    model = small_model(kind, **({"n_scenarios": n_scenarios} | options))
    rng = generator(1)  # the batch first: how much is drawn for parameters depends on D
    batch, params = small_batch(rng), model.init(rng)
    output, cache = model.forward(params, batch, draws={"partner": partners(rng, 9)})
    d_output = ModelOutput(output.logit, dict.fromkeys(output.auxiliary, 1.0))
    made = [*arrays_in(cache), *arrays_in(model.backward(d_output, cache))]
    return sum(array.size for array in made), SYSTEMS[kind].grows(model)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_scenarios_without_rows_cost_nothing(name):
    few, grows = numbers_made(name, 4)
    many, _ = numbers_made(name, 400)
    assert (many > few) if grows else (many == few)


def test_the_batch_has_fewer_scenarios_than_either():
    assert np.unique(small_batch(generator(1)).scenario).size < 4
