"""Configurations: parameter counts of the specification, and options that are wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
from small import WIDTHS, assert_close, partners, small_batch, small_model
from strategies import generator

from midpg_np.checks import perturbed, perturbed_params
from midpg_np.experiments.comparison import build_model
from midpg_np.experiments.presets import id_fields
from midpg_np.models import MODELS, make_model, model_config, model_for, model_name

# derivations 12: 2 aware and 14 agnostic fields of width 8, hidden 128, 64, 32.
SPECIFIED = {"vocab_sizes": (10,) * 16, "n_aware": 2, "n_scenarios": 10}


@pytest.mark.parametrize(
    ("kind", "options", "serving", "training_only"),
    [
        ("dnn", {}, 26_881, 0),
        ("dpg", {}, 40_101, 0),
        ("midpg", {}, 40_101, 15_043),
        ("midpg", {"variant": "c"}, 39_717, 15_043),
        ("midpg", {"variant": "rc"}, 52_869, 15_043),
        ("midpg", {"row_divisor": 4, "col_divisor": 4, "d_k": 2}, 44_145, 54_979),
        ("midpg", {"row_divisor": 1, "col_divisor": 1, "d_k": 4}, 81_889, 853_699),
        ("midpg", {"variant": "non"}, 917_345, 853_699),
    ],
)
def test_parameter_counts_of_the_specification(kind, options, serving, training_only):
    count = make_model(kind, **SPECIFIED, **options).count_params()
    assert count[:3] == (serving, training_only, 16 * 10 * 8)


@pytest.mark.parametrize("kind", MODELS)
def test_a_configuration_builds_its_model_again(kind):
    model = small_model(kind)
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in model_config(model).items()}
    assert make_model(model_name(model), **config) == model


DATA = SimpleNamespace(
    vocab_sizes=(3, 5, 4, 6),
    n_aware=1,
    n_scenarios=2,
    field_names=("shop", "user_id", "hour", "item_id"),
)


def test_fields_may_be_named():
    assert model_for("pepnet", DATA, {"prior_fields": ["hour", 1]}).prior_fields == (2, 1)
    with pytest.raises(ValueError, match=r"prior_fields names the field 'usr_id'.*'user_id'\?"):
        model_for("pepnet", DATA, {"prior_fields": ["usr_id"]})


def test_a_data_set_with_ids_gives_them_as_prior():
    assert build_model("pepnet", DATA, {}).prior_fields == (1, 3)
    assert build_model("pepnet", DATA, {"prior_fields": ["hour"]}).prior_fields == (2,)
    assert id_fields(("author_id", "x", "video_id")) == ("video_id", "author_id")
    nameless = SimpleNamespace(**(vars(DATA) | {"field_names": ("a", "b", "c", "d")}))
    assert build_model("pepnet", nameless, {}).priors == (1, 2, 3)  # every agnostic field
    assert build_model("apg", DATA, {"rank": 1}).rank == 1  # without priors, as it was


def test_options_from_numpy_do_not_undo_float32():
    model = small_model("optmsm", orth_weight=np.float64(0.1), eps=np.float64(1e-9))
    assert {type(model.orth_weight), type(model.eps)} == {float}
    assert make_model("dnn", **WIDTHS | {"hidden": [np.int64(4)]}).hidden == (4,)


CHOICES = {
    "dpg": (
        "variant",
        "sigmoid_on",
        "shared_init",
        "repeat_mode",
        "w_layout",
        "form",
        "dwm_inputs",
    ),
    "midpg": ("disc", "disc_scope", "disc_input", "mi_reduce", "mi_grad_to", "negatives"),
}


@pytest.mark.parametrize(
    ("kind", "option"), [(kind, option) for kind, options in CHOICES.items() for option in options]
)
def test_a_wrong_choice_is_named_with_the_right_ones(kind, option):
    with pytest.raises(ValueError, match=rf"{option} must be .*; got 'blokc'"):
        small_model(kind, **{option: "blokc"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_divisor": 4}, r"row_divisor = 4 must divide d_m of layer_1 = 6; .* 1, 2, 3, 6\."),
        ({"col_divisor": 5}, r"col_divisor = 5 must divide d_n of layer_1 = 12"),
        ({"hidden": (12, 9)}, r"col_divisor = 2 must divide d_n of layer_2 = 9; .* 1, 3, 9\."),
        ({"row_divisor": 0}, r"row_divisor = 0 must divide"),
        ({"n_aware": 0}, r"n_aware must lie in \[1, 3\], the number of fields; got 0"),
        ({"n_aware": 4}, r"n_aware must lie in \[1, 3\], the number of fields; got 4"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        small_model("dpg", **options)


def test_unknown_names_come_with_the_closest_known_one():
    with pytest.raises(ValueError, match=r"got 'midgp'\. Did you mean 'midpg'"):
        make_model("midgp")
    with pytest.raises(ValueError, match=r"no option 'mi_wieght'.* Did you mean 'mi_weight'"):
        make_model("midpg", mi_wieght=1.0)


@pytest.mark.parametrize("kind", MODELS)
def test_a_wrong_activation_is_named_too(kind):
    with pytest.raises(ValueError, match="activation must be one of"):
        model = small_model(kind, activation="rellu")
        model.forward(model.init(generator(1)), small_batch(generator(2)))


def test_a_gain_of_zero_is_refused():
    with pytest.raises(ValueError, match="gain"):
        small_model("dpg", gain=0.0)


@pytest.mark.parametrize("kind", ["dpg", "midpg"])
def test_without_hidden_layers_only_the_output_can_be_modulated(kind):
    with pytest.raises(ValueError, match="hidden must hold at least one width"):
        small_model(kind, hidden=())
    model = small_model(kind, hidden=(), modulate_output=True)
    assert list(model.layers) == ["head"]
    params, batch = model.init(generator(1)), small_batch(generator(2))
    assert model.forward(params, batch)[0].logit.shape == (batch.n_rows,)


# --- what the generators read, and the whole forward by its definition ----------------------------


def test_what_the_generators_read():
    """U = [E_aw, H] (equation (1)); in layer 1, H is X = [E_aw, E_ag]."""
    batch = small_batch(generator(10))
    for options, first, second in (
        ({}, "aw X", "aw H"),
        ({"dedup_first": True}, "aw ag", "aw H"),
        ({"dwm_inputs": "aw_only"}, "aw", "aw"),
    ):
        model = small_model("dpg", **options)
        _, cache = model.forward(perturbed(model.init(generator(11)), generator(12)), batch)
        c = cache.network
        H = np.maximum(c.layers["layer_1"].A, 0.0)
        parts = {"aw": c.X[:, :4], "ag": c.X[:, 4:], "X": c.X, "H": H}
        for name, layout in (("layer_1", first), ("layer_2", second)):
            want = np.concatenate([parts[part] for part in layout.split()], axis=1)
            assert np.array_equal(c.layers[name].U, want), (options, name)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def mlp(params, x):
    for layer in params.values():
        A = x @ layer["W"] + layer["b"]
        x = np.maximum(A, 0.0)
    return A


def test_the_whole_model_by_its_definition():
    """derivations 3.2 and 3.3 for one row after the other, default options."""
    model, rng = small_model("midpg"), generator(13)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    partner = partners(rng, 9)
    offsets, (B, D) = np.array([0, 3, 8]), (9, 2)  # vocabularies of 3, 5 and 4; D modulated layers
    z, contexts, cores = np.zeros(B), np.zeros((B, 4)), {"layer_1": [], "layer_2": []}
    for b in range(B):
        h = params["embedding"]["table"][batch.codes[b] + offsets].ravel()
        e = contexts[b] = h[:4]
        for name, d_r in (("layer_1", 2), ("layer_2", 4)):
            p = params[name]
            R = mlp(p["weighting"]["row_generator"], np.concatenate([e, h])).reshape(d_r, 2)
            Q = sigmoid(R @ p["weighting"]["C_share"])
            S = np.kron(Q, np.ones((3, 2)))
            h = np.maximum(h @ (S * p["W"]) + p["b"], 0.0)
            cores[name].append(Q.ravel())
        z[b] = h @ params["head"]["W"][:, 0] + params["head"]["b"][0]
    mi = 0.0
    for name, q in cores.items():
        for e, sign in ((contexts, -1.0), (contexts[partner], 1.0)):
            t = mlp(params["discriminators"][name], np.concatenate([e, q], axis=1))[:, 0]
            mi += np.log1p(np.exp(sign * t)).mean() / D
    output, _ = model.forward(params, batch, draws={"partner": partner})
    assert_close({"logit": output.logit, "mi": output.auxiliary["mi"]}, {"logit": z, "mi": mi})


# --- the step draws what the options say ---------------------------------------------------------


def test_only_the_regulariser_draws():
    batch = small_batch(generator(1))
    assert small_model("dnn").draw(generator(2), batch) == {}
    assert small_model("dpg").draw(generator(2), batch) == {}
    assert small_model("midpg").draw(generator(2), batch).keys() == {"partner"}


@pytest.mark.parametrize("kind", ["permutation", "derangement", "other_scenario"])
def test_partners_follow_the_option(kind):
    batch = small_batch(generator(3), n_rows=30)
    partner = small_model("midpg", negatives=kind).draw(generator(4), batch)["partner"]
    if kind != "other_scenario":
        assert sorted(partner) == list(range(30))
    if kind == "other_scenario":
        assert (batch.scenario[partner] != batch.scenario).all()
    if kind == "derangement":
        assert (partner != np.arange(30)).all()


def test_inference_has_no_auxiliary_term():
    model = small_model("midpg")
    output, _ = model.forward(model.init(generator(5)), small_batch(generator(6)))
    assert output.auxiliary == {}
    assert model.auxiliary_weights == {"mi": 1.0}
    assert small_model("dpg").auxiliary_weights == {}


def test_the_regulariser_starts_near_2_log_2():
    """derivations 3.3: T = 0 gives 2 log 2, and the start is near it."""
    model, rng = small_model("midpg", disc_hidden=(32,)), generator(7)
    params, batch = model.init(rng), small_batch(rng, n_rows=300)
    output, _ = model.forward(params, batch, draws=model.draw(rng, batch))
    assert abs(output.auxiliary["mi"] - 2.0 * np.log(2.0)) < 0.2


def test_sum_and_mean_over_layers():
    values = {}
    for reduce in ("mean", "sum"):
        model, rng = small_model("midpg", mi_reduce=reduce), generator(8)
        params, batch = model.init(rng), small_batch(rng)
        output, _ = model.forward(params, batch, draws=model.draw(generator(9), batch))
        values[reduce] = output.auxiliary["mi"]
    assert values["sum"] == pytest.approx(2 * values["mean"], rel=1e-14)
