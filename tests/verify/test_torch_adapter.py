"""Modules written by hand pass with nothing but a name map; wrong ones are found, and say why."""

import copy

import numpy as np
import pytest
from sizes import small_case

torch = pytest.importorskip("torch", reason="the adapter is for PyTorch")

import torch_modules as modules  # noqa: E402
from torch import nn  # noqa: E402

from midpg_np.verify.compare import DumpMismatchError  # noqa: E402
from midpg_np.verify.torch import check  # noqa: E402


def linear(case, module):
    """Map an affine map of the case to an nn.Linear, which keeps its weight out x in."""
    return {
        f"{case}.W": {"name": f"{module}.weight", "transpose": True},
        f"{case}.b": f"{module}.bias",
    }


FIELDS = {"embedding.table": {"concat": [f"fields.tables.{f}.weight" for f in range(3)]}}
PACKED = {"embedding.table": "fields.table.weight"}
DNN = FIELDS | {
    key: value
    for i in range(3)
    for key, value in linear(f"mlp.layer_{i + 1}", f"layers.{2 * i}").items()
}
NETWORK = linear("head", "head")
for i in range(2):
    layer = f"layer_{i + 1}"
    NETWORK |= linear(layer, f"layers.{i}.linear")
    NETWORK |= {f"{layer}.weighting.C_share": f"layers.{i}.share"}
    for j in range(2):
        generator = f"{layer}.weighting.row_generator.layer_{j + 1}"
        NETWORK |= linear(generator, f"layers.{i}.generator.{2 * j}")
        NETWORK |= linear(f"discriminators.{layer}.layer_{j + 1}", f"critics.{i}.{2 * j}")
MIDPG = FIELDS | NETWORK
STAR = FIELDS | {
    "norm.gamma": "norm.gamma",
    "norm.beta": "norm.beta",
    "norm.scenario_gamma": "norm.gammas",
    "norm.scenario_beta": "norm.betas",
    "aux.domain.table": "domain.weight",
    **linear("aux.mlp.layer_1", "small.0"),
    **linear("aux.mlp.layer_2", "small.2"),
}
for i in range(3):
    layer = f"star.layer_{i + 1}"
    STAR |= linear(f"{layer}.shared", f"layers.{i}.shared")
    STAR |= {f"{layer}.scenario.W": f"layers.{i}.weight", f"{layer}.scenario.b": f"layers.{i}.bias"}

HOOKS = {
    "X": "fields",
    "layer_1.row_generator.A_1": "layers.0.generator.0",
    "layer_1.row_generator.output": "layers.0.generator",
    "layer_2.row_generator.output": "layers.1.generator",
    "layer_1.A": "layers.0",
    "layer_2.A": "layers.1",
    "z": "head",
    "mi.layer_1.pos.output": "critics.0[0]",
    "mi.layer_1.neg.output": "critics.0[1]",
    "mi.layer_1.neg.A_1": "critics.0.0[1]",
}
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
    "midpg, hooks": ("midpg", modules.MIDPG, MIDPG | HOOKS),
    "star": ("star", modules.STAR, STAR),
}


def found(kind, make, names, **options):
    """Return the report of a fresh module."""
    sizes = options.pop("sizes", {})
    torch.manual_seed(1)
    return check(make(), small_case(kind, **sizes), names, **options)


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
        **linear("mlp.layer_2", "rest.1"),
        **linear("mlp.layer_3", "rest.3"),
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
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.star = modules.STAR()
            shapes = [tuple(layer.weight.shape[1:]) for layer in self.star.layers]
            self.towers = nn.ModuleList(
                nn.ParameterList(torch.zeros(shape) for shape in shapes) for _ in range(4)
            )
            for layer in self.star.layers:
                del layer.weight

        def forward(self, codes, scenario):
            present = scenario.unique().tolist()
            for i, layer in enumerate(self.star.layers):
                shape = self.towers[0][i].shape
                parts = [
                    self.towers[d][i] if d in present else torch.zeros(shape) for d in range(4)
                ]
                layer.weight = torch.stack(parts)
            logit = self.star(codes, scenario)
            for layer in self.star.layers:
                del layer.weight
            return logit

    def moved(entry):
        if isinstance(entry, str):
            return f"star.{entry}"
        key = "concat" if "concat" in entry else "name"
        sources = (
            [f"star.{x}" for x in entry["concat"]] if key == "concat" else f"star.{entry[key]}"
        )
        return entry | {key: sources}

    names = {name: moved(entry) for name, entry in STAR.items()}
    for i, (d_in, d_out) in enumerate([(6, 12), (12, 6), (6, 1)]):
        names[f"star.layer_{i + 1}.scenario.W"] = {
            "concat": [f"towers.{d}.{i}" for d in range(4)],
            "reshape": [4, d_in, d_out],
        }
    found("star", Towers, names).raise_if_wrong()


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


# --- wrong ones -----------------------------------------------------------------------------------


def test_a_detach_in_front_of_the_generators_is_named():
    report = found("midpg", lambda: modules.MIDPG(detach=True), MIDPG | {"X": "fields"})
    assert not report.problems
    assert report.comparison.first("value") is None
    assert report.comparison.first("gradient") is not None
    assert report.diagnose().names == [("hidden state detached in front of the generators",)]


def sentences(kind, make, names, **options):
    report = found(kind, make, names, **options)
    with pytest.raises(DumpMismatchError) as error:
        report.raise_if_wrong()
    assert all(problem in str(error.value) for problem in report.problems)
    return report.problems


LIST = FIELDS | linear("mlp.layer_3", "head")
for i in range(2):
    LIST |= linear(f"mlp.layer_{i + 1}", f"hidden.{i}")


def test_layers_in_a_python_list():
    report = found("dnn", modules.ListDNN, LIST)
    for path in ("hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias"):
        assert (
            sum(p.startswith(f"{path} is not among module.parameters()") for p in report.problems)
            == 1
        )
    assert any(
        p.startswith("a prediction changes when the module is saved") and "hidden.1.bias" in p
        for p in report.problems
    )
    assert {entry.kind for entry in report.comparison.wrong} == {"next"}


def test_an_unregistered_tensor_that_the_map_does_not_name():
    class Scaled(modules.DNN):
        def __init__(self):
            super().__init__()
            self.scales = {"one": torch.ones((), requires_grad=True)}

        def forward(self, codes):
            return super().forward(codes) * self.scales["one"]

    (problem,) = found("dnn", Scaled, DNN).problems
    assert problem.startswith("scales.one is not among module.parameters()")


def test_a_tensor_from_elsewhere():
    outside = torch.ones((), dtype=torch.float64, requires_grad=True)

    def call(module, inputs):
        return module(inputs["codes"]) * outside

    (problem,) = found("dnn", modules.DNN, DNN, call=call).problems
    assert problem.startswith("a tensor of shape () in the loss is not among module.parameters()")


def test_a_buffer_that_should_learn():
    class Buffered(modules.DNN):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones((), requires_grad=True))

        def forward(self, codes):
            return super().forward(codes) * self.scale

    (problem,) = found("dnn", Buffered, DNN).problems
    assert problem.startswith("scale is a buffer that requires a gradient")


def test_one_tower_repeated():
    names = FIELDS | linear("mlp.layer_3", "head")
    names |= linear("mlp.layer_1", "towers.0") | linear("mlp.layer_2", "towers.1")
    problems = sentences("dnn", modules.RepeatedDNN, names, sizes={"hidden": (6, 6)})
    assert problems[0] == (
        "towers.0.weight and towers.1.weight are one tensor: it cannot be mlp.layer_1.W and "
        "mlp.layer_2.W of the case at once."
    )
    assert problems[1].startswith("towers.0.bias and towers.1.bias are one tensor")


def test_one_parameter_mapped_twice():
    names = DNN | {"mlp.layer_3.W": {"name": "layers.2.weight", "axis": 1, "stop": 1}}
    problems = sentences("dnn", modules.DNN, names)
    assert problems[0].startswith("layers.2.weight is mapped twice: it cannot be mlp.layer_2.W and")
    assert "layers.4.weight is not a parameter of the case." in problems


def test_a_prediction_normalised_by_its_batch():
    report = found("star", lambda: modules.STAR(modules.OwnBatchNorm), STAR)
    assert any("depends on the other rows of its batch" in p for p in report.problems)
    assert [entry.name for entry in report.comparison.wrong] == ["serving.logit"]


def test_batch_norm_cannot_predict_one_row():
    problems = sentences("star", lambda: modules.STAR(modules.BatchNorm), STAR)
    assert any(
        p.startswith("a prediction of one row fails: Expected more than 1") for p in problems
    )


def test_state_in_a_plain_attribute():
    problems = sentences("star", lambda: modules.STAR(modules.PlainNorm), STAR)
    assert (
        "norm.mean is a plain attribute: state_dict() does not hold it; use register_buffer."
        in problems
    )
    assert (
        "a prediction changes when the module is saved and loaded: state_dict() does not hold "
        "norm.mean, norm.variance." in problems
    )


def test_state_in_a_buffer_that_is_not_saved():
    (problem,) = sentences("star", lambda: modules.STAR(modules.UnsavedNorm), STAR)
    assert problem.endswith("state_dict() does not hold norm.mean, norm.variance.")


def test_parameters_without_gradient():
    assert sentences("dnn", modules.FrozenDNN, DNN) == (
        "fields.tables.2.weight receives no gradient, though it should as embedding.table: it is "
        "detached, or not used.",
        "layers.2.weight receives no gradient, though it should as mlp.layer_2.W: requires_grad is "
        "False.",
        "layers.2.bias receives no gradient, though it should as mlp.layer_2.b: requires_grad is "
        "False.",
    )


def test_rows_left_in_another_order():
    problems = sentences("dnn", modules.SortedDNN, DNN)
    assert any("depends on the order of the rows" in problem for problem in problems)


def test_squeeze_without_an_axis():
    (problem,) = sentences("dnn", modules.SqueezedDNN, DNN)
    assert problem == "a prediction of one row has shape (); expected (1,)."


def test_random_numbers_in_training_and_in_prediction():
    problems = sentences("dnn", modules.NoisyDNN, DNN)
    assert problems[0].startswith("training draws random numbers: logit is another")
    assert problems[1].startswith("predictions are random")
    assert len(problems) == 2


def test_a_mode_that_a_call_leaves_switched():
    problems = sentences("dnn", modules.SwitchingDNN, DNN)
    assert "a call leaves layers in eval() mode." in problems


def test_a_label_that_a_prediction_does_not_have():
    class Needy(modules.DNN):
        def forward(self, codes, label):
            logit = super().forward(codes).squeeze(1)
            return {
                "logit": logit,
                "loss": nn.functional.binary_cross_entropy_with_logits(logit, label),
            }

    (problem,) = found("dnn", Needy, DNN).problems
    assert problem == (
        "forward of Needy needs 'label', which a prediction does not have; predictions are not checked."
    )

    def call(module, inputs):
        return module(inputs["codes"]) + 0 * inputs["label"][:, None]

    (problem,) = found("dnn", modules.DNN, DNN, call=call).problems
    assert problem.startswith("the call needs 'label', which a prediction does not have")


# --- what cannot be compared ----------------------------------------------------------------------


def without(*names):
    return {name: entry for name, entry in DNN.items() if name not in names}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            without("mlp.layer_1.b"),
            r"mlp\.layer_1\.b, a parameter of the case, is not mapped, and the module has none",
        ),
        (
            DNN | {"mlp.layer_1.b": "layers.0.bais"},
            r"mlp\.layer_1\.b is mapped to 'layers\.0\.bais', but the module has no such parameter "
            r"or buffer\. Did you mean 'layers\.0\.bias'\?",
        ),
        (
            DNN | {"mlp.layer_1.W": "layers.0.weight"},
            r"mlp\.layer_1\.W: layers\.0\.weight of shape \(12, 6\) gives \(12, 6\); the case's has "
            r"shape \(6, 12\): map it with transpose = true\.",
        ),
        (
            DNN | {"mlp.layer_1.b": {"name": "layers.0.bias", "axis": 1, "stop": 2}},
            r"mlp\.layer_1\.b: Place.* does not fit layers\.0\.bias of shape \(12,\)",
        ),
        (
            DNN | {"mlp.layer_4.b": "x"},
            r"the case has no quantity 'mlp\.layer_4\.b'\. Did you mean",
        ),
        (
            DNN | {"mlp.A_1": "layer.0"},
            r"mlp\.A_1 is mapped to 'layer\.0', which is no parameter, was not returned, and is no "
            r"submodule that was called\.",
        ),
    ],
)
def test_maps_that_do_not_fit(names, message):
    with pytest.raises(ValueError, match=message):
        found("dnn", modules.DNN, names)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x: [m(x["codes"])],
            r"the call returned a list; expected the logit, tensors by name",
        ),
        (
            lambda m, x: {"X": m.fields(x["codes"])},
            r"the call returned \['X'\]; expected a logit or a",
        ),
        (
            lambda m, x: {"loss": m(x["codes"])},
            r"the loss has shape \(12, 1\); expected one number",
        ),
        (lambda m, x: {"loss": m(x["codes"]).detach().sum()}, r"the loss depends on no parameter"),
        (
            lambda m, x: (m(x["codes"]), {"A": x["label"]}),
            r"the dump holds 'A', which is no quantity",
        ),
    ],
)
def test_results_that_cannot_be_compared(call, message):
    with pytest.raises(ValueError, match=message):
        found("dnn", modules.DNN, DNN, call=call)


def test_a_prediction_without_logit():
    def call(module, inputs):
        z = module(inputs["codes"])
        return z if module.training else {"p": torch.sigmoid(z)}

    with pytest.raises(ValueError, match=r"a prediction returned \['p'\]; expected a logit"):
        found("dnn", modules.DNN, DNN, call=call)


def test_a_forward_that_needs_something_else():
    class Other(modules.DNN):
        def forward(self, features):
            return super().forward(features)

    with pytest.raises(
        ValueError, match=r"forward of Other needs 'features'; a case has \['codes'"
    ):
        found("dnn", Other, DNN)


def test_a_call_of_another_module():
    other = modules.DNN()
    with pytest.raises(ValueError, match="must call the module that it is given"):
        check(other, small_case("dnn"), DNN, call=lambda _, x: other(x["codes"]).double())


def test_a_submodule_that_is_called_twice_needs_a_number():
    names = MIDPG | {"mi.layer_1.pos.output": "critics.0"}
    with pytest.raises(
        ValueError, match=r"'critics\.0' is called 2 times; map one of \['critics\.0\[0\]'"
    ):
        found("midpg", modules.MIDPG, names)


def test_a_submodule_that_returns_no_tensor():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class WithPair(modules.DNN):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, codes):
            return self.layers(self.pair(self.fields(codes))[0])

    with pytest.raises(ValueError, match="the submodule 'pair' returns a tuple"):
        found("dnn", WithPair, DNN | {"X": "pair"})


def test_a_module_that_keeps_a_computed_tensor():
    module = modules.DNN()
    module.last = module(torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="the DNN cannot be copied: it keeps a tensor"):
        check(module, small_case("dnn"), DNN)


def test_arguments():
    case = small_case("dnn")
    with pytest.raises(TypeError, match=r"expected an nn\.Module or a function .*; got a int"):
        check(1, case)
    with pytest.raises(
        ValueError, match=r"dtype must be one of \['float64', 'float32'\]; got 'half'"
    ):
        check(modules.DNN(), case, DNN, dtype="half")
    with pytest.raises(ValueError, match="call is for modules"):
        check(dnn_function, case, call=lambda m, x: None)


def test_the_report_in_words():
    report = found("midpg", lambda: modules.MIDPG(detach=True), MIDPG)
    lines = str(report).splitlines()
    assert " compared quantities are right, " in lines[0]
    assert lines[1].startswith("first wrong gradient: d.")
    assert lines[2].startswith("first wrong next: next.")
    assert np.isfinite(report.comparison.first("gradient").error)
