"""DNN, DPG and MI-DPG agree with their PyTorch versions: values, intermediates and gradients.

The reference (``tests/torch_reference``) is written from docs/derivations and differentiated by
autograd, so a mistake in the mathematics would have to be made twice, in two forms, to go unseen.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midpg_np.models import make_model, model_config
from midpg_np.training.checkpoint import load_model, save_model
from midpg_np.training.optim import Adam
from midpg_np.training.step import rows_read
from midpg_np.tree import tree_flatten

torch = pytest.importorskip("torch", reason="the independent reference needs PyTorch")

from torch_reference.comparison import (  # noqa: E402
    PARTNERS,
    PERMUTATION,
    SCENARIO,
    as_tensors,
    deviation,
    deviations,
    moved,
    package_step,
    random_batch,
    reference_step,
)

TOLERANCE = 1e-12  # of the largest entry, as in derivations 13.2

# Widths 20 -> 12 -> 8: divisors 4 and 2 fit every axis in both layouts of W, and no W is square.
SIZES = {
    "vocab_sizes": (5, 4, 3, 6),
    "n_aware": 2,
    "n_scenarios": 5,
    "dim_embedding": 5,
    "hidden": (12, 8),
}
MODULATION = {"row_divisor": 4, "col_divisor": 2, "d_k": 2, "generator_hidden": (6,)}
REGULARISER = {"disc_hidden": (7,), "mi_weight": 0.7}
DEFAULTS = {
    "dnn": SIZES,
    "dpg": SIZES | MODULATION,
    "midpg": SIZES | MODULATION | REGULARISER,
}

VARIANTS = ("non", "rc", "r", "c")
MODES = ("block", "tile")
FORMS = ("textbook", "row", "column", "grouped")
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "softplus", "silu", "identity")

# Table 3.8, one at a time; d_k = 1 where the output is modulated, whose core has one column.
OPTIONS = {
    "w_layout": {"w_layout": "out_in"},
    "sigmoid_on": {"sigmoid_on": "factors"},
    "dwm_inputs": {"dwm_inputs": "aw_only"},
    "dedup_first": {"dedup_first": True},
    "dwm_detach_h": {"dwm_detach_h": True},
    "dwm_detach_h and dedup_first": {"dwm_detach_h": True, "dedup_first": True},
    "modulate_output": {"modulate_output": True, "d_k": 1},
    "modulate_output out_in": {"modulate_output": True, "d_k": 1, "w_layout": "out_in"},
    "modulate_bias": {"modulate_bias": True},
    "modulate_bias out_in": {"modulate_bias": True, "w_layout": "out_in"},
    "disc_scope": {"disc_scope": "concat"},
    "mi_reduce": {"mi_reduce": "sum"},
    "disc_input full": {"disc_input": "full"},
    "disc_input full out_in": {"disc_input": "full", "w_layout": "out_in"},
    "disc_input factors": {"disc_input": "factors"},
    "mi_grad_to disc+gen": {"mi_grad_to": "disc+gen"},
    "mi_grad_to disc": {"mi_grad_to": "disc"},
    "mi_detach_context": {"mi_detach_context": True},
    "disc bilinear": {"disc": "bilinear"},
    "disc bilinear full": {"disc": "bilinear", "disc_input": "full"},
    "disc_hidden depth 0": {"disc_hidden": ()},
    "disc_hidden depth 2": {"disc_hidden": (5, 4)},
    "generator_hidden depth 0": {"generator_hidden": ()},
    "generator_hidden depth 2": {"generator_hidden": (5, 4)},
    "gain": {"gain": 2.0},
    "d_k": {"d_k": 1},
    "core sizes": {"row_divisor": 2, "col_divisor": 4},
    "three layers": {"hidden": (12, 16, 8)},
} | {f"activation {name}": {"activation": name} for name in ACTIVATIONS}

# Options that leave all shapes alone, so that the reference can run without them.
UNSHAPED = {
    "gain": {"gain": 2.0},
    "sigmoid_on": {"sigmoid_on": "factors"},
    "repeat_mode": {"repeat_mode": "tile"},
    "dwm_detach_h": {"dwm_detach_h": True},
    "modulate_bias": {"modulate_bias": True},
    "activation": {"activation": "leaky_relu"},
    "mi_weight": {"mi_weight": 0.8},
    "mi_reduce": {"mi_reduce": "sum"},
    "mi_grad_to disc+gen": {"mi_grad_to": "disc+gen"},
    "mi_grad_to disc": {"mi_grad_to": "disc"},
    "mi_detach_context": {"mi_detach_context": True},
}


def build(name, **options):
    return make_model(name, **(DEFAULTS[name] | options))


def assert_agrees(model, *args, **kwargs):
    found = deviations(model, *args, **kwargs)
    wrong = {key: f"{value:.1e}" for key, value in found.items() if not value <= TOLERANCE}
    assert not wrong, f"{model} differs from the reference: {wrong}"


@pytest.mark.parametrize("partner", [PERMUTATION, None], ids=["training", "inference"])
class TestAgreement:
    @pytest.mark.parametrize("hidden", [(), (12,), (12, 8, 6)], ids=str)
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_dnn(self, activation, hidden, partner):
        assert_agrees(build("dnn", activation=activation, hidden=hidden), partner)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_variant_mode_form(self, variant, mode, form, partner):
        options = {"variant": variant, "repeat_mode": mode, "form": form, "gain": 2.0}
        assert_agrees(build("dpg", **options), partner)
        assert_agrees(build("midpg", **options), partner)

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("option", OPTIONS)
    def test_option(self, option, variant, partner):
        # The two forms of the regulariser and those of the product: the oracle and the fast one.
        assert_agrees(build("midpg", variant=variant, **OPTIONS[option]), partner)
        textbook = {"form": "textbook", "repeat_mode": "tile"}
        assert_agrees(build("midpg", variant=variant, **textbook, **OPTIONS[option]), partner)


@pytest.mark.parametrize("name", ["dnn", "dpg", "midpg"])
def test_cross_entropy_of_positives_only(name):
    assert_agrees(build(name), ce="positive_only")


@pytest.mark.parametrize("form", ["textbook", "grouped"])
@pytest.mark.parametrize("disc", ["mlp", "bilinear"])
@pytest.mark.parametrize("partner", PARTNERS.values(), ids=PARTNERS.keys())
def test_partner(partner, disc, form):
    assert_agrees(build("midpg", disc=disc, form=form), partner)


@pytest.mark.parametrize("partner", [np.array([0]), None], ids=["training", "inference"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["dnn", "dpg", "midpg"])
def test_batch_of_one(name, form, partner):
    options = {} if name == "dnn" else {"form": form}
    assert_agrees(build(name, **options), partner, scenario=np.array([3]))


@pytest.mark.parametrize("option", UNSHAPED)
def test_a_reference_without_the_option_disagrees(option):
    model = build("midpg", variant="rc", **UNSHAPED[option])
    without = {key: model_config(build("midpg"))[key] for key in UNSHAPED[option]}
    assert max(deviations(model, reference=without).values()) > 1e-4


@st.composite
def midpg_options(draw):
    choices = {
        "hidden": [(8,), (12, 8), (12, 16, 8)],
        "activation": ACTIVATIONS,
        "variant": VARIANTS,
        "row_divisor": [1, 2, 4],
        "col_divisor": [1, 2, 4],
        "generator_hidden": [(), (6,), (5, 4)],
        "gain": [1.0, 2.0],
        "sigmoid_on": ["product", "factors"],
        "shared_init": ["normal", "glorot"],
        "repeat_mode": MODES,
        "w_layout": ["in_out", "out_in"],
        "dwm_inputs": ["both", "aw_only"],
        "form": FORMS,
        "disc": ["mlp", "bilinear"],
        "disc_hidden": [(), (7,), (5, 4)],
        "disc_scope": ["per_layer", "concat"],
        "disc_input": ["core", "full", "factors"],
        "mi_reduce": ["mean", "sum"],
        "mi_grad_to": ["all", "disc+gen", "disc"],
        "negatives": ["permutation", "derangement", "other_scenario"],
    }
    flags = (
        "dedup_first",
        "dwm_detach_h",
        "modulate_output",
        "modulate_bias",
        "mi_detach_context",
    )
    options = {key: draw(st.sampled_from(values)) for key, values in choices.items()}
    options |= {key: draw(st.booleans()) for key in flags}
    options["d_k"] = 1 if options["modulate_output"] else draw(st.sampled_from([1, 2]))
    return options


@settings(max_examples=max(150, settings().max_examples))  # the space is wide, a case 10 ms
@given(
    options=midpg_options(),
    n_aware=st.integers(1, 4),
    ce=st.sampled_from(["full", "positive_only"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_combinations(options, n_aware, ce, seed):
    model = build("midpg", n_aware=n_aware, **options)
    batch = SimpleNamespace(scenario=SCENARIO)
    partner = model.draw(np.random.default_rng(seed), batch)["partner"]
    assert_agrees(model, partner, ce=ce, seed=seed)


@pytest.mark.parametrize("table_mode", ["table", "rows"])
def test_adam_steps_and_a_reloaded_model(table_mode, tmp_path):
    rng = np.random.default_rng(0)
    model = build("midpg")
    params = moved(model, rng)
    tensors = as_tensors(params)
    theirs = torch.optim.Adam(tree_flatten(tensors).values(), lr=1e-2, foreach=False)
    ours = Adam(lr=1e-2, table_mode=table_mode)
    state = ours.init(params)
    batches = [random_batch(rng, model, scenario) for scenario in (SCENARIO, SCENARIO[:4])]
    options = SimpleNamespace(**model_config(model))
    for batch in (*batches, *batches):
        draws = model.draw(rng, batch)
        ours.prepare(params, state, rows_read(model, batch))
        ours.update(params, package_step(model, params, batch, draws).grads, state)
        theirs.zero_grad(set_to_none=True)
        reference_step("midpg", options, tensors, batch, draws)
        theirs.step()
    ours.settle(params, state)
    leaves = tree_flatten(params)
    for path, tensor in tree_flatten(tensors).items():
        assert deviation(leaves[path], tensor) <= TOLERANCE, path

    save_model(tmp_path / "model.safetensors", model, params)
    loaded = load_model(tmp_path / "model.safetensors")
    output, _ = loaded.model.forward(loaded.params, batches[0])
    dz = np.ones(batches[0].n_rows)
    expected = reference_step("midpg", options, tensors, batches[0], None, dz=dz)
    assert deviation(output.logit, expected.values["logit"]) <= TOLERANCE
