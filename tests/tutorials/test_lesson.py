"""The tests of the tutorials reject a wrong tutorial, whatever is wrong with it."""

import re

import lesson_run
import pytest
from lesson import Lesson
from lesson_run import run_complaints

EXERCISE = """
# **{0}.** What is {0} and three quarters?
#
# .. dropdown:: Solution {0}
#
#    It is ``{0}.75``.
#
#    .. code-block:: python
#
#       less = {0}
#       assert less + 0.75 == {0}.75
#
""".lstrip("\n")
GOOD = '''r"""
Halves
======

Half is ``0.5``, a gross ``144``, all fields ``1,024 bytes``, and :math:`\\\\frac12` is no number.
"""

# %%
# Quarters
# --------
# A quarter is ``0.25``; ``20`` counts, and so do ``-1.5e-03`` and ``half``.

import numpy as np

half = 0.5
print(f"half +{half}, gross: {12 * 12}. Fields 1,024, small {-1.5e-3:.1e}")
assert half**2 == 0.25

# %%
# Exercises
# ---------
''' + "".join(EXERCISE.format(i) for i in (1, 2, 3))


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def complaints_of(source, folder):
    path = folder / "99_halves.py"
    path.write_text(source, encoding="utf-8")
    return run_complaints(path, folder)


def test_a_good_tutorial_passes(tmp_path):
    assert Lesson(GOOD).complaints() == []
    assert complaints_of(GOOD, tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("======", "===", "the docstring has no title underlined with ="),
        ('r"""\nHalves', 'x = r"""\nHalves', "the docstring has no title underlined with ="),
        ("# **2.**", "# **4.**", "the exercises are [1, 4, 3]"),
        ("Solution 3", "Answer 3", "the solutions are [1, 2]"),
        (
            "#       assert less + 0.75 == 2.75",
            "#       print(less == 2.75)",
            "solution 2 proves nothing",
        ),
        ("import numpy", "import pandas", "imports pandas"),
        ("#       less = 2", "#       import scipy", "imports scipy"),
        ("half = 0.5", "fit = half = 0.5", "defines fit, an export of midpg_np"),
        ("half = 0.5", "def compare(): half = 0.5", "defines compare, an export of midpg_np"),
        ("half = 0.5", "class Case: half = 0.5", "defines Case, an export of midpg_np"),
        ("half = 0.5", "for STAR in (0.5,): half = STAR", "defines STAR, an export of midpg_np"),
        ("half = 0.5", "half = [0.5 for PLE in 'a']", "defines PLE, an export of midpg_np"),
        ("half = 0.5", "half = lambda fit: 0.5", "defines fit, an export of midpg_np"),
        ("#       less = 1", "#       APG = less = 1", "defines APG, an export of midpg_np"),
        ("numpy as np", "numpy as fit", "defines fit, an export of midpg_np"),
        ("import numpy as np", "import midpg_np.ops\nrelu = 0", "defines relu, an export of"),
        ("import numpy as np", "from midpg_np import ops\ndef tanh(): 0", "defines tanh, an exp"),
        ("import numpy as np", "from midpg_np.losses import Loss\njensen_shannon = 0", "defines j"),
    ],
)
def test_a_wrong_form_is_told(old, new, complaint):
    (found,) = Lesson(changed(old, new)).complaints()
    assert found.startswith(complaint)


def test_imported_names_and_names_of_other_modules_are_free():
    source = changed("import numpy as np", "from midpg_np.ops import relu\nmlp = relu")
    assert Lesson(source).complaints() == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.51"),
        ("144", "44"),
        ("0.25", "0.2500001"),
        ("-1.5e-03", "-1.5e-04"),
        ("1,024", "1,025"),
        ("2.75", "2.76"),
    ],
)
def test_a_number_that_nothing_proves_is_found(old, new):
    printed = "half +0.5, gross: 144. Fields 1,024, small -1.5e-03"
    assert Lesson(GOOD).unproven_numbers(printed) == []
    assert Lesson(changed(f"``{old}", f"``{new}")).unproven_numbers(printed) == [new]


def test_digits_of_a_longer_number_prove_nothing():
    assert Lesson(GOOD).unproven_numbers("+0.52 1441 1,0245 -1.5e-031") == [
        "-1.5e-03",
        "0.5",
        "1,024",
        "144",
    ]


SHOW = """
def show(figure, name):
    import os, pathlib
    folder = pathlib.Path(os.environ["MIDPG_FIGURES"])
    folder.mkdir()
    (folder / (name + ".png")).write_bytes(figure)

show({}, "99_halves")
half = 0.5"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("half = 0.5", "half = 0", r"fails: .*AssertionError"),
        ("half = 0.5", "half = 0.5; np.log(0.0)", r"fails: .*RuntimeWarning: divide by zero"),
        ("#       less = 2", "#       less = 3", r"fails: .*, solution 2.*AssertionError"),
        ("12 * 12", "12 * 13", "144 is quoted but neither printed nor asserted"),
        ("half = 0.5", "half = 0.5; open('left', 'w').close()", "leaves left behind"),
        ("half = 0.5", SHOW.format(b"PNG"), "figure 99_halves was not drawn"),
    ],
)
def test_a_wrong_run_is_told(old, new, complaint, tmp_path):
    (found,) = complaints_of(changed(old, new), tmp_path)
    assert re.match(complaint, found, re.S)


def test_a_run_without_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lesson_run, "SECONDS", 0.3)
    endless = changed("half = 0.5", "while True: 0")
    assert complaints_of(endless, tmp_path) == ["takes more than 0.3 seconds"]


def test_solutions_do_not_see_each_other_and_figures_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("MIDPG_DATA", "here")
    source = changed("half = 0.5", SHOW.format(lesson_run.PNG))
    source = source.replace("#       less = 1", "#       half = less = 1")
    unset = (
        'import os\n#       assert half == 0.5 and "MIDPG_DATA" not in os.environ\n#       less = 2'
    )
    assert complaints_of(source.replace("less = 2", unset), tmp_path) == []
