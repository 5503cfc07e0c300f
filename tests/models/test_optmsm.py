"""OptMSM, reconstructed: when it is a DNN, sizes, start, and what depends on the scenario."""

import numpy as np
import pytest
from small import assert_close, small_batch, small_model
from strategies import generator

from midpg_np.batch import Batch
from midpg_np.checks import expect_close, perturbed_params
from midpg_np.models import ModelOutput, make_model
from midpg_np.tree import tree_flatten, tree_map

# derivations 12: 2 aware and 14 agnostic fields of width 8, ten scenarios.
SPECIFIED = {"vocab_sizes": (10,) * 16, "n_aware": 2, "n_scenarios": 10}
N_THETA = (32 + 32 + 1) * 32 + 32 + 1


def setting(seed=1, **options):
    model, rng = small_model("optmsm", **options), generator(seed)
    return model, perturbed_params(model, rng), small_batch(rng)


@pytest.mark.parametrize("hyper", ["full", "low_rank"])
def test_without_codes_and_with_equal_embeddings_it_is_a_dnn(hyper):
    """derivations 10.4: Z = 0, A_k = A, and a large enough that a ReLU would not cut m.

    The first layer of the DNN is the encoder and A side by side, each on its own fields.
    """
    model, params, batch = setting(hyper=hyper)
    params["code"]["Z"] = 0.0 * params["code"]["Z"]
    shared = params["shared"]
    shared["A"] = np.repeat(shared["A"][:1], 4, axis=0)
    shared["a"] = np.full_like(shared["a"], 50.0)
    d_aw, d_ag = model.dims_input
    first = np.zeros((d_aw + d_ag, 3 + 5))
    first[:d_aw, :3], first[d_aw:, 3:] = params["encoder"]["W"], shared["A"][0]
    bias = np.concatenate([params["encoder"]["b"], shared["a"][0]])
    tower = params["hypernetwork"]["omega_0"]
    mlp = {"layer_1": {"W": first, "b": bias}, "layer_2": tower["layer_1"]}
    mlp |= {"layer_3": tower["layer_2"]}
    dnn = small_model("dnn", hidden=(3 + 5, model.tower_hidden))
    want = dnn.forward({"embedding": params["embedding"], "mlp": mlp}, batch)[0].logit
    expect_close(model.forward(params, batch)[0].logit, want)


@pytest.mark.parametrize(
    ("options", "serving"),
    [
        ({}, 73_115),
        ({"combine": "select"}, 73_115 - 33 * 10),
        ({"orth_on": "gram"}, 73_115),
        ({"hyper": "low_rank"}, 73_115 - 16 * N_THETA + 16 * 4 + 4 * N_THETA),
        ({"hyper_input": "aware"}, 73_115 - 10 * 16),
        ({"hyper_input": "aware", "dim_code": 99}, 73_115 - 10 * 16),
        (
            {"hyper": "low_rank", "hyper_rank": 2, "hyper_input": "aware"},
            73_115 - 10 * 16 - 16 * N_THETA + 16 * 2 + 2 * N_THETA,
        ),
    ],
)
def test_parameter_counts(options, serving):
    count = make_model("optmsm", **SPECIFIED, **options).count_params()
    assert (count.serving, count.training_only, count.state) == (serving, 0, 0)
    assert count.embedding == 16 * 10 * 8


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 16 * 32 + 10 * 112 * 32 + 32 * 10 + 10 * 32 + 64 * 32 + 32),
        ({"combine": "select"}, 16 * 32 + 112 * 32 + 64 * 32 + 32),
        (
            {"combine": "select", "hyper_input": "aware"},
            16 * 32 + 112 * 32 + 17 * (64 * 32 + 32 + 32 + 1),
        ),
        (
            {"combine": "select", "hyper_input": "aware", "hyper": "low_rank"},
            16 * 32 + 112 * 32 + 16 * 4 + 5 * (64 * 32 + 32 + 32 + 1),
        ),
    ],
)
def test_multiplications_per_row(options, expected):
    """Towers of scenarios are made once per batch; with "aware" a row is 17 towers, or 5."""
    assert make_model("optmsm", **SPECIFIED, **options).count_params().multiply_adds == expected


@pytest.mark.parametrize("options", [{}, {"hyper": "low_rank"}, {"hyper_input": "aware"}])
def test_the_first_kernel_of_a_tower_starts_with_glorot_s_variance(options):
    model, rng = make_model("optmsm", **SPECIFIED, **options), generator(2)
    hypernetwork, variances = model.tower.hypernetwork, []
    for _ in range(30):
        params = model.init(rng)
        Z = params["code"]["Z"] if "code" in params else rng.normal(0.0, 0.01, size=(10, 16))
        theta, _ = hypernetwork.forward(params["hypernetwork"], Z)
        variances.append(hypernetwork.tower.unpack(theta)["layer_1"]["W"].var())
    assert np.mean(variances) == pytest.approx(2 / (64 + 32), rel=0.1)


def test_scenarios_start_with_different_towers():
    model = small_model("optmsm")
    params = model.init(generator(3))
    assert not np.isclose(*params["code"]["Z"][:2]).any()
    codes = np.zeros((4, 3), dtype=int)
    batch = Batch(codes, np.arange(4), np.zeros(4))
    params["encoder"]["b"] = params["encoder"]["b"] + 1.0  # embeddings alone are near zero
    logit = model.forward(params, batch)[0].logit
    assert len(set(logit.tolist())) == 4


@pytest.mark.parametrize("combine", ["attention", "select"])
@pytest.mark.parametrize("hyper_input", ["code", "aware"])
def test_what_reads_the_scenario(combine, hyper_input):
    model, params, batch = setting(combine=combine, hyper_input=hyper_input)
    moved = batch._replace(scenario=(batch.scenario + 1) % 4)
    want, got = (model.forward(params, b)[0].logit for b in (batch, moved))
    reads = combine == "select" or hyper_input == "code"
    assert model.routes_by_scenario == reads
    assert np.isclose(got, want).all() != reads


def test_prediction_does_without_the_loss():
    for options, n_sets in (({}, 1), ({"combine": "select"}, 0)):
        model, params, batch = setting(**options)
        output, cache = model.forward(params, batch)
        assert output.auxiliary == {} and cache.network.shared.orthogonality is None
        assert (cache.network.shared.embeddings is not None) == bool(n_sets)
        trained, _ = model.forward(params, batch, draws={})
        assert np.array_equal(trained.logit, output.logit)
        assert trained.auxiliary.keys() == model.auxiliary_weights.keys()


def test_codes_get_a_gradient_per_scenario_present():
    model, params, batch = setting()
    _, cache = model.forward(params, batch)
    Z = model.backward(ModelOutput(np.ones(9), {}), cache)["code"]["Z"]
    assert Z.ids.tolist() == [0, 1, 3] and Z.rows.shape == (3, 6)


def test_a_single_scenario():
    """No pair to be orthogonal, nothing for the attention to choose from."""
    model, rng = small_model("optmsm", n_scenarios=1), generator(4)
    params, batch = perturbed_params(model, rng), small_batch(rng)
    batch = batch._replace(scenario=np.zeros(9, dtype=int))
    output, cache = model.forward(params, batch, draws={})
    assert output.auxiliary == {"orthogonality": 0.0}
    grads = model.backward(ModelOutput(np.ones(9), {"orthogonality": 1.0}), cache)
    still = {path for path, g in tree_flatten(grads).items() if not _dense(g).any()}
    assert still == {"shared.attention.W", "shared.attention.b"}
    select = small_model("optmsm", n_scenarios=1, combine="select")
    del params["shared"]["attention"]
    expect_close(select.forward(params, batch)[0].logit, output.logit)


def _dense(gradient):
    return gradient.dense() if hasattr(gradient, "dense") else gradient


def test_low_rank_of_full_rank_is_full():
    """Omega_in = I leaves Omega_out as it is."""
    full, params, batch = setting()
    low = small_model("optmsm", hyper="low_rank", hyper_rank=full.dim_code)
    Omega = params["hypernetwork"]["Omega"]
    factors = {"Omega_in": np.eye(full.dim_code), "Omega_out": Omega}
    hypernetwork = factors | {"omega_0": params["hypernetwork"]["omega_0"]}
    other = tree_map(np.copy, params | {"hypernetwork": hypernetwork})
    want, got = full.forward(params, batch, draws={}), low.forward(other, batch, draws={})
    expect_close(got[0].logit, want[0].logit)
    d_output = ModelOutput(generator(5).normal(size=9), {"orthogonality": 0.3})
    g_full, g_low = full.backward(d_output, want[1]), low.backward(d_output, got[1])
    assert_close(
        {"Omega": g_low["hypernetwork"]["Omega_out"]}, {"Omega": g_full["hypernetwork"]["Omega"]}
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": "sum"}, r"combine must be one of \('attention', 'select'\); got 'sum'"),
        ({"orth_on": "sine"}, r"orth_on must be one of \('cosine', 'gram'\); got 'sine'"),
        ({"hyper": "none"}, r"hyper must be one of \('full', 'low_rank'\); got 'none'"),
        ({"hyper_input": "id"}, r"hyper_input must be one of \('code', 'aware'\); got 'id'"),
        ({"activation": "rleu"}, r"activation must be one of .*; got 'rleu'"),
        ({"n_aware": 3}, r"n_aware must lie in \[1, 2\].*; got 3"),
        ({"n_aware": 0}, r"n_aware must lie in \[1, 2\].*; got 0"),
        ({"tower_hidden": 0}, r"tower_hidden must be at least 1; got 0"),
        ({"hyper_rank": 0}, r"hyper_rank must be at least 1; got 0"),
        ({"orth_weight": -1.0}, r"orth_weight must not be negative; got -1.0"),
        ({"eps": 0.0}, r"eps must be greater than 0; got 0\.0"),
        ({"hidden": (4,)}, r"model 'optmsm' has no option 'hidden'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        small_model("optmsm", **options)


def test_a_scenario_that_does_not_exist_is_named():
    model, params, batch = setting()
    with pytest.raises(ValueError, match=r"scenario must lie in \[0, 4\)"):
        model.forward(params, batch._replace(scenario=batch.scenario + 3))


def test_the_class_says_that_it_is_a_reconstruction():
    assert "RECONSTRUCTION" in type(small_model("optmsm")).__doc__
