"""Right modules pass with nothing but a name map, and functions with less; the page on it runs."""

import copy
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from sizes import small_case

torch = pytest.importorskip("torch", reason="the adapter is for PyTorch")

import torch_modules as modules  # noqa: E402
from torch import nn  # noqa: E402
from torch_maps import (  # noqa: E402
    DNN,
    FIELDS,
    HOOKS,
    MIDPG,
    NETWORK,
    PACKED,
    STAR,
    found,
    linear,
)

from midpg_np.models import MODELS  # noqa: E402
from midpg_np.tree import tree_flatten, tree_unflatten  # noqa: E402
from midpg_np.verify.torch import check  # noqa: E402

RIGHT = {
    "dnn": ("dnn", modules.DNN, DNN),
    "dnn, hooks before operations in place": (
        "dnn",
        modules.DNN,
        DNN | {"mlp.A_1": "layers.0", "mlp.H_1": "layers.1", "mlp.output": "layers.4"},
    ),
    "dnn, loss and logit": ("dnn", modules.FusedDNN, DNN | {"logit": "out"}),
    "midpg": ("midpg", modules.MIDPG, MIDPG),
    "midpg, packed table": (
        "midpg",
        lambda: modules.MIDPG(modules.PackedFields),
        PACKED | NETWORK,
    ),
    "midpg, sparse gradients": (
        "midpg",
        lambda: modules.MIDPG(modules.SparseFields),
        PACKED | NETWORK,
    ),
    "midpg, hooks": ("midpg", modules.MIDPG, MIDPG | HOOKS),
    "star": ("star", modules.STAR, STAR),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_modules_pass(name, dtype):
    kind, make, names = RIGHT[name]
    report = found(kind, make, names, dtype=dtype)
    report.raise_if_wrong()
    case, given = report.comparison.case, report.comparison.dump
    assert report.ok and not report.diagnose().matches
    assert given["logit"].dtype == dtype
    for param in case.params:
        assert {param, f"d.{param}", f"next.{param}"} <= given.keys()
    assert "serving.logit" in given
    assert {n for n in names if n in case.arrays} <= given.keys()
    assert {f"next.{buffer}" for buffer in case.state} <= given.keys()


def test_gradients_of_hooked_outputs_are_compared():
    given = found("midpg", modules.MIDPG, MIDPG | HOOKS).comparison.dump
    assert {f"d.{name}" for name in HOOKS} <= given.keys()


def test_the_module_is_given_back_as_it_was():
    module = modules.STAR().train()
    module.small.eval()
    module(torch.tensor([[0, 1, 2]]), torch.tensor([1])).sum().backward()
    before = copy.deepcopy(module.state_dict())
    grads = {name: p.grad.clone() for name, p in module.named_parameters()}
    modes = [part.training for part in module.modules()]
    stream, hooks = torch.get_rng_state(), [len(p._forward_hooks) for p in module.modules()]
    check(module, small_case("star"), STAR | {"X": "fields"}).raise_if_wrong()
    assert all(torch.equal(x, before[k]) for k, x in module.state_dict().items())
    assert all(torch.equal(p.grad, grads[k]) for k, p in module.named_parameters())
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), stream)
    assert [len(p._forward_hooks) for p in module.modules()] == hooks
    assert torch.get_default_dtype() == torch.float32


def test_it_works_where_gradients_are_switched_off():
    with torch.no_grad():
        found("dnn", modules.DNN, DNN).raise_if_wrong()
        assert not torch.is_grad_enabled()


# --- calls and results ----------------------------------------------------------------------------


def test_a_call_of_ones_own_returns_intermediates_by_name():
    def call(module, inputs):
        x = module.fields(inputs["codes"])
        return module.layers(x), {"X": x, "nothing": None}

    report = found("dnn", modules.DNN, DNN, call=call)
    report.raise_if_wrong()
    assert {"X", "d.X"} <= report.comparison.dump.keys()


def test_the_loss_may_be_formed_from_a_cross_entropy_of_ones_own():
    def call(module, inputs):
        logit = module(inputs["codes"], inputs.get("partner"))
        if "label" not in inputs:
            return logit
        ce = nn.functional.binary_cross_entropy_with_logits(logit[0], inputs["label"])
        return {"logit": logit[0], "ce": ce, **logit[1]}

    report = found("midpg", modules.MIDPG, MIDPG, call=call)
    report.raise_if_wrong()
    assert {"ce", "mi", "d.mi"} <= report.comparison.dump.keys()


def test_a_missing_term_is_named():
    report = found(
        "midpg", modules.MIDPG, MIDPG, call=lambda module, inputs: module(inputs["codes"])
    )
    assert "the term 'mi' is missing: the loss was formed without it." in report.problems
    assert report.comparison.first("value") is None
    assert not report.ok


def test_without_optimizer_nothing_moves():
    report = found("dnn", modules.DNN, DNN, optimizer=False)
    report.raise_if_wrong()
    assert not [name for name in report.comparison.dump if name.startswith("next.")]


def test_names_of_parameters_may_be_ignored():
    class WithHead(modules.DNN):
        def __init__(self):
            super().__init__()
            self.other_task = nn.Linear(6, 1)

    assert found("dnn", WithHead, DNN).problems == (
        "other_task.weight is not a parameter of the case.",
        "other_task.bias is not a parameter of the case.",
    )
    found("dnn", WithHead, DNN, ignore=["other_task.*"]).raise_if_wrong()


def test_a_map_in_a_file(tmp_path):
    path = tmp_path / "names.toml"
    tables = ", ".join(f'"{name}"' for name in FIELDS["embedding.table"]["concat"])
    lines = [f'"embedding.table" = {{concat = [{tables}]}}']
    for i in range(3):
        lines.append(
            f'"mlp.layer_{i + 1}.W" = {{name = "layers.{2 * i}.weight", transpose = true}}'
        )
        lines.append(f'"mlp.layer_{i + 1}.b" = "layers.{2 * i}.bias"')
    path.write_text("\n".join([*lines, 'gradient = "{name}.grad"']), encoding="utf-8")
    found("dnn", modules.DNN, path).raise_if_wrong()


def test_parameters_packed_into_one():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.all = nn.Parameter(torch.zeros(24 + 72 + 12))
            self.rest = modules.DNN().layers[1:]

        def forward(self, codes):
            table, W, b = self.all[:24].view(12, 2), self.all[24:96].view(6, 12), self.all[96:]
            x = table[codes + torch.tensor([0, 3, 8])].flatten(1)
            return self.rest(x @ W + b)

    names = {
        "embedding.table": {"name": "all", "stop": 24, "reshape": [12, 2]},
        "mlp.layer_1.W": {"name": "all", "start": 24, "stop": 96, "reshape": [6, 12]},
        "mlp.layer_1.b": {"name": "all", "start": 96},
        **linear("mlp.layer_2", "rest.2"),
        **linear("mlp.layer_3", "rest.4"),
    }
    found("dnn", Packed, names).raise_if_wrong()


def test_entries_that_are_in_no_parameter():
    class Padded(modules.PackedFields):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(13, 2)

    names = NETWORK | {"embedding.table": {"name": "fields.table.weight", "stop": 12}}
    (problem,) = found("midpg", lambda: modules.MIDPG(Padded), names).problems
    assert problem == (
        "2 of 26 entries of fields.table.weight are in no parameter of the case; the first is at "
        "(12, 0)."
    )
    report = found("midpg", lambda: modules.MIDPG(Padded), names, ignore=["fields.*"])
    report.raise_if_wrong()


def test_a_scenario_without_rows_need_not_learn():
    """Its part of a quantity is right to have no gradient, though the others have one."""
    names = dict(STAR)
    for i, (d_in, d_out) in enumerate([(6, 12), (12, 6), (6, 1)]):
        own = [f"layers.{i}.own.{d}" for d in range(4)]
        names[f"star.layer_{i + 1}.scenario.W"] = {"concat": own, "reshape": [4, d_in, d_out]}
    assert 2 not in small_case("star").inputs["scenario"]
    found("star", lambda: modules.STAR(star=modules.OwnStar), names).raise_if_wrong()


# --- functions ------------------------------------------------------------------------------------


def dnn_function(params, inputs, training=True):
    rows = inputs["codes"] + torch.tensor([0, 3, 8])
    h = params["embedding.table"][rows].flatten(1)
    for i in (1, 2, 3):
        h = torch.relu(h) if i > 1 else h
        h = h @ params[f"mlp.layer_{i}.W"] + params[f"mlp.layer_{i}.b"]
    return h, {"mlp.output": h}


def test_a_function():
    report = check(dnn_function, small_case("dnn"))
    report.raise_if_wrong()
    assert {"serving.logit", "d.mlp.output", "next.mlp.layer_1.W"} <= report.comparison.dump.keys()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_reference_of_every_model_as_a_function(kind, dtype):
    reference = import_module(f"torch_reference.{kind}")
    case = small_case(kind)
    options = SimpleNamespace(**case.config)

    def step(params, inputs, training):
        batch, trace = SimpleNamespace(**inputs), {}
        tree = tree_unflatten(params)
        z, auxiliary = reference.forward(tree, batch, options, trace, training=training)
        moved = {}
        if training and case.state:
            moved = tree_flatten(reference.advance(params, trace, options))
        return z, auxiliary | {f"next.{name}": moved[name] for name in moved}

    report = check(step, case, dtype=dtype)
    report.raise_if_wrong()
    assert {f"next.{name}" for name in case.state} <= report.comparison.dump.keys()


def test_a_function_without_training_predicts_nothing():
    report = check(lambda params, inputs: dnn_function(params, inputs), small_case("dnn"))
    report.raise_if_wrong()
    assert "serving.logit" not in report.comparison.dump


def test_a_function_returns_the_state_that_it_moves():
    def star(params, inputs, training):
        assert not params["norm.mean"].requires_grad
        module = modules.STAR().double().train(training)
        tensors = {**params}
        tables = torch.split(tensors["embedding.table"], [3, 5, 4])
        values = {f"fields.tables.{f}.weight": table for f, table in enumerate(tables)}
        for name, entry in STAR.items():
            if name in params and name != "embedding.table":
                is_turned = isinstance(entry, dict)
                key = entry["name"] if is_turned else entry
                values[key] = params[name].T if is_turned else params[name]
        values |= {f"norm.{key}": params[f"norm.{key}"].clone() for key in ("mean", "variance")}
        given = (inputs["codes"], inputs["scenario"])
        logit = torch.func.functional_call(module, values, given)
        moved = {f"next.norm.{key}": values[f"norm.{key}"] for key in ("mean", "variance")}
        return (logit, moved) if training else logit

    report = check(star, small_case("star"))
    report.raise_if_wrong()
    assert {"next.norm.mean", "next.norm.variance"} <= report.comparison.dump.keys()


def test_a_function_whose_prediction_looks_at_the_batch():
    def wrong(params, inputs, training):
        z, _ = dnn_function(params, inputs)
        return z if training else z + 1e-3 * z.mean()

    report = check(wrong, small_case("dnn"))
    assert any("depends on the other rows" in problem for problem in report.problems)


def test_a_function_that_forgets_a_parameter():
    def wrong(params, inputs):
        return dnn_function(params | {"mlp.layer_2.b": params["mlp.layer_2.b"].detach()}, inputs)

    (problem,) = check(wrong, small_case("dnn")).problems
    assert problem.startswith("mlp.layer_2.b receives no gradient")


# --- the page -------------------------------------------------------------------------------------


def shape(text):
    """A page's output with every number replaced by 0: digits may differ between machines."""
    return re.sub(r"[-+]?\d+\.\d+(e[-+]\d+)?", "0", text).strip()


def run_tests(path):
    """Run pytest on a file and return the lines of its verdicts."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    return "\n".join(re.findall(r"^\S+::.* [A-Z]+(?= )", done.stdout, flags=re.M))


@pytest.mark.slow
def test_the_page_runs_and_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "verify-pytorch.md"
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), flags=re.M | re.S)
    namespace, printed, n_shown = {}, "", 0
    for language, text in found:
        file = re.match(r"# (\w+\.py)\n", text)
        if file:
            (tmp_path / file[1]).write_text(text, encoding="utf-8")
        if language == "text":
            assert shape(text) == shape(printed)
            n_shown += 1
        elif file and file[1].startswith("test_"):
            printed = run_tests(tmp_path / file[1])
        else:
            assert language == "python"
            exec(compile(text, str(page), "exec"), namespace)
            printed = capsys.readouterr().out
    assert n_shown == 4
