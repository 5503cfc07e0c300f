"""Comparison: what differs first, where in the array, and what rounding explains."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sizes import small_case

from midpg_np.models import MODELS
from midpg_np.verify.compare import DumpMismatchError, compare
from midpg_np.verify.mistakes import MISTAKES
from midpg_np.verify.outcome import outcome
from midpg_np.verify.report import as_dict, render_comparison


def dump_of(case, *mistakes):
    """Dump of the reference with mistakes in it."""
    found = outcome(case.model, case.given, [MISTAKES[name] for name in mistakes])
    return {name: array for name, array in found.items() if name in case.arrays}


@pytest.mark.parametrize("kind", MODELS)
def test_a_right_dump_agrees(kind):
    case = small_case(kind)
    comparison = compare(case, dump_of(case))
    assert comparison.ok
    assert comparison.n_compared == len(case.arrays)
    assert not comparison.missing
    comparison.raise_if_wrong()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", MODELS)
def test_rounding_of_the_number_format_is_allowed(kind, dtype):
    case = small_case(kind)
    narrow = {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in case.arrays.items()}
    assert compare(case, narrow).ok


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_in_float32_agrees(kind, seed):
    """Rounding at every step, and not only of the result."""
    case = small_case(kind, seed)
    given = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in case.given.items()}
    found = outcome(case.model, given)
    assert found["logit"].dtype == np.float32
    dump = {k: v for k, v in found.items() if k in case.arrays}
    assert compare(case, dump).ok, compare(case, dump).wrong


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", MODELS)
def test_half_a_percent_is_seen_in_every_array(kind, dtype):
    case = small_case(kind)
    for name, array in case.arrays.items():
        if array.dtype.kind == "f" and np.any(array) and not name.startswith("next."):
            assert not compare(case, {name: (1.005 * array).astype(dtype)}).ok, name


def test_first_value_first_gradient_and_the_entry():
    case = small_case("midpg")
    comparison = compare(case, dump_of(case, "sigmoid missing on the core"))
    assert comparison.first("value").name == "layer_1.Q"
    # The wrong Q has another derivative; on the way back the last layer comes first.
    assert comparison.first("gradient").kind == "gradient"
    dump = dump_of(case)
    dump["d.layer_2.W"] = dump["d.layer_2.W"].copy()
    dump["d.layer_2.W"][3, 1] += 0.5
    (entry,) = compare(case, dump).wrong
    assert (entry.name, entry.place, entry.n_wrong) == ("d.layer_2.W", (3, 1), 1)
    assert abs(entry.got - entry.want - 0.5) < 1e-12
    with pytest.raises(DumpMismatchError, match=r"d\.layer_2\.W\[3, 1\]: got .*1 of 72 entries"):
        compare(case, dump).raise_if_wrong()


def test_what_is_missing_is_listed_and_no_fault():
    case = small_case("dnn")
    comparison = compare(case, {"logit": case.arrays["logit"]})
    assert comparison.ok
    assert comparison.n_compared == 1
    assert set(comparison.missing) == case.arrays.keys() - {"logit"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_reported_with_its_place(value):
    case = small_case("dnn")
    dump = dump_of(case)
    dump["X"] = dump["X"].copy()
    dump["X"][2, 1] = value
    comparison = compare(case, dump)
    assert comparison.first("value").status == "not finite"
    assert str(comparison.first("value")).startswith(f"X[2, 1]: is {value}")
    json.dumps(as_dict(comparison), allow_nan=False)


def test_shapes_that_differ_come_with_a_hint():
    case = small_case("dnn")
    W, logit = case.arrays["mlp.layer_1.W"], case.arrays["logit"]
    (entry,) = compare(case, {"mlp.layer_1.W": W.T}).wrong
    assert str(entry) == (
        f"mlp.layer_1.W: has shape {W.T.shape}; expected {W.shape}: map it with transpose = true"
    )
    (entry,) = compare(case, {"logit": logit[:, None]}).wrong
    assert str(entry).endswith(f"map it with reshape = {[len(logit)]}")
    (entry,) = compare(case, {"logit": logit[:-1]}).wrong
    assert entry.hint.endswith(f"expected {logit.shape}")


def test_integers_must_be_equal():
    case = small_case("dnn")
    assert compare(case, {"codes": case.inputs["codes"].astype(np.int32)}).ok
    assert not compare(case, {"codes": case.inputs["codes"] + 1}).ok


def test_bad_dumps():
    case = small_case("dnn")
    with pytest.raises(ValueError, match="the dump holds nothing"):
        compare(case, {})
    with pytest.raises(ValueError, match=r"holds 'logits', .* Did you mean 'logit'\?"):
        compare(case, {"logits": case.arrays["logit"]})
    with pytest.raises(ValueError, match="logit: has dtype complex128; expected real numbers"):
        compare(case, {"logit": case.arrays["logit"] + 0j})
    assert compare(case, {"logit": case.arrays["logit"], "n_seen": np.ones(1)}, ignore=["n_*"]).ok


@given(seed=st.integers(0, 2**32 - 1))
def test_any_subset_can_be_compared(seed):
    rng, case = np.random.default_rng(seed), small_case("midpg")
    names = rng.choice(list(case.arrays), rng.integers(1, len(case.arrays)), replace=False)
    wrong = rng.choice(names)
    dump = {name: case.arrays[name] for name in names} | {wrong: case.arrays[wrong] + 1}
    assert [entry.name for entry in compare(case, dump).wrong] == [wrong]


def test_the_page_shows_what_differs_and_stands_alone():
    pytest.importorskip("matplotlib", reason="the page holds heat maps")
    case = small_case("midpg")
    page = render_comparison(compare(case, dump_of(case, "gradient of W without S")))
    assert "First gradient that differs, in backward order: d.layer_2.W" in page
    assert page.count("data:image/png;base64,") == 4  # d.W and next.W of two layers
    assert "http" not in page
    right = render_comparison(compare(case, dump_of(case)))
    assert "all agree but for rounding" in right
    assert "data:image" not in right
