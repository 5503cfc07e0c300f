"""Small models that use every option, a batch with every corner, and helpers for their arrays."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from systems import SYSTEMS

from midpg_np.batch import Batch
from midpg_np.checks import model_case, perturbed_params, wake_units
from midpg_np.models import MODELS, make_model
from midpg_np.tree import tree_flatten

# 6 -> 12 -> 6 -> 1: no two widths of one kernel are equal but for the embedding's.
WIDTHS = {
    "vocab_sizes": (3, 5, 4),
    "n_aware": 2,
    "n_scenarios": 4,
    "dim_embedding": 2,
    "hidden": (12, 6),
}


def small_model(kind, **options):
    """Build a model of at most a few hundred parameters."""
    known = {field.name for field in fields(MODELS[kind])}  # not every model has ``hidden``
    widths = {name: value for name, value in WIDTHS.items() if name in known}
    return make_model(kind, **(widths | SYSTEMS[kind].small | options))


def _one_option_away():
    """Every model, and every option away from its default with the others at theirs."""
    models = {}
    for kind, system in SYSTEMS.items():
        models[kind] = (kind, {})
        for option, values in system.options.items():
            for value in values[1:]:
                unset = dict.fromkeys(system.inherited | system.options)
                options = system.repair(unset | {option: value})
                changed = {k: v for k, v in options.items() if v is not None or k == option}
                models[f"{kind} {option}={value}"] = (kind, changed)
        models |= {f"{kind} {name}": (kind, o) for name, o in system.combinations.items()}
    return models


# One name per model that behaves differently: name -> (kind, options).
SMALL_MODELS = _one_option_away()


def named_model(name):
    """Build a model of ``SMALL_MODELS``."""
    kind, options = SMALL_MODELS[name]
    return small_model(kind, **options)


def small_batch(rng, n_rows=9, dtype=np.float64):
    """Rows of scenario 0 and 1 in unequal number, one row of scenario 3, none of scenario 2."""
    scenario = np.where(np.arange(n_rows) % 3 == 2, 1, 0)
    scenario[0] = 3
    codes = rng.integers(0, WIDTHS["vocab_sizes"], size=(n_rows, len(WIDTHS["vocab_sizes"])))
    label = (rng.random(n_rows) < 0.5).astype(dtype)
    order = rng.permutation(n_rows)
    return Batch(codes[order], scenario[order], label)


def partners(rng, n_rows):
    """Permutation with a 3-cycle and a fixed point, as far as there are rows for them."""
    partner = np.arange(n_rows)
    partner[:3] = np.roll(partner[:3], 1)
    partner[4:] = rng.permutation(partner[4:])
    return partner


def training_case(model, rng, n_rows=9):
    """Case of a training step with parameters away from their start."""
    batch = small_batch(rng, n_rows)
    draws = {"partner": partners(rng, n_rows)}
    return wake_units(model_case(model, perturbed_params(model, rng), batch, draws))


def inference_case(model, rng, n_rows=9):
    """Case of a prediction with parameters away from their start."""
    batch = small_batch(rng, n_rows)
    return wake_units(model_case(model, perturbed_params(model, rng), batch, None))


def run(case, d_outputs=None, rng=None):
    """Forward and backward of a case; draws the upstream gradient unless it is given."""
    outputs, cache = case.forward(case.inputs, None)
    if d_outputs is None:
        d_outputs = upstream(outputs, rng)
    return outputs, tree_flatten(case.backward(d_outputs, cache))


def upstream(outputs, rng):
    """Random adjoints with the shapes and dtypes of the outputs."""
    return tuple(np.asarray(rng.normal(size=y.shape), dtype=y.dtype)[()] for y in outputs)


def numbered(arrays):
    """Name arrays by their position, for ``assert_close``."""
    return {str(i): array for i, array in enumerate(arrays)}


def arrays_in(thing):
    """Yield every NumPy array inside nested mappings, sequences and named tuples."""
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from arrays_in(value)
    elif isinstance(thing, (tuple, list)):
        for value in thing:
            yield from arrays_in(value)


def freeze(thing):
    """Make every array inside read-only: writing to one raises ValueError."""
    for array in arrays_in(thing):
        array.setflags(write=False)


def assert_close(got, want, tol=1e-12):
    """Each array of ``got`` agrees with its namesake to ``tol`` of that one's largest entry."""
    assert got.keys() == want.keys()
    for path, expected in want.items():
        assert np.shape(got[path]) == np.shape(expected), path
        error = np.abs(np.asarray(got[path]) - expected).max(initial=0.0)
        assert error <= tol * max(np.abs(expected).max(initial=0.0), 1e-3), f"{path}: {error:.1e}"
