"""The README's example runs and prints what the README says; its commands exist."""

import re
from pathlib import Path

import pytest

import midpg_np

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_says(capsys):
    code, printed = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", TEXT, re.S).groups()
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out == printed


def test_the_example_stands_on_the_first_screen():
    assert TEXT[: TEXT.index("```python")].count("\n") < 20


def test_every_command_of_the_readme_exists():
    typer = pytest.importorskip("typer", reason="the command line needs the extra 'app'")
    from midpg_np.commands import app

    known = set(typer.main.get_command(app).commands)
    named = set(re.findall(r"\bmidpg ([a-z]+)\b", TEXT))
    assert named and named <= known


def test_every_public_name_can_be_imported():
    for name in midpg_np.__all__:
        assert getattr(midpg_np, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'MDPIG'"):
        _ = midpg_np.MDPIG
