"""Cases: every corner is in the batch, every bit is kept, every machine builds the same."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import small_case
from small import assert_close

from midpg_np.models import MODELS
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_flatten, tree_unflatten
from midpg_np.verify.case import load_case, make_case
from midpg_np.verify.case_batch import permutation, scenarios
from midpg_np.verify.ready import (
    READY,
    fingerprint,
    ready_case,
    sized_model,
    stored_fingerprints,
)
from midpg_np.verify.tolerance import rounding_noise


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_saved_case_is_the_same_bit_by_bit(kind, suffix, tmp_path):
    case, path = small_case(kind), tmp_path / f"case.{suffix}"
    case.save(path)
    loaded = load_case(path)
    assert loaded.model == case.model
    assert loaded.seed == case.seed
    assert list(loaded.arrays) == list(case.arrays)
    for name, array in case.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype, name
        assert np.array_equal(loaded.arrays[name], array), name


def test_a_case_follows_from_its_seed(tmp_path):
    first, again, other = (make_case(sized_model("midpg", {}, small=True), s) for s in (1, 1, 2))
    assert all(np.array_equal(first.arrays[k], again.arrays[k]) for k in first.arrays)
    assert not np.array_equal(first.arrays["logit"], other.arrays["logit"])
    first.save(tmp_path / "a.safetensors")
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("kind", MODELS)
def test_the_batch_has_every_corner(kind):
    case = small_case(kind)
    counts = np.bincount(case.inputs["scenario"], minlength=case.config["n_scenarios"])
    present = sorted(n for n in counts if n > 1)
    assert list(counts).count(0) == 1
    assert list(counts).count(1) == 1
    assert len(set(present)) > 1 or len(present) < 2
    assert set(case.inputs["label"]) == {0.0, 1.0}
    codes = case.inputs["codes"]
    assert len(np.unique(codes[:, -1])) < len(codes)
    assert all(array.dtype == np.float64 for array in case.params.values())


@given(n_rows=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_a_permutation_has_a_3_cycle_and_a_fixed_point(n_rows, seed):
    partner = permutation(np.random.default_rng(seed), n_rows)
    assert sorted(partner) == list(range(n_rows))
    if n_rows >= 4:
        assert list(partner[:4]) == [1, 2, 0, 3]


@given(n_scenarios=st.integers(1, 12), n_rows=st.integers(1, 60))
def test_scenarios_are_in_range_and_one_is_absent(n_scenarios, n_rows):
    found = scenarios(n_scenarios, n_rows)
    assert len(found) == n_rows
    assert found.min() >= 0
    assert found.max() < n_scenarios
    if n_scenarios >= 3:
        assert n_scenarios - 2 not in found
    if n_scenarios >= 3 and n_rows >= 2:
        assert list(found).count(n_scenarios - 1) == 1


@pytest.mark.parametrize("kind", MODELS)
def test_parameters_after_the_step_are_adams(kind):
    case = small_case(kind)
    params = tree_unflatten({k: v.copy() for k, v in case.params.items()})
    grads = tree_unflatten({k: case.arrays[f"d.{k}"] for k in case.params})
    adam = Adam(lr=1e-3, table_mode="table")
    state = adam.init(params)
    adam.update(params, grads, state)
    moved = tree_flatten(params)
    assert_close({k: case.arrays[f"next.{k}"] for k in moved}, moved)


@pytest.mark.parametrize("kind", MODELS)
def test_the_predicted_logit_is_that_of_each_row_alone(kind):
    case = small_case(kind)
    params = tree_unflatten(case.params | case.state)
    batch_type = __import__("midpg_np").Batch
    alone = [
        case.model.forward(
            params, batch_type(case.inputs["codes"][i : i + 1], case.inputs["scenario"][i : i + 1])
        )[0].logit[0]
        for i in range(case.n_rows)
    ]
    assert_close({"logit": case.arrays["serving.logit"]}, {"logit": np.array(alone)})


@pytest.mark.parametrize("name", READY)
def test_ready_made_cases_are_as_published(name):
    assert fingerprint(ready_case(name)) == stored_fingerprints()[name]


def test_every_model_has_a_ready_made_case():
    assert {model for model, _ in READY.values()} == set(MODELS)
    assert READY.keys() == stored_fingerprints().keys()


def test_a_fingerprint_sees_a_change_and_not_the_last_digits():
    case = ready_case("midpg-r")
    arrays = dict(case.arrays)
    same = {k: v * (1 + 1e-15) if v.dtype.kind == "f" else v for k, v in arrays.items()}
    for changed, is_same in ((same, True), (arrays | {"loss": arrays["loss"] * 1.001}, True)):
        # A scalar is its own largest entry: only arrays tell a factor from rounding.
        assert (fingerprint(type(case)(case.model, changed)) == fingerprint(case)) == is_same
    W = arrays["d.layer_1.W"].copy()
    W[0, 0] *= 1.01
    assert fingerprint(type(case)(case.model, arrays | {"d.layer_1.W": W})) != fingerprint(case)


@settings(max_examples=10)
@given(kind=st.sampled_from(sorted(MODELS)), n_rows=st.integers(1, 6), seed=st.integers(0, 99))
def test_cases_of_few_rows(kind, n_rows, seed):
    case = make_case(sized_model(kind, {}, small=True), seed, n_rows)
    assert all(np.isfinite(array).all() for array in case.arrays.values())


def test_a_case_needs_a_row():
    with pytest.raises(ValueError, match="n_rows must be at least 1; got 0"):
        make_case(sized_model("dnn", {}, small=True), n_rows=0)


@pytest.mark.parametrize("kind", MODELS)
def test_noise_is_that_of_float32(kind):
    """If a rule widened float32, noise would be zero where there must be some."""
    case = small_case(kind)
    noise = rounding_noise(case.model, case.given)
    assert noise.keys() >= case.arrays.keys()
    assert all(0.0 <= value < 1e3 for value in noise.values())
    assert noise["logit"] > 0.0
    assert noise["d.embedding.table"] > 0.0


def test_the_format_page_names_every_field_of_the_header(tmp_path):
    import json

    from safetensors import safe_open

    small_case("star").save(tmp_path / "case.safetensors")
    with safe_open(tmp_path / "case.safetensors", framework="np") as file:
        header = json.loads(file.metadata()["midpg_np"])
    page = (Path(__file__).parents[2] / "docs" / "case-format.md").read_text(encoding="utf-8")
    for field in (
        *header,
        *header["content"],
        *header["content"]["steps"][0],
        *header["content"]["adam"],
    ):
        assert f"`{field}`" in page, field
