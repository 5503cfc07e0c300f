"""Cases against independent models in JAX: every value, adjoint, moved number and prediction.

Gradients are JAX's own: of the parameters directly, of an intermediate as that of an array of zeros
that is added to it.  The models in JAX do not know the package.
"""

import ast
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sizes import small_case

from midpg_np.models import MODELS
from midpg_np.tree import tree_unflatten

jax = pytest.importorskip("jax", reason="the references are written in JAX")
jnp = jax.numpy

from jax_options import compile_fast  # noqa: E402

TOLERANCE = 1e-12
LEARNING_RATE, EPSILON = 1e-3, 1e-8
REFERENCES = Path(__file__).resolve().parents[1] / "jax_reference"

# A reference looks each field up in a table of its own, so it has no rows of the packed tables.
NO_COUNTERPART = {"rows"}

# Options away from their defaults, several at once: compiling a model takes about a second, and the
# names that differ say which option it is.
OPTIONS = {
    "dnn": [],
    "dpg": [
        {"variant": "c", "repeat_mode": "tile"},
        {"variant": "rc", "gain": 2.0},
        {"variant": "non", "dwm_detach_h": True},
        {"w_layout": "out_in", "modulate_bias": True, "sigmoid_on": "factors", "dedup_first": True},
        {"dwm_inputs": "aw_only", "modulate_output": True, "d_k": 1},
    ],
    "midpg": [
        {"variant": "c", "mi_detach_context": True},
        {"variant": "rc", "repeat_mode": "tile", "disc_input": "full", "disc": "bilinear"},
        {"variant": "non", "gain": 2.0, "dwm_detach_h": True},
        {"mi_grad_to": "disc", "disc_scope": "concat"},
        {"mi_grad_to": "disc+gen", "disc_input": "factors", "mi_reduce": "sum"},
    ],
    "ple": [
        {"n_specific": 2, "gate_bias": False},
        {"n_specific": 2, "shared_gate_scope": "own", "n_scenarios": 3},
        {"expert_layers": (2,), "n_shared": 0, "n_scenarios": 3},
    ],
    "star": [{"aux_norm": True}, {"pn": "none"}],
    "pepnet": [
        {"gate_at": "layer_input", "towers": "per_scenario"},
        {"ep_input": "agnostic", "prior_fields": (1, 2), "prior_scenario": True},
    ],
    "adasparse": [
        {"prune": "scaling", "prune_input": "none"},
        {"prune": "binarization"},
        {"prune": "binarization", "binarize_grad": "soft", "ratio": "per_sample"},
        {"fusion_grad": "ste", "lambda_detach": True, "prune_input": "agnostic_only"},
    ],
    "apg": [
        {"condition": "self", "generate_bias": True, "generator_hidden": (7,)},
        {"condition": "mix", "over_rank": None},
    ],
    "optmsm": [
        {"combine": "select", "orth_on": "gram"},
        {"hyper": "low_rank", "hyper_input": "aware"},
    ],
}
CONFIGURATIONS = [
    pytest.param(
        kind,
        options,
        id=" ".join([kind, *(f"{name}={value}" for name, value in options.items())]),
        marks=[pytest.mark.slow] if options or kind not in ("dnn", "midpg") else [],
    )
    for kind in MODELS
    for options in ({}, *OPTIONS[kind])
]


@pytest.fixture(autouse=True)
def double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield
    jax.config.update("jax_enable_x64", before)


class Step:
    """One training step of a case, by its model in JAX."""

    def __init__(self, case):
        self.forward = import_module(f"jax_reference.{case.model_name}").forward
        self.options = SimpleNamespace(**case.config)
        self.weights = case.model.auxiliary_weights
        self.params, self.state, self.inputs = case.params, case.state, case.inputs
        outputs = [step.output for step in case.calculation.steps]
        real = [name for name in outputs if f"d.{name}" in case.arrays]
        self.probes = {name: np.zeros_like(case.arrays[name]) for name in real}

    def outputs(self, params, tap, *, training):
        """What the model returns."""
        tree = tree_unflatten(params | self.state)
        return self.forward(tree, self.inputs, self.options, tap, training=training)

    def loss(self, params, probes):
        """Loss, and all that was computed on the way, with probes added to it."""
        found = {}

        def tap(name, x):
            assert name not in found, name
            assert x.shape == probes.get(name, x).shape, name
            found[name] = x + probes[name] if name in probes else x
            return found[name]

        blocks = import_module("jax_reference.blocks")
        outputs = self.outputs(params, tap, training=True)
        total = blocks.objective(outputs, self.inputs["label"], self.weights, tap)
        return total, found | {k: x for k, x in outputs.items() if k.startswith("next.")}

    def prediction(self, params):
        """Logit of a prediction, with nothing recorded."""
        return self.outputs(params, lambda name, x: x, training=False)["logit"]

    def everything(self):
        """Every number of the step, under the names of a case."""
        gradient = jax.grad(self.loss, argnums=(0, 1), has_aux=True)
        run = jax.jit(gradient, compiler_options=compile_fast())
        (of_params, of_values), found = jax.device_get(run(self.params, self.probes))
        predict = jax.jit(self.prediction, compiler_options=compile_fast())
        found |= {f"d.{name}": x for name, x in (of_params | of_values).items()}
        found |= {f"next.{name}": adam(x, of_params[name]) for name, x in self.params.items()}
        return found | {"serving.logit": np.asarray(predict(self.params))}


def adam(param, gradient, beta_1=0.9, beta_2=0.999):
    """First step of Adam, with both moments written out."""
    m, v = (1 - beta_1) * gradient, (1 - beta_2) * gradient**2
    m_hat, v_hat = m / (1 - beta_1), v / (1 - beta_2)
    return param - LEARNING_RATE * m_hat / (np.sqrt(v_hat) + EPSILON)


def allowed(arrays, name):
    """How far an array may be from that of the case.

    What Adam makes of a gradient, g / (|g| + epsilon), has the slope 1 / epsilon at zero: where a
    gradient vanishes but for rounding, the rounding error comes out of it 10^8 times as large.
    """
    error = TOLERANCE * max(np.abs(arrays[name]).max(initial=0.0), 1e-3)
    gradient = name.replace("next.", "d.", 1)
    if name == gradient or gradient not in arrays:
        return error
    slope = LEARNING_RATE * EPSILON / (np.abs(arrays[gradient]) + EPSILON) ** 2
    return error + slope * allowed(arrays, gradient)


def agrees(found, arrays, name):
    """Whether an array has the shape of the case's, and its entries up to rounding."""
    if found.shape != arrays[name].shape:
        return False
    return np.all(np.abs(found.astype(float) - arrays[name]) <= allowed(arrays, name))


@pytest.mark.parametrize(("kind", "options"), CONFIGURATIONS)
def test_a_case_is_what_jax_computes(kind, options):
    case = small_case(kind, **options)
    found = Step(case).everything()
    expected = {k: v for k, v in case.arrays.items() if k not in case.given}
    assert found.keys() ^ expected.keys() == NO_COUNTERPART
    assert [name for name in found if not agrees(found[name], case.arrays, name)] == []


def test_the_models_in_jax_do_not_know_the_package():
    files = sorted(REFERENCES.glob("*.py"))
    assert {path.stem for path in files} == {*MODELS, "blocks"}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names += [getattr(node, "module", None) or ""]
            assert not any(name.startswith("midpg_np") for name in names), path.name
