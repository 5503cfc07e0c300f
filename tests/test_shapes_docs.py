"""The ``Shapes`` sections tell the truth: every letter gets a size of its own and is compared."""

import importlib
import inspect
import pkgutil
import re
from math import prod

import numpy as np
import pytest
from small import small_batch, small_model
from strategies import generator
from systems import SYSTEMS

import midpg_np
from midpg_np import losses, ops
from midpg_np.batch import Batch
from midpg_np.layers.core import CORES
from midpg_np.layers.discriminator import MLPDiscriminator
from midpg_np.layers.dropout import dropout
from midpg_np.layers.dwm import DynamicWeighting
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.groups import group_rows
from midpg_np.layers.mir import MutualInformation
from midpg_np.layers.mixture import mixture
from midpg_np.layers.mlp import MLP
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.modulated_layer import ModulatedLayer, modulated_bias
from midpg_np.layers.penalties import penalise_rows
from midpg_np.layers.repeat import repeat
from midpg_np.layers.scenario_mlp import AFFINE_FORMS
from midpg_np.layers.side_by_side import SideBySide

LINE = re.compile(r"^(\w+) : (\(.*\))$", re.MULTILINE)


def documented_shapes(thing):
    """``{name: [alternatives]}``, an alternative being a list of letters, or products of them."""
    doc = inspect.getdoc(thing) or ""
    if "Shapes\n------" not in doc:
        return {}
    section = doc.split("Shapes\n------\n")[1].split("\n\n")[0]
    return {
        name: [
            [dim.strip() for dim in shape.strip("()").split(",") if dim.strip()]
            for shape in alternatives.split(" or ")
        ]
        for name, alternatives in LINE.findall(section)
    }


def agrees(dims, shape, sizes):
    """Whether a shape fits the letters; letters seen for the first time take their size from it."""
    if len(dims) != len(shape):
        return False
    for dim, length in zip(dims, shape, strict=True):
        letters = dim.split("*")
        if len(letters) == 1:
            sizes.setdefault(dim, length)
        known = sizes | {letter: int(letter) for letter in letters if letter.isdigit()}
        if prod(known.get(letter, -1) for letter in letters) != length:
            return False
    return True


def mismatches(documented, arrays):
    """What is wrong with a docstring, given arrays (or sizes) by its names; and the sizes."""
    sizes, wrong = {name: size for name, size in arrays.items() if isinstance(size, int)}, []
    for name, alternatives in documented.items():
        shape = np.shape(arrays[name])
        if not any(agrees(dims, shape, sizes) for dims in alternatives):
            wrong.append(f"{name} has shape {shape}, not {alternatives} with {sizes}")
    return wrong, sizes


def zeros(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


def called(function, output, **inputs):
    return inputs | {output: function(**inputs)[0]}


def segment_sum():
    return {"ids": np.array([1, 0, 1]), "rows": np.ones((3, 2))}


def product(form):
    inputs = zeros(H=(7, 9), W=(9, 8), Q=(7, 3, 4))
    return {"A": FORMS[form].forward(**inputs, mode="block")[0]} | inputs


def weighting_cache(variant):
    layer = DynamicWeighting(5, 3, 4, d_k=2, variant=variant)
    return layer.forward(layer.init(generator(1)), np.zeros((7, 5)))[1]._asdict()


def core(sigmoid_on):
    factors = zeros(R=(7, 3, 2), C=(2, 4))
    return factors | {"Q": CORES[sigmoid_on].forward(**factors, gain=1.0)[0]}


def weighting():
    layer, U = DynamicWeighting(5, 3, 4, d_k=2), np.zeros((7, 5))
    return {"U": U, "Q": layer.forward(layer.init(generator(1)), U)[0]}


def modulated_layer(w_layout):
    d_r, d_c = (3, 4) if w_layout == "in_out" else (4, 3)
    layer = ModulatedLayer(9, 8, DynamicWeighting(5, d_r, d_c), w_layout=w_layout)
    inputs = zeros(H=(7, 9), U=(7, 5))
    return {"y": layer.forward(layer.init(generator(1)), **inputs)[0]} | inputs


def pair_cache():
    layer, rng = MLPDiscriminator(3, 4, (5,)), generator(1)
    inputs = zeros(e=(7, 3), e_neg=(7, 3), q=(7, 4))
    cache = layer.score_pairs(layer.init(rng), **inputs)[2]
    return cache._replace(w=np.zeros(5))._asdict() | {"W_e": np.zeros(3), "B": 7}


def biased():
    P, b = np.zeros((7, 3)), np.zeros(3)
    A, H, _ = ops.biased(P, b, ops.ACTIVATIONS["relu"])
    return {"P": P, "b": b, "A": A, "H": H}


def mlp():
    layer, x = MLP((5, 4, 3)), np.zeros((7, 5))
    return {"x": x, "y": layer.forward(layer.init(generator(1)), x)[0]}


def penalised_rows():
    return penalise_rows(np.zeros((5, 2)), np.array([1, 0, 1]), 0.1)


def embedding():
    layer, codes, keep = Embedding((3, 3, 3), 5), np.zeros((7, 3), int), np.ones((7, 15))
    E, cache = layer.forward(layer.init(generator(1)), codes, keep=keep)
    return {"codes": codes, "E": E, "keep": keep, "k": 5, "ids": cache.ids}


def row_gradient():
    layer, codes = Embedding((3, 3), 5), np.array([[0, 1], [2, 1]])
    _, cache = layer.forward(layer.init(generator(1)), codes)
    return layer.backward(np.ones((2, 10)), cache)["table"]._asdict()


def regulariser():
    layer, inputs = MutualInformation(3, 4), zeros(e=(7, 3), e_neg=(7, 3), q=(7, 4))
    layer.forward(layer.init(generator(1)), **inputs)
    return inputs


def side_by_side():
    layer = SideBySide({"a": MLP((3, 4, 2)), "b": MLP((3, 4, 2))})
    params = {name: mlp.init(generator(1)) for name, mlp in layer.mlps.items()}
    return layer.forward(params, np.zeros((7, 3)))[1]


def model_forward():
    model, batch = small_model("dpg", hidden=(12, 8)), small_batch(generator(1))
    return model.forward(model.init(generator(2)), batch)


# Where a docstring gives shapes, an example that fills them: path of the object -> arrays by name.
EXAMPLES = {
    "backend.segment_sum_rows": segment_sum,
    "backend.segment_sum_padded": segment_sum,
    "backend.gather_rows": lambda: zeros(table=(4, 2)) | {"ids": np.array([1, 3, 1])},
    "backend.put_rows": lambda: segment_sum() | zeros(table=(4, 2)),
    "backend.sorted_positions": lambda: {"ids": np.array([1, 0, 1])},
    "backend.scatter_add_rows": lambda: segment_sum() | zeros(target=(4, 2)),
    "batch.Batch": lambda: Batch(*zeros(a=(7, 3), b=(7,), c=(7,)).values())._asdict(),
    "ops.affine": lambda: called(ops.affine, "y", **zeros(x=(7, 3), W=(3, 4), b=(4,))),
    "ops.biased": biased,
    "losses.cross_entropy": lambda: called(losses.cross_entropy, "", **zeros(z=7, y=7, weight=7)),
    "losses.positive_cross_entropy": lambda: called(
        losses.positive_cross_entropy, "", **zeros(z=7, y=7, weight=7)
    ),
    "losses.scenario_mean_weights": lambda: zeros(scenario=7),
    "losses.jensen_shannon": lambda: called(losses.jensen_shannon, "", **zeros(t_pos=7, t_neg=7)),
    "layers.repeat.repeat": lambda: (
        zeros(Q=(7, 3, 4)) | {"S": repeat(np.zeros((7, 3, 4)), 9, 8, "tile")}
    ),
    "layers.modulated.textbook": lambda: product("textbook"),
    "layers.modulated.row_grouped": lambda: product("row"),
    "layers.modulated.column_grouped": lambda: product("column"),
    "layers.modulated.fused": lambda: product("fused"),
    "layers.modulated_layer.modulated_bias": lambda: (
        zeros(b=(8,), Q=(7, 3, 4))
        | {"beta": modulated_bias(np.zeros(8), np.zeros((7, 3, 4)), "block")[0]}
    ),
    "layers.modulated_layer.ModulatedLayer.forward": lambda: modulated_layer("in_out"),
    "layers.discriminator.MLPPairCache": pair_cache,
    "layers.mlp.MLP.forward": mlp,
    "layers.side_by_side.OneByOne.forward": lambda: zeros(x=(7, 3)),
    "layers.side_by_side.SideBySide.forward": lambda: zeros(x=(7, 3)),
    "layers.side_by_side.SideBySideCache": lambda: {"A": side_by_side().A},
    "layers.row_gradient.RowGradient": row_gradient,
    "layers.dropout.dropout": lambda: (
        zeros(x=(7, 3), keep=(7, 3)) | {"y": dropout(np.zeros((7, 3)), np.zeros((7, 3)))}
    ),
    "layers.embedding.EmbeddingCache": embedding,
    "layers.penalties.ReadRowsCache": lambda: penalised_rows()[1]._asdict(),
    "layers.penalties.penalise_rows": lambda: zeros(table=(5, 2)) | {"ids": np.array([1, 0, 1])},
    "layers.embedding.Embedding.forward": embedding,
    "layers.dwm.WeightingCache": lambda: weighting_cache("rc"),
    "layers.dwm.DynamicWeighting.forward": weighting,
    "layers.core.sigmoid_of_product": lambda: core("product"),
    "layers.core.product_of_sigmoids": lambda: core("factors"),
    "layers.negatives.shuffle": lambda: zeros(e=(7, 3)) | {"partner": np.arange(7)},
    "layers.mir.MutualInformation.forward": regulariser,
    "models.dpg.DPGCache": lambda: model_forward()[1].network._asdict(),
    "models.protocol.ModelOutput": lambda: model_forward()[0]._asdict(),
}


def groups():
    return group_rows(np.array([3, 0, 0, 1, 0, 3, 1]), 5)  # B = 7, M = 3


def grouped_maps(form):
    inputs = zeros(H=(7, 4), W=(3, 4, 6), b=(3, 6))
    return inputs | {"A": AFFINE_FORMS[form].forward(**inputs, groups=groups())[0]}


EXAMPLES |= {
    "layers.groups.Groups": lambda: groups()._asdict(),
    "layers.groups.group_rows": lambda: zeros(scenario=(7,)),
    "layers.scenario_mlp.grouped_affine": lambda: grouped_maps("grouped"),
    "layers.scenario_mlp.row_affine": lambda: grouped_maps("textbook"),
    "layers.mixture.mixture": lambda: called(mixture, "g", **zeros(alpha=(7, 3), S=(7, 3, 4))),
}
for kind in SYSTEMS:  # a model's file brings the examples of its own layers
    EXAMPLES |= getattr(importlib.import_module(f"systems.{kind}"), "SHAPES", {})


def find(path):
    """Object of the package by the path ``module.Class.method``."""
    parts = path.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            thing = importlib.import_module(f"midpg_np.{'.'.join(parts[:n])}")
        except ModuleNotFoundError:
            continue
        for name in parts[n:]:
            thing = getattr(thing, name)
        return thing
    raise LookupError(path)


@pytest.mark.parametrize("path", EXAMPLES)
def test_documented_shapes_are_the_real_ones(path):
    documented = documented_shapes(find(path))
    assert documented, f"{path} has no Shapes section any more; take its example out."
    wrong, sizes = mismatches(documented, EXAMPLES[path]())
    assert not wrong
    assert len(set(sizes.values())) == len(sizes), "two letters of the same size hide a swap"


@pytest.mark.parametrize("variant", ["r", "c", "rc"])
def test_shared_factors_have_no_batch_axis(variant):
    documented = documented_shapes(find("layers.dwm.WeightingCache"))
    assert mismatches(documented, weighting_cache(variant))[0] == []


def test_the_other_layout_has_the_same_shapes():
    documented = documented_shapes(find("layers.modulated_layer.ModulatedLayer.forward"))
    assert mismatches(documented, modulated_layer("out_in"))[0] == []


def test_a_wrong_docstring_is_found():
    documented = {"x": [["B", "I"]], "W": [["O", "I"]], "y": [["B", "O"]]}
    wrong, _ = mismatches(documented, zeros(x=(7, 3), W=(3, 4), y=(7, 4)))
    assert [line.split()[0] for line in wrong] == ["W", "y"]


def modules():
    for info in pkgutil.walk_packages(midpg_np.__path__, "midpg_np."):
        if info.name.split(".")[1] in ("backend", "batch", "ops", "losses", "layers"):
            yield importlib.import_module(info.name)


def things_with_shapes():
    """Path of every function, method and class below the models whose docstring gives shapes."""
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            members = vars(thing) if inspect.isclass(thing) else {}
            for path, member in [(name, thing), *((f"{name}.{m}", f) for m, f in members.items())]:
                is_ours = inspect.isfunction(member) or inspect.isclass(member)
                if is_ours and documented_shapes(member):
                    yield f"{module.__name__.removeprefix('midpg_np.')}.{path}"


def test_every_shapes_section_has_an_example():
    assert set(things_with_shapes()) - EXAMPLES.keys() == set()
