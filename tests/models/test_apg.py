"""APG: what it reduces to, what its options change, how it folds, and its sizes."""

from dataclasses import replace

import numpy as np
import pytest
from small import (
    SMALL_MODELS,
    assert_close,
    named_model,
    run,
    small_batch,
    small_model,
    training_case,
)
from strategies import generator

from midpg_np.checks import perturbed_params
from midpg_np.models import APG, make_model
from midpg_np.tree import tree_astype, tree_flatten, tree_map, tree_size

# derivations 12: 2 aware and 14 agnostic fields of width 8, hidden 128, 64, 32.
SPECIFIED = {"vocab_sizes": (10,) * 16, "n_aware": 2, "n_scenarios": 10}
APG_NAMES = [name for name, (kind, _) in SMALL_MODELS.items() if kind == "apg"]


def setting(**options):
    model, rng = small_model("apg", **options), generator(1)
    return model, perturbed_params(model, rng), small_batch(rng)


def logits(model, params, batch):
    return {"logit": model.forward(params, batch)[0].logit}


# --- reductions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("over_rank", [None, 6, 9])
@pytest.mark.parametrize("condition", ["group", "self", "mix"])
@pytest.mark.parametrize("form", ["grouped", "textbook"])
def test_with_the_core_at_the_identity_it_is_a_plain_network(form, condition, over_rank):
    """derivations 11: generator kernel 0, its bias vec(I), U V = W^T, which needs K >= rank W."""
    options = {"condition": condition, "form": form, "rank": 6, "over_rank": over_rank}
    model, params, batch = setting(**options)
    dnn = small_model("dnn")
    plain = perturbed_params(dnn, generator(2))
    apg = {"embedding": plain["embedding"], "head": plain["mlp"]["layer_3"]}
    for name in ("layer_1", "layer_2"):
        W, b = plain["mlp"][name]["W"], plain["mlp"][name]["b"]  # 6 -> 12 and 12 -> 6
        U, V = (W.T, np.eye(6)) if name == "layer_1" else (np.eye(6), W.T)
        if over_rank is None:
            factors = {"U": U, "V": V}
        else:  # E^T E = I, so U E^T E = U and E^T E V = V
            E, _ = np.linalg.qr(generator(3).normal(size=(over_rank, 6)))
            factors = {"U_left": U @ E.T, "U_right": E, "V_left": E.T, "V_right": E @ V}
        last = params[name]["generator"]["layer_1"]
        silent = {"W": 0.0 * last["W"], "b": np.eye(6).ravel()}
        apg[name] = factors | {"generator": {"layer_1": silent}, "b": b}
    assert_close(logits(model, apg, batch), logits(dnn, plain, batch))


@pytest.mark.parametrize("kept", ["group", "self"])
def test_a_mixed_condition_of_which_one_half_is_not_read(kept):
    """mix reads [E_aw, H]: without the other half's rows in the kernels it is group, or self."""
    mixed, params, batch = setting(condition="mix", generate_bias=True)
    single = dict(params)
    for name in ("layer_1", "layer_2"):
        for network in ("generator", "bias_generator"):
            W = params[name][network]["layer_1"]["W"]
            aware, own = W[: mixed.dim_aware], W[mixed.dim_aware :]
            kernel = aware if kept == "group" else own
            silent = own if kept == "group" else aware
            silent *= 0.0  # a view of the kernel in ``params``
            affine = params[name][network]["layer_1"] | {"W": kernel}
            single[name] = single[name] | {network: {"layer_1": affine}}
    want = logits(replace(mixed, condition=kept), single, batch)
    assert_close(logits(mixed, params, batch), want)


@pytest.mark.parametrize(
    ("condition", "first", "second"),
    [("group", "aw", "aw"), ("self", "X", "H"), ("mix", "aw X", "aw H")],
)
def test_what_the_generators_read(condition, first, second):
    model, params, batch = setting(condition=condition)
    _, (_, c) = model.forward(params, batch)
    parts = {"aw": c.X[:, :4], "X": c.X, "H": np.maximum(c.layers["layer_1"].A, 0.0)}
    for name, layout in (("layer_1", first), ("layer_2", second)):
        z = c.layers[name].generator.affine[0].x
        want = np.concatenate([parts[part] for part in layout.split()], axis=1)
        assert np.array_equal(z, want), name


def test_with_group_rows_of_the_same_context_share_their_cores():
    model, params, batch = setting()
    batch.codes[:, :2] = batch.codes[:1, :2]
    _, cache = model.forward(params, batch)
    for c in cache.network.layers.values():
        assert (c.S == c.S[:1]).all()
    assert len(np.unique(cache.network.layers["layer_1"].A, axis=0)) > 1


def test_the_whole_model_by_its_definition():
    """derivations 9.1 for one row after the other, default options."""
    model, params, batch = setting()
    offsets, want = np.array([0, 3, 8]), []  # vocabularies of 3, 5 and 4
    for codes in batch.codes:
        h = params["embedding"]["table"][codes + offsets].ravel()
        e_aw = h[:4]
        for name in ("layer_1", "layer_2"):
            p = params[name]
            s = p["generator"]["layer_1"]["b"] + e_aw @ p["generator"]["layer_1"]["W"]
            U, V = p["U_left"] @ p["U_right"], p["V_left"] @ p["V_right"]
            h = np.maximum(U @ (s.reshape(3, 3) @ (V @ h)) + p["b"], 0.0)
        want.append(h @ params["head"]["W"][:, 0] + params["head"]["b"][0])
    assert_close(logits(model, params, batch), {"logit": np.array(want)})


@pytest.mark.parametrize("name", [n for n in APG_NAMES if "textbook" not in n])
def test_both_forms_of_the_whole_model_are_equal(name):
    model = named_model(name)
    results = []
    for form in ("grouped", "textbook"):
        case = training_case(replace(model, form=form), generator(7))
        (logit,), grads = run(case, rng=generator(8))
        results.append(grads | {"logit": logit})
    assert_close(*results)


# --- the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["group", "self", "mix"])
def test_at_the_start_no_layer_is_silent(condition):
    """Every core is about the identity, so the signal passes: a test of the initial values."""
    model = make_model("apg", **SPECIFIED, condition=condition)
    rng = generator(5)
    params, batch = model.init(rng), rng.integers(0, 10, size=(200, 16))
    _, cache = model.forward(params, small_batch(rng, 200)._replace(codes=batch))
    inputs = [c.product.H for c in cache.network.layers.values()]
    for H, c in zip(inputs, cache.network.layers.values(), strict=True):
        norms = np.linalg.norm(c.S, axis=(1, 2))
        assert ((norms > 2.0) & (norms < 4.0)).all()  # sqrt(8) = 2.83
        assert np.linalg.norm(c.A) > 0.1 * np.linalg.norm(H)


# --- the form for prediction ---------------------------------------------------------------------


@pytest.mark.parametrize("name", APG_NAMES)
def test_the_serving_form_predicts_the_same(name):
    model, rng = named_model(name), generator(6)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    before = {path: leaf.copy() for path, leaf in tree_flatten(params).items()}
    small, folded = model.serving_form(params)
    assert small == replace(model, over_rank=None)
    assert_close(logits(small, folded, batch), logits(model, params, batch))
    assert_close(tree_flatten(params), before, tol=0.0)
    count = model.count_params()
    assert tree_size(folded) == count.serving + count.embedding
    assert tree_size(params) == count.serving + count.training_only + count.embedding
    fresh = small.init(rng)
    assert tree_map(np.shape, folded) == tree_map(np.shape, fresh)
    assert small.count_params() == count._replace(training_only=0)


def test_folding_multiplies_left_by_right():
    """Square factors: the shapes would allow the other order."""
    model, params, batch = setting(hidden=(6, 6), rank=6, over_rank=6)
    small, folded = model.fold(params)
    assert_close(logits(small, folded, batch), logits(model, params, batch))
    p = params["layer_1"]
    assert np.array_equal(folded["layer_1"]["U"], p["U_left"] @ p["U_right"])


def test_folding_keeps_float32_and_what_is_folded_stays():
    model, params, _ = setting()
    small, folded = model.fold(tree_astype(params, np.float32))
    assert {leaf.dtype for leaf in tree_flatten(folded).values()} == {np.dtype(np.float32)}
    again, same = small.fold(folded)
    assert again == small
    assert all(tree_flatten(same)[k] is leaf for k, leaf in tree_flatten(folded).items())


# --- sizes and options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "serving", "training_only", "multiply_adds"),
    [
        ({}, 7_873, 33_536, 7_648),
        ({"over_rank": None}, 7_873, 0, 7_648),
        ({"condition": "self"}, 25_281, 33_536, 25_056),
        ({"condition": "mix"}, 28_353, 33_536, 28_128),
        ({"generate_bias": True}, 11_457, 33_536, 11_232),
        ({"generator_hidden": (32,)}, 12_577, 33_536, 12_256),
        ({"rank": 4, "over_rank": 4}, 3_249, 96, 3_024),
    ],
)
def test_parameter_counts(options, serving, training_only, multiply_adds):
    count = make_model("apg", **SPECIFIED, **options).count_params()
    assert count == (serving, training_only, 16 * 10 * 8, multiply_adds, 0)


def test_the_formula_of_the_sizes():
    """derivations 9.4, layer by layer."""
    K, P, d_z = 8, 64, 16
    total = serving = 33
    for I, O in ((128, 128), (128, 64), (64, 32)):  # noqa: E741
        total += P * (I + O + 2 * K) + (d_z + 1) * K * K + O
        serving += K * (I + O) + (d_z + 1) * K * K + O
    assert (serving, total) == (7_873, 41_409)
    count = make_model("apg", **SPECIFIED).count_params()
    assert (count.serving, count.serving + count.training_only) == (serving, total)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 7}, r"rank must lie in \[1, 6\], because layer_\d has .*; got 7\.$"),
        ({"rank": 0}, r"rank must lie in \[1, 6\]"),
        ({"hidden": (12, 2)}, r"in \[1, 2\], because layer_2 has 12 inputs and 2 outputs; got 3"),
        ({"rank": 7, "hidden": (9, 5)}, r"in \[1, 5\], because layer_2 has 9 inputs and 5 outputs"),
        ({"over_rank": 2}, r"over_rank must be None or at least rank = 3.*; got 2\.$"),
        ({"condition": "own"}, r"condition must be one of \('group', 'self', 'mix'\); got 'own'"),
        ({"form": "row"}, r"form must be one of"),
        ({"activation": "rellu"}, r"activation must be one of"),
        ({"n_aware": 0}, r"n_aware must lie in \[1, 3\].* 'group'; got 0"),
        ({"n_aware": 4, "condition": "self"}, r"n_aware must lie in \[0, 3\].*; got 4"),
        ({"hidden": ()}, r"hidden must hold at least one width of at least 1.*; got \(\)"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message) as error:
        small_model("apg", **options)
    assert "\n" not in str(error.value)


def test_a_condition_of_ones_own_needs_no_aware_fields():
    model, params, batch = setting(condition="self", n_aware=0)
    output, cache = model.forward(params, batch)
    grads = model.backward(output, cache)
    assert output.logit.shape == (9,)
    assert grads["embedding"]["table"].rows.any()


def test_the_output_layer_is_static():
    model, params, _ = setting()
    assert list(model.layers) == ["layer_1", "layer_2"]
    assert {k: leaf.shape for k, leaf in params["head"].items()} == {"W": (6, 1), "b": (1,)}
    assert not hasattr(APG, "routes_by_scenario")
