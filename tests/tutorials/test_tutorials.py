"""Every tutorial runs as it stands, prints the numbers it quotes, and imports what it explains."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from lesson import Lesson
from lesson_run import run_complaints

TUTORIALS = sorted((Path(__file__).parents[2] / "tutorials").glob("*.py"))
EXTRAS = {"15": "torch"}  # libraries beyond the usual ones, by the number of the tutorial
REAL_DATA = "11"
SLOW = ("11", "12", "15")  # more than three seconds


def number_of(path):
    return path.name[:2]


def test_there_are_sixteen_tutorials_numbered_one_by_one():
    assert [number_of(path) for path in TUTORIALS] == [f"{i:02}" for i in range(1, 17)]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_has_the_form_of_one(path):
    lesson = Lesson(path.read_text(encoding="utf-8"))
    assert lesson.complaints(extra=EXTRAS.get(number_of(path), "").split()) == []
    assert all(name.startswith(number_of(path)) for name in lesson.figures)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (number_of(path) in SLOW))
        for path in TUTORIALS
    ],
)
def test_a_tutorial_runs_and_prints_what_it_quotes(path, tmp_path):
    extra = EXTRAS.get(number_of(path))
    if extra and find_spec(extra) is None:
        pytest.skip(f"tutorial {path.stem} needs the extra {extra!r}, which is not installed")
    pytest.importorskip("matplotlib", reason="the figures of the tutorials need the extra 'app'")
    assert run_complaints(path, tmp_path) == []


@pytest.mark.slow
def test_the_tutorial_on_real_data_runs_on_real_data(shared, tmp_path):
    folder = shared("marketbias-electronics").parent
    (path,) = (path for path in TUTORIALS if number_of(path) == REAL_DATA)
    assert run_complaints(path, tmp_path, MIDPG_DATA=str(folder)) == []
