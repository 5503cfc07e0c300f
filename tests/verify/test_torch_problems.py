"""Wrong modules are found, each with the sentence that says why; so is what cannot be compared."""

import numpy as np
import pytest
from sizes import small_case

torch = pytest.importorskip("torch", reason="the adapter is for PyTorch")

import torch_modules as modules  # noqa: E402
from torch import nn  # noqa: E402
from torch_maps import DNN, FIELDS, MIDPG, NETWORK, PACKED, STAR, found, linear  # noqa: E402

from midpg_np.verify.compare import DumpMismatchError  # noqa: E402
from midpg_np.verify.torch import check  # noqa: E402


def sentences(kind, make, names, **options):
    report = found(kind, make, names, **options)
    with pytest.raises(DumpMismatchError) as error:
        report.raise_if_wrong()
    assert all(problem in str(error.value) for problem in report.problems)
    return report.problems


def test_a_detach_in_front_of_the_generators_is_named():
    report = found("midpg", lambda: modules.MIDPG(detach=True), MIDPG | {"X": "fields"})
    assert not report.problems
    assert report.comparison.first("value") is None
    assert report.comparison.first("gradient") is not None
    assert report.diagnose().names == [("hidden state detached in front of the generators",)]


LIST = FIELDS | linear("mlp.layer_3", "head")
for i in range(2):
    LIST |= linear(f"mlp.layer_{i + 1}", f"hidden.{i}")


def test_layers_in_a_python_list():
    report = found("dnn", modules.ListDNN, LIST)
    for path in ("hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias"):
        start = f"{path} is not among module.parameters()"
        assert sum(problem.startswith(start) for problem in report.problems) == 1
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


def test_inputs_that_a_call_changes():
    case = small_case("midpg")
    codes = case.arrays["codes"].copy()
    make, names = lambda: modules.MIDPG(modules.ShiftingFields), PACKED | NETWORK
    (problem,) = sentences("midpg", make, names)
    assert problem == "a call changes 'codes' in place: the batch is another now."
    assert np.array_equal(case.arrays["codes"], codes)


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
        "forward of Needy needs 'label', which a prediction does not have; predictions are not "
        "checked."
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
            r"mlp\.layer_1\.W: layers\.0\.weight of shape \(12, 6\) gives \(12, 6\); the case's "
            r"has shape \(6, 12\): map it with transpose = true\.",
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
    with pytest.raises(ValueError, match=r"mlp\.layer_1\.W is mapped, but a function gets it"):
        check(lambda params, inputs: None, case, {"mlp.layer_1.W": "W"})
    with pytest.raises(ValueError, match="call is for modules"):
        check(lambda params, inputs: None, case, call=lambda m, x: None)


def test_the_report_in_words():
    report = found("midpg", lambda: modules.MIDPG(detach=True), MIDPG)
    lines = str(report).splitlines()
    assert " compared quantities are right, " in lines[0]
    assert lines[1].startswith("first wrong gradient: d.")
    assert lines[2].startswith("first wrong next: next.")
    assert np.isfinite(report.comparison.first("gradient").error)
