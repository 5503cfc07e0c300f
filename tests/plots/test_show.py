"""``show``: a file below figures/, or where the environment says."""

import pytest
from pictures import assert_png

from midpg_np.plots import new_figure, show


def figure():
    drawn = new_figure(2, 1)
    drawn.subplots().plot([0, 1], [2, 3])
    return drawn


def test_it_writes_below_the_working_directory_and_prints_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIDPG_FIGURES", raising=False)
    path = show(figure(), "04_step_size")
    assert path.resolve() == tmp_path / "figures" / "04_step_size.png"
    assert_png(path)
    assert capsys.readouterr() == ("", "")


def test_it_writes_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MIDPG_FIGURES", str(tmp_path / "a" / "b"))
    assert show(figure(), "x") == tmp_path / "a" / "b" / "x.png"
    assert_png(tmp_path / "a" / "b" / "x.png")


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a/"])
def test_a_name_is_no_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="name must be that of a file, without folder; got"):
        show(figure(), name)
    assert not list(tmp_path.iterdir())
