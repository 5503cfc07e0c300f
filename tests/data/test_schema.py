import pytest

from midpg_np.data import Schema

GOOD = {"label": "y", "scenario": "s", "aware": ("s", "a"), "agnostic": ("b", "c")}


def test_fields_come_aware_first_and_columns_once_each():
    schema = Schema(**GOOD, numeric=("c",))
    assert schema.fields == ("s", "a", "b", "c")
    assert schema.columns == ("s", "a", "b", "c", "y")


def test_scenario_need_not_be_a_field():
    schema = Schema(label="y", scenario="s", aware=("a",))
    assert schema.columns == ("a", "s", "y")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agnostic": ("b", "s")}, "field 's' is named twice"),
        ({"aware": ("s", "s")}, "field 's' is named twice"),
        ({"agnostic": ("b", "y")}, "label 'y' is also a field"),
        ({"scenario": "y"}, "'y' cannot be both label and scenario"),
        ({"numeric": ("d",)}, "numeric names 'd', which is not a field"),
        ({"aware": ()}, "aware must name at least one field"),
        ({"aware": "s"}, "aware must be a list of column names; got 's'"),
        ({"agnostic": ("b", 3)}, r"agnostic must be a list of column names; got \('b', 3\)"),
        ({"label": ""}, "label must be the name of a column"),
        ({"n_bins": 1}, "n_bins must be a whole number of at least 2; got 1"),
        ({"n_bins": 2.5}, "n_bins must be a whole number of at least 2; got 2.5"),
        ({"n_bins": True}, "n_bins must be a whole number of at least 2; got True"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Schema(**(GOOD | change))


def test_dict_round_trip():
    schema = Schema(**GOOD, numeric=("b",), n_bins=4)
    assert Schema.from_dict(schema.to_dict()) == schema


@pytest.mark.parametrize("head", ["", "[schema]\n"])
def test_toml(tmp_path, head):
    path = tmp_path / "schema.toml"
    path.write_text(
        head
        + 'label = "y"\nscenario = "s"\naware = ["s", "a"]\nagnostic = ["b", "c"]\nn_bins = 8\n'
    )
    assert Schema.from_toml(path) == Schema(**GOOD, n_bins=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('label = "y"\nscenario = "s"\nawere = ["s"]\n', "'awere' is unknown.*mean 'aware'"),
        ('label = "y"\naware = ["s"]\n', "key 'scenario' is missing"),
        ("label = \n", "schema.toml: Invalid value"),
        ('label = "y"\nscenario = "s"\naware = ["y"]\n', "schema.toml: label 'y' is also a field"),
    ],
)
def test_bad_toml_names_the_file(tmp_path, text, message):
    path = tmp_path / "schema.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Schema.from_toml(path)


def test_missing_toml(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no schema file"):
        Schema.from_toml(tmp_path / "none.toml")


def test_without():
    schema = Schema(**GOOD, numeric=("b",)).without("a", "b")
    assert (schema.aware, schema.agnostic, schema.numeric) == (("s",), ("c",), ())
    with pytest.raises(ValueError, match="cannot leave out 'z'"):
        schema.without("z")
