"""Right functions pass, with trees of their own or the case's; the page on it runs."""

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sizes import small_case

jax = pytest.importorskip("jax", reason="the adapter is for JAX")

import jax_functions as functions  # noqa: E402
from jax_functions import (  # noqa: E402
    MIDPG,
    MIDPG_TAPS,
    NETWORK,
    NETWORK_TAPS,
    init_midpg,
    init_network,
    network,
    plain,
)

from midpg_np.verify.jax import check  # noqa: E402

jnp = jax.numpy
OWN = {"params": init_network()}
SHAPES = jax.eval_shape(init_midpg)


@pytest.fixture(autouse=True, scope="module")
def quick():
    with functions.on_the_cpu_and_quickly_compiled():
        yield


def named(function=network, **options):
    """Check a plain network with a tree of its own, with intermediates if it taps them."""
    names = NETWORK | (NETWORK_TAPS if function is network else {})
    return check(function, small_case("dnn"), names, **(OWN | options))


# --- right ones -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dnn", "star", "midpg", "optmsm"])
def test_references_in_jax_pass(kind):
    forward = import_module(f"jax_reference.{kind}").forward
    case = small_case(kind)
    options = SimpleNamespace(**case.config)

    def step(params, inputs, tap, *, training):
        return forward(params, inputs, options, tap, training=training)

    report = check(step, case)
    report.raise_if_wrong()
    left_out = {"rows", "loss", "ce", "d.loss", "d.ce", *case.inputs}
    assert set(report.comparison.missing) == left_out
    assert not report.diagnose().matches


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_tree_of_its_own(dtype):
    report = named(dtype=dtype)
    report.raise_if_wrong()
    given = report.comparison.dump
    assert given["logit"].dtype == dtype
    assert {f"d.{name}" for name in NETWORK_TAPS} <= given.keys()
    for param in report.comparison.case.params:
        assert {param, f"d.{param}", f"next.{param}"} <= given.keys()
    assert "serving.logit" in given


@pytest.mark.slow
def test_names_that_are_tapped_several_times():
    case = small_case("midpg")
    report = check(functions.midpg, case, MIDPG | MIDPG_TAPS, params=SHAPES)
    report.raise_if_wrong()
    assert {f"d.{name}" for name in MIDPG_TAPS} <= report.comparison.dump.keys()
    assert "d.mi" in report.comparison.dump


@pytest.mark.slow
def test_shapes_are_enough_of_a_tree():
    named(params=jax.eval_shape(init_network)).raise_if_wrong()


@pytest.mark.slow
def test_a_function_without_tap_and_without_training():
    report = check(lambda params, inputs: plain(params, inputs, training=True), small_case("dnn"))
    report.raise_if_wrong()
    assert {"d.mlp.layer_1.W", "logit"} <= report.comparison.dump.keys()
    assert not {"serving.logit", "X"} & report.comparison.dump.keys()


@pytest.mark.slow
def test_a_function_that_is_jitted_already():
    check(jax.jit(plain, static_argnames="training"), small_case("dnn")).raise_if_wrong()


@pytest.mark.slow
def test_leaves_that_are_no_numbers():
    def step(params, inputs, *, training):
        return params["activation"](0.0) + network(params["net"], inputs, training=training)

    names = {
        name: f"net.{entry}" if isinstance(entry, str) else entry for name, entry in NETWORK.items()
    }
    names["embedding.table"] = {"concat": [f"net.tables.{f}" for f in range(3)]}
    names["mlp.layer_3.W"] = {"name": "net.head.kernel", "transpose": True}
    tree = {"net": OWN["params"], "activation": jax.nn.relu, "steps": np.array(3), "none": None}
    check(step, small_case("dnn"), names, params=tree | {"key": jax.random.key(1)}).raise_if_wrong()


@pytest.mark.slow
def test_the_loss_may_be_returned():
    def step(params, inputs, *, training):
        z = plain(params, inputs, training=training)[:, 0]
        if not training:
            return z
        y = inputs["label"]
        ce = -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).mean()
        return {"loss": ce, "logit": z, "mlp": {"output": z[:, None]}, "nothing": None}

    report = check(step, small_case("dnn"))
    report.raise_if_wrong()
    assert {"loss", "mlp.output"} <= report.comparison.dump.keys()


@pytest.mark.slow
def test_a_missing_term_is_named():
    def step(params, inputs, *, training):
        return functions.midpg(params, inputs, training=False)

    report = check(step, small_case("midpg"), MIDPG, params=SHAPES)
    assert "the term 'mi' is missing: the loss was formed without it." in report.problems


class Optax:
    """Adam as Optax has it, a state and updates to be added, but for layers that stay as they are.

    It computes in NumPy, which needs no time to compile.
    """

    def __init__(self, still=()):
        self.still = still

    def init(self, params):
        zeros = jax.tree.map(np.zeros_like, params)
        return zeros, zeros

    def update(self, gradients, state, params):
        assert jax.tree.structure(gradients) == jax.tree.structure(params)
        assert params["activation"] is None and isinstance(params["layers"], list)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * np.asarray(g), state[0], gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * np.asarray(g) ** 2, state[1], gradients)
        updates = jax.tree.map(lambda m, v: -1e-3 * (m / 0.1) / (np.sqrt(v / 0.001) + 1e-8), m, v)
        for i in self.still:
            updates["layers"][i] = jax.tree.map(np.zeros_like, updates["layers"][i])
        return updates, (m, v)


@pytest.mark.slow
def test_an_optimizer_gets_what_learns_and_its_place_in_the_tree():
    tree = OWN["params"] | {"activation": jax.nn.relu}
    named(params=tree, optimizer=Optax()).raise_if_wrong()
    report = named(params=tree, optimizer=Optax(still=[1]))
    assert report.problems == (
        "layers.1.kernel does not move in a step of the optimizer, though it should.",
        "layers.1.bias does not move in a step of the optimizer, though it should.",
    )
    assert {entry.kind for entry in report.comparison.wrong} == {"next"}


@pytest.mark.slow
def test_the_configuration_stays_as_it_was():
    before = dict(jax.config.values)
    named(dtype="float32")
    check(plain, small_case("dnn"))
    assert jax.config.values == before
    wide = before["jax_enable_x64"]
    assert (jnp.ones(1) + np.ones(1)).dtype == (jnp.float64 if wide else jnp.float32)
    assert OWN["params"]["head"]["bias"].dtype == jnp.float32


# --- the page -------------------------------------------------------------------------------------


def shape(text):
    """A page's output with every number replaced by 0: digits may differ between machines."""
    return re.sub(r"[-+]?\d+\.\d+(e[-+]\d+)?", "0", text).strip()


@pytest.mark.slow
def test_the_page_runs_and_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "verify-jax.md"
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), flags=re.M | re.S)
    namespace, printed, n_shown = {}, "", 0
    for language, text in found:
        if language == "text":
            assert shape(text) == shape(printed)
            n_shown += 1
        else:
            assert language == "python"
            exec(compile(text, str(page), "exec"), namespace)
            printed = capsys.readouterr().out
    assert n_shown == 2
