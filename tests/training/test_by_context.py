"""One plain network per context (``dwm_inputs="aw_only"``) predicts what the model does."""

from itertools import product

import numpy as np
import pytest
from fake_device import fake_xp, to_fake
from hypothesis import given
from hypothesis import strategies as st
from small import WIDTHS, assert_close, small_model
from strategies import generator
from systems.dpg import MODULATED, repair

from midpg_np import backend
from midpg_np.batch import Batch
from midpg_np.checks import perturbed_params
from midpg_np.data.batches import Dataset
from midpg_np.models.dnn import DNN
from midpg_np.training import by_context
from midpg_np.training.by_context import context_ids, logits_by_context, logits_in_blocks
from midpg_np.training.evaluate import predict_logits
from midpg_np.tree import tree_astype

# What is read when a core is formed and put on W; variants and kinds of model are looped apart.
OPTIONS = {
    name: MODULATED[name]
    for name in (
        *("repeat_mode", "w_layout", "sigmoid_on", "gain", "modulate_output", "modulate_bias"),
        *("dedup_first", "dwm_detach_h"),
    )
}


def aware_only(kind="dpg", **options):
    return small_model(kind, **options, dwm_inputs="aw_only")


def rows_of(contexts, rng):
    """Rows with given codes in the first two fields; the codes of the third are drawn."""
    contexts = np.asarray(contexts)
    third = rng.integers(0, WIDTHS["vocab_sizes"][2], size=(len(contexts), 1))
    codes = np.concatenate([contexts, third], axis=1)
    return Batch(codes, np.zeros(len(codes), dtype=np.int64))


def some_contexts(rng, n_rows):
    return rng.integers(0, WIDTHS["vocab_sizes"][:2], size=(n_rows, 2))


def by_contexts(model, params, rows, batch_size=3, device="cpu"):
    numbered = context_ids(rows.codes[:, : model.n_aware])
    return logits_by_context(model, params, rows, numbered, batch_size, device)


def whole(model, params, rows):
    return model.forward(params, rows)[0].logit


@pytest.mark.parametrize("kind", ["dpg", "midpg"])
@pytest.mark.parametrize("variant", MODULATED["variant"])
def test_every_option(kind, variant):
    rng = generator(1)
    rows = rows_of(some_contexts(rng, 20), rng)
    for values in product(*OPTIONS.values()):
        options = repair(dict(zip(OPTIONS, values, strict=True)))
        model = aware_only(kind, variant=variant, **options)
        params = perturbed_params(model, rng)
        want = whole(model, params, rows)
        assert_close({str(options): by_contexts(model, params, rows)}, {str(options): want})


@pytest.mark.parametrize("options", [{"hidden": ()}, {"hidden": (), "modulate_bias": True}])
def test_a_modulated_output_alone(options):
    model, rng = aware_only(modulate_output=True, d_k=1, **options), generator(2)
    params, rows = perturbed_params(model, rng), rows_of(some_contexts(rng, 9), rng)
    assert_close({"z": by_contexts(model, params, rows)}, {"z": whole(model, params, rows)})


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("memory", [1, 2000, 10**6])
def test_weights_of_one_context_of_a_few_or_of_all_at_a_time(activation, memory, monkeypatch):
    monkeypatch.setattr("midpg_np.models.aware_only._MEMORY", memory)
    model, rng = aware_only(activation=activation), generator(3)
    params, rows = perturbed_params(model, rng), rows_of(some_contexts(rng, 40), rng)
    assert_close({"z": by_contexts(model, params, rows)}, {"z": whole(model, params, rows)})


@given(st.lists(st.integers(1, 9), min_size=1, max_size=15), st.integers(1, 10), st.data())
def test_groups_of_any_size(sizes, batch_size, data):
    """Up to all 15 contexts of the small model, unknown codes (0) included; one row is a group."""
    places = data.draw(st.permutations(range(15)))[: len(sizes)]
    rng = generator(4)
    drawn = rng.permutation(np.repeat(places, sizes))
    rows = rows_of(np.stack([drawn // 5, drawn % 5], axis=1), rng)
    model = aware_only("midpg")
    params = perturbed_params(model, rng)
    got = by_contexts(model, params, rows, batch_size)
    assert_close({"z": got}, {"z": whole(model, params, rows)})


@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 5, 2**40])] * 3), min_size=1, max_size=20))
def test_numbers_of_contexts(contexts):
    """Three codes of 2^40 would overflow as one number."""
    ids, n_contexts = context_ids(np.array(contexts))
    assert n_contexts == len(set(contexts))
    assert set(ids) == set(range(n_contexts))
    assert len(set(zip(ids, contexts, strict=True))) == n_contexts


def test_networks_are_plain_and_share_the_tables():
    model, rng = aware_only(), generator(5)
    params = tree_astype(perturbed_params(model, rng), np.float32)
    contexts = np.array([[0, 0], [2, 4]])
    networks = list(model.context_networks(params, contexts))
    assert len(networks) == 2
    for network, weights in networks:
        assert type(network) is DNN
        assert weights["embedding"] is params["embedding"]
        assert {layer["W"].dtype.name for layer in weights["mlp"].values()} == {"float32"}
    first, second = (weights["mlp"]["layer_1"]["W"] for _, weights in networks)
    assert not np.allclose(first, second, rtol=1e-3)
    rows = rows_of(some_contexts(rng, 30), rng)
    got = by_contexts(model, params, rows)
    assert got.dtype == np.float32
    assert_close({"z": got}, {"z": whole(model, params, rows)}, 1e-5)


def grouped_blocks(monkeypatch):
    """List the number of rows of every block that is grouped."""
    seen = []

    def noted(model, params, rows, *rest):
        seen.append(rows.n_rows)
        return logits_by_context(model, params, rows, *rest)

    monkeypatch.setattr(by_context, "logits_by_context", noted)
    return seen


def test_blocks_of_few_rows_per_context_go_through_the_model(monkeypatch):
    monkeypatch.setattr(by_context, "BLOCK_ROWS", 64)
    seen = grouped_blocks(monkeypatch)
    model, rng = aware_only(), generator(6)
    params = perturbed_params(model, rng)
    # 32 rows per context; one row of a third context; one context, and 31 rows of it at the end
    context = [0] * 32 + [1] * 32 + [0] * 32 + [1] * 31 + [2] + [3] * 64 + [4] * 31
    rows = rows_of([(0, c) for c in context], rng)
    got = logits_in_blocks(model, params, rows, 10, "cpu")
    assert seen == [64, 64]
    assert_close({"z": got}, {"z": whole(model, params, rows)})


@pytest.mark.parametrize(
    ("options", "is_grouped"),
    [
        ({"dwm_inputs": "aw_only"}, True),
        ({"dwm_inputs": "both"}, False),
        ({"dwm_inputs": "aw_only", "form": "row"}, False),
        ({"dwm_inputs": "aw_only", "form": "textbook"}, False),
    ],
)
def test_which_models_are_predicted_by_context(options, is_grouped, monkeypatch):
    seen = grouped_blocks(monkeypatch)
    model, rng = small_model("midpg", **options), generator(7)
    params, rows = perturbed_params(model, rng), rows_of([(1, 2), (2, 1)] * 40, rng)
    sizes = model.vocab_sizes, model.n_aware, model.n_scenarios
    data = Dataset(*rows, *sizes, ("a", "b", "c"), tuple("wxyz"))
    got = predict_logits(model, params, data)
    assert seen == ([80] if is_grouped else [])
    assert_close({"z": got}, {"z": whole(model, params, rows)})
    assert predict_logits(model, params, data.take(np.arange(0))).shape == (0,)


@pytest.mark.parametrize("options", [{}, {"modulate_output": True, "modulate_bias": True}])
def test_on_a_device(options, monkeypatch):
    monkeypatch.setattr(backend, "_load_cupy", lambda: fake_xp)
    model, rng = aware_only(**repair({"modulate_output": False} | options)), generator(8)
    params, rows = perturbed_params(model, rng), rows_of(some_contexts(rng, 20), rng)
    got = by_contexts(model, to_fake(params), rows, device="cuda")
    assert isinstance(got, np.ndarray)
    assert_close({"z": got}, {"z": whole(model, params, rows)})
