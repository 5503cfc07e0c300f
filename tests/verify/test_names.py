"""Name maps: other names, other layouts, one array for several and several for one."""

import numpy as np
import pytest
from sizes import small_case

from midpg_np.verify.compare import compare


@pytest.fixture(scope="module")
def case():
    return small_case("midpg")


def renamed(case, name, change=lambda x: x, to="mine"):
    """Dump of a parameter, its gradient and its next value under another name."""
    return {f"{p}{to}": change(case.arrays[f"{p}{name}"]) for p in ("", "d.", "next.")}


def test_another_name_counts_for_gradient_and_next_value(case):
    comparison = compare(case, renamed(case, "layer_1.W"), {"layer_1.W": "mine"})
    assert comparison.ok
    assert comparison.n_compared == 3


def test_out_x_in(case):
    dump = renamed(case, "layer_1.W", np.transpose)
    assert compare(case, dump, {"layer_1.W": {"name": "mine", "transpose": True}}).ok
    with_wrong = dump | {"d.mine": dump["d.mine"] * 2}
    (entry,) = compare(case, with_wrong, {"layer_1.W": {"name": "mine", "transpose": True}}).wrong
    assert entry.name == "d.layer_1.W"


def test_a_table_per_field(case):
    cuts = np.cumsum(case.config["vocab_sizes"])[:-1]
    names = [f"emb.{i}.weight" for i in range(len(cuts) + 1)]
    dump = {
        f"{p}{name}": part
        for p in ("", "d.", "next.")
        for name, part in zip(
            names, np.split(case.arrays[f"{p}embedding.table"], cuts), strict=True
        )
    }
    comparison = compare(case, dump, {"embedding.table": {"concat": names, "axis": 0}})
    assert comparison.ok
    assert comparison.n_compared == 3
    del dump["d.emb.1.weight"]
    with pytest.raises(
        ValueError, match=r"d\.embedding\.table: the dump lacks 'd\.emb\.1\.weight'"
    ):
        compare(case, dump, {"embedding.table": {"concat": names, "axis": 0}})


def test_parts_of_one_packed_array(case):
    W, b = case.arrays["head.W"], case.arrays["head.b"]
    names = {
        "head.W": {"name": "packed", "start": 0, "stop": W.size, "reshape": list(W.shape)},
        "head.b": {"name": "packed", "start": W.size},
    }
    packed = {
        f"{p}packed": np.concatenate([case.arrays[f"{p}head.W"].ravel(), case.arrays[f"{p}head.b"]])
        for p in ("", "d.", "next.")
    }
    assert compare(case, packed, names).n_compared == 6
    assert compare(case, packed, names).ok
    assert b.shape == (1,)


def test_templates_of_derived_names(case):
    dump = {
        "layer_1.W": case.arrays["layer_1.W"],
        "layer_1.W.grad": case.arrays["d.layer_1.W"],
        "after/layer_1.W": case.arrays["next.layer_1.W"],
        "eval_logit": case.arrays["serving.logit"],
    }
    names = {"gradient": "{name}.grad", "next": "after/{name}", "serving": "eval_{name}"}
    assert compare(case, dump, names).n_compared == 4
    assert compare(case, dump, names).ok


def test_an_entry_for_a_gradient_alone(case):
    dump = {"g": case.arrays["d.layer_1.W"].T, "layer_1.W": case.arrays["layer_1.W"]}
    assert compare(case, dump, {"d.layer_1.W": {"name": "g", "transpose": True}}).n_compared == 2


def test_a_toml_file(case, tmp_path):
    path = tmp_path / "names.toml"
    path.write_text('gradient = "{name}.grad"\n"layer_1.W" = {name = "mine", transpose = true}\n')
    dump = {"mine": case.arrays["layer_1.W"].T, "mine.grad": case.arrays["d.layer_1.W"].T}
    assert compare(case, dump, path).n_compared == 2
    assert compare(case, dump, str(path)).ok


WRONG_MAPS = {
    "unknown quantity": ({"layer_1.w": "mine"}, r"no quantity 'layer_1.w'. Did you mean"),
    "unknown key": (
        {"layer_1.W": {"name": "mine", "transposed": True}},
        "Did you mean 'transpose'",
    ),
    "neither name nor concat": ({"layer_1.W": {"axis": 0}}, "needs one of name and concat"),
    "both": ({"layer_1.W": {"name": "a", "concat": ["b"]}}, "needs one of name and concat"),
    "no table": ({"layer_1.W": 3}, "must be a name or a table; got 3"),
    "template": ({"gradient": "grad"}, r"gradient must contain \{name\}; got 'grad'"),
    "source absent": ({"layer_1.W": "miner"}, r"neither 'miner' nor its gradient. Did you mean"),
    "does not fit": ({"layer_1.W": {"name": "mine", "reshape": [5, -1]}}, "does not fit shapes"),
}


@pytest.mark.parametrize("wrong", WRONG_MAPS)
def test_wrong_maps(case, wrong):
    names, message = WRONG_MAPS[wrong]
    dump = {"mine": case.arrays["layer_1.W"], "d.mine": case.arrays["d.layer_1.W"]}
    with pytest.raises(ValueError, match=message):
        compare(case, dump, names)


def test_a_map_that_is_no_toml(case, tmp_path):
    path = tmp_path / "names.toml"
    path.write_text("layer_1.W = [")
    with pytest.raises(ValueError, match=r"names\.toml: is no TOML file"):
        compare(case, {"logit": case.arrays["logit"]}, path)
