"""Wrong functions are found, each with a sentence that says why; so is what cannot be compared."""

import sys

import numpy as np
import pytest
from sizes import small_case

jax = pytest.importorskip("jax", reason="the adapter is for JAX")

import jax_functions as functions  # noqa: E402
from jax_functions import (  # noqa: E402
    MIDPG,
    NETWORK,
    NETWORK_TAPS,
    init_midpg,
    init_network,
    keep,
    network,
    plain,
)

from midpg_np.verify.compare import DumpMismatchError  # noqa: E402
from midpg_np.verify.jax import check  # noqa: E402

jnp = jax.numpy
OWN = {"params": init_network()}
SHAPES = jax.eval_shape(init_midpg)


@pytest.fixture(autouse=True, scope="module")
def quick():
    with functions.on_the_cpu_and_quickly_compiled():
        yield


def problems(function, kind="dnn", **options):
    report = check(function, small_case(kind), **options)
    assert not report.ok
    with pytest.raises(DumpMismatchError) as error:
        report.raise_if_wrong()
    assert all(problem in str(error.value) for problem in report.problems)
    return report.problems


@pytest.mark.slow
def test_a_gradient_stopped_in_front_of_the_generators_is_named():
    def step(params, inputs, *, training):
        def stop(name, x):
            return jax.lax.stop_gradient(x) if name == "hidden" else x

        return functions.midpg(params, inputs, training=training, stop=stop)

    report = check(step, small_case("midpg"), MIDPG, params=SHAPES)
    assert not report.problems
    assert report.comparison.first("value") is None
    assert report.comparison.first("gradient") is not None
    assert report.diagnose().names == [("hidden state detached in front of the generators",)]


def test_parameters_without_gradient():
    def step(params, inputs, *, training):
        head = jax.lax.stop_gradient(params["head"])
        return network(params | {"head": head}, inputs, training=training)

    assert problems(step, names=NETWORK, **OWN) == (
        "head.kernel receives no gradient, though it should as mlp.layer_3.W: it is stopped, or "
        "not used.",
        "head.bias receives no gradient, though it should as mlp.layer_3.b: it is stopped, or not "
        "used.",
    )


@pytest.mark.slow
def test_parameters_that_the_case_does_not_have():
    tree = OWN["params"] | {"other": {"kernel": jnp.ones((2, 2))}, "count": jnp.arange(3)}
    names = NETWORK | NETWORK_TAPS
    report = check(network, small_case("dnn"), names, params=tree)
    assert report.problems == ("other.kernel is not a parameter of the case.",)
    report = check(network, small_case("dnn"), names, params=tree, ignore=["other.*"])
    report.raise_if_wrong()


@pytest.mark.slow
def test_one_leaf_for_two_layers():
    case = small_case("dnn", hidden=(6, 6))
    tree = {
        "tables": OWN["params"]["tables"],
        "layer": functions.init_dense(np.random.default_rng(0), 6, 6),
    }
    tree["head"] = functions.init_dense(np.random.default_rng(1), 6, 1)

    def step(params, inputs):
        layers = [params["layer"], params["layer"], params["head"]]
        return functions.stack(layers, functions.embed(params["tables"], inputs["codes"]))

    names = functions.TABLES | functions.affine("mlp.layer_3", "head")
    names |= functions.affine("mlp.layer_1", "layer") | functions.affine("mlp.layer_2", "layer")
    assert check(step, case, names, params=tree).problems == (
        "layer.kernel is mapped twice: it cannot be mlp.layer_1.W and mlp.layer_2.W of the case at "
        "once.",
        "layer.bias is mapped twice: it cannot be mlp.layer_1.b and mlp.layer_2.b of the case at "
        "once.",
    )


def test_random_numbers():
    rng = np.random.default_rng(0)

    def step(params, inputs, *, training):
        return plain(params, inputs, training=training) + 1e-3 * rng.normal()

    training, prediction = problems(step)
    assert training.startswith("training cannot be repeated: logit is another in a second call")
    assert prediction.startswith("a prediction cannot be repeated: logit is another")


@pytest.mark.slow
def test_something_kept_between_calls():
    calls = []

    def step(params, inputs, *, training):
        calls.append(training)
        z = plain(params, inputs, training=training)
        return z if not training else (z, {"mlp.output": z + len(calls)})

    (problem,) = problems(step)
    assert problem.startswith("training cannot be repeated: mlp.output is another")


@pytest.mark.slow
def test_what_jit_cannot_trace():
    def step(params, inputs, *, training):
        z = plain(params, inputs, training=training)
        return z if (z < 1e9).all() else -z

    report = check(step, small_case("dnn"))
    assert report.comparison.ok and "serving.logit" in report.comparison.dump
    (problem,) = report.problems
    assert problem.startswith("jax.jit cannot trace the function: Attempted boolean conversion")
    assert problem.endswith(". All numbers were computed without it.")


@pytest.mark.slow
def test_what_depends_on_being_traced():
    def step(params, inputs, *, training):
        z = plain(params, inputs, training=training)
        return z + isinstance(inputs["codes"], jax.core.Tracer)

    training, prediction, *_ = problems(step)
    assert training.startswith("training gives another logit under jax.jit than without it, by 1.0")
    assert prediction.startswith("a prediction gives another logit under jax.jit")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda z: z + 1e-3 * z.mean(), "a prediction depends on the other rows of its batch: row"),
        (lambda z: jnp.sort(z, axis=0), "a prediction depends on the order of the rows: row"),
        (lambda z: z.squeeze(), r"a prediction of one row has shape (); expected (1,)."),
        (lambda z: z[:12] + jnp.ones((12, 1)), "a prediction of one row has shape (12,)"),
    ],
)
def test_predictions_that_look_at_the_batch(wrong, sentence):
    def step(params, inputs, *, training):
        z = plain(params, inputs, training=training)
        return z if training else wrong(z)

    assert any(problem.startswith(sentence) for problem in problems(step))


@pytest.mark.slow
def test_fewer_digits_than_the_run_has():
    def step(params, inputs, tap, *, training):
        z = tap("mlp.output", plain(params, inputs, training=training).astype(jnp.float32))
        return z[:, 0]

    (problem,) = check(step, small_case("dnn")).problems
    assert problem == (
        "mlp.output and 1 more came out in float32, though all that went in has float64: leave out "
        "the conversion, or everything is compared with wider tolerances."
    )
    step_in_half = lambda *a, **k: step(*a, **k).astype(jnp.bfloat16)  # noqa: E731

    def in_half(params, inputs, *, training):
        return step_in_half(params, inputs, keep, training=training)

    (problem,) = check(in_half, small_case("dnn"), dtype="float32").problems
    assert problem.startswith("logit came out in bfloat16")


@pytest.mark.slow
def test_a_tap_whose_result_is_not_used():
    def step(params, inputs, tap):
        z = plain(params, inputs, training=True)
        tap("mlp.output", z)
        return tap("logit", z)

    report = check(step, small_case("dnn"))
    assert report.problems == (
        "what tap('mlp.output', x) returns is not used: go on with it, as in x = "
        "tap('mlp.output', x).",
    )
    assert report.comparison.ok and "d.mlp.output" not in report.comparison.dump


@pytest.mark.slow
def test_a_label_that_a_prediction_does_not_have():
    def step(params, inputs, *, training):
        return plain(params, inputs, training=training) + 0 * inputs["label"][:, None]

    (problem,) = check(step, small_case("dnn")).problems
    assert problem.startswith("the call needs 'label', which a prediction does not have")


# --- what cannot be compared ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"mlp.layer_1.b": "layers.0.bais"},
            r"mlp\.layer_1\.b is mapped to 'layers\.0\.bais', but the tree has no such array\. Did "
            r"you mean 'layers\.0\.bias'\?",
        ),
        (
            {"mlp.layer_3.W": "head.kernel"},
            r"head\.kernel of shape \(1, 6\) gives \(1, 6\); the case's has shape \(6, 1\): map it "
            r"with transpose = true",
        ),
        (
            {"mlp.A_1": "dense_7"},
            r"mlp\.A_1 is mapped to 'dense_7', which is no parameter, was not returned, and was "
            r"not tapped\. Did you mean",
        ),
        ({"mlp.layer_1.b": "count"}, r"count has dtype int\d+; expected floating point"),
    ],
)
def test_maps_that_do_not_fit(entry, message):
    tree = OWN["params"] | {"count": np.zeros(12, int)}
    with pytest.raises(ValueError, match=message):
        check(network, small_case("dnn"), NETWORK | NETWORK_TAPS | entry, params=tree)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda p, x: [1.0], r"the call returned a list; expected the logit, arrays by name"),
        (lambda p, x: {"X": jnp.ones(12)}, r"the call returned \['X'\]; expected a logit or a"),
        (lambda p, x: {"loss": jnp.ones(2)}, r"the loss has shape \(2,\); expected one number"),
        (
            lambda p, x: (jnp.ones(12), {"A": jnp.ones(2)}),
            r"the dump holds 'A', which is no quantity",
        ),
        (lambda p, x, tap: tap("X", "x"), r"tap\('X'\) was given a str; expected an array"),
        (
            lambda p, x, tap: jax.jit(lambda z: tap("X", z))(jnp.ones((12, 6))),
            r"tap\('X'\) was called inside of jax\.jit, jax\.vmap, .* call it outside",
        ),
        (
            lambda p, x: jnp.array(np.asarray(p["mlp"]["layer_3"]["b"]).repeat(12)),
            r"jax\.grad cannot differentiate it: The numpy\.ndarray conversion method",
        ),
        (lambda params, x, key: None, r"the function takes \['params', 'x', 'key'\]; expected"),
        (lambda params: None, r"the function takes \['params'\]; expected \(params, inputs\)"),
        (
            lambda p, x, training: jnp.ones(12) if training else {"p": x["codes"]},
            r"a prediction returned \['p'\]; expected a logit",
        ),
    ],
)
def test_functions_that_cannot_be_compared(step, message):
    with pytest.raises(ValueError, match=message):
        check(step, small_case("dnn"))


def test_without_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match=r"needs JAX, which is not installed \(pip install jax\)"):
        check(plain, small_case("dnn"))


def test_arguments():
    case = small_case("dnn")
    with pytest.raises(TypeError, match=r"expected a function f.*; got a int"):
        check(1, case)
    with pytest.raises(TypeError, match=r"optimizer must have init and update.*; got a str"):
        check(plain, case, optimizer="adam")
    with pytest.raises(ValueError, match=r"dtype must be one of .*; got 'half'"):
        check(plain, case, dtype="half")
    with pytest.raises(ValueError, match=r"mapped to 'W', but there is no tree .*; give params="):
        check(plain, case, {"mlp.layer_1.W": "W"})
    with pytest.raises(ValueError, match=r"two leaves of the tree have the path 'a\.b'"):
        check(plain, case, params={"a": {"b": 1.0}, "a.b": 2.0})
