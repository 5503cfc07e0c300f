"""OptMSM, reconstructed: options of derivations 10.2."""

import numpy as np

from midpg_np.layers.affine_set import affine_set
from midpg_np.layers.code_affine import CODE_FORMS
from midpg_np.layers.generated_tower import GeneratedTower
from midpg_np.layers.groups import group_rows
from midpg_np.layers.hypernetwork import Hypernetwork, TowerShape
from midpg_np.layers.orthogonality import Orthogonality
from midpg_np.layers.shared_embeddings import SharedEmbeddings
from systems.system import System

# c 3, g 5, code 6, tower 8 -> 7 -> 1: no two widths are equal, and none is D = 4.
SMALL = {"dim_specific": 3, "dim_shared": 5, "dim_code": 6, "tower_hidden": 7, "hyper_rank": 2}


def owned(model):
    """The code; and with "select" A and a, but in training their loss reads all of them."""
    return ("code.Z",) if model.hyper_input == "code" else ()


SYSTEM = System(
    "optmsm",
    SMALL,
    {
        "activation": ("relu", "tanh"),
        "combine": ("attention", "select"),
        "orth_on": ("cosine", "gram"),
        "orth_weight": (0.1, 0.7),
        "hyper": ("full", "low_rank"),
        "hyper_input": ("code", "aware"),
        "eps": (1e-12, 0.3),
    },
    combinations={
        "low rank by row": {"hyper": "low_rank", "hyper_input": "aware"},
        "select gram": {"combine": "select", "orth_on": "gram"},
        "without the loss": {"orth_weight": 0.0},
    },
    owned=owned,
    grows=lambda model: True,  # the loss, and with "attention" each row, reads all D embeddings
)


def called(layer, outputs, *args, **inputs):
    """Inputs and outputs by name of a layer with random parameters."""
    results = layer.forward(layer.init(np.random.default_rng(0)), **inputs, **dict(args))
    return inputs | dict(zip(outputs, results, strict=False))


def arrays(**shapes):
    return {name: np.ones(shape) for name, shape in shapes.items()}


def orthogonality():
    return Orthogonality().forward(np.ones((7, 3, 4)))


def code_affine(form):
    inputs = arrays(H=(7, 4), W=(3, 4, 5), b=(3, 5), u=(7, 3))
    return inputs | {"A": CODE_FORMS[form].forward(**inputs)[0]}


def affine_sets():
    inputs = arrays(H=(7, 4), W=(3, 4, 5), b=(3, 5))
    return inputs | {"Y": affine_set(**inputs)[0]}


def hypernetwork():
    return called(Hypernetwork(4, TowerShape(3, 5)), ("theta",), **arrays(Z=(3, 4)))


def reduced_codes():
    layer, Z = Hypernetwork(4, TowerShape(6, 5), hyper="low_rank", rank=2), np.zeros((3, 4))
    return {"Z": Z, "u": layer.coefficients(layer.init(np.random.default_rng(1)), Z).u}


def tower(per_row):
    layer = GeneratedTower(Hypernetwork(4, TowerShape(6, 5)), per_row)
    groups = group_rows(np.array([0, 0, 0, 1, 1, 3, 3]), 4)
    inputs = arrays(H=(7, 6), Z=(7, 4) if per_row else (3, 4))
    return called(layer, ("z",), ("groups", groups), **inputs)


def shared():
    layer = SharedEmbeddings(3, 4, 5, 6)
    options = ("groups", None), ("with_loss", False)
    return called(layer, ("m",), *options, **arrays(c=(7, 6), E=(7, 4)))


SHAPES = {
    "layers.affine_set.affine_set": affine_sets,
    "layers.code_affine.contracted": lambda: code_affine("contracted"),
    "layers.code_affine.textbook": lambda: code_affine("textbook"),
    "layers.generated_tower.GeneratedTower.forward": lambda: tower(per_row=False),
    "layers.hypernetwork.Hypernetwork.forward": hypernetwork,
    "layers.hypernetwork.Hypernetwork.coefficients": reduced_codes,
    "layers.hypernetwork.Hypernetwork.basis": lambda: arrays(Z=(7, 4)),
    "layers.orthogonality.OrthogonalityCache": lambda: orthogonality()[1]._asdict(),
    "layers.orthogonality.Orthogonality.forward": lambda: {"G": np.ones((7, 3, 4))},
    "layers.shared_embeddings.SharedEmbeddings.forward": shared,
}
