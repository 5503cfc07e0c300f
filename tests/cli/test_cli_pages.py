"""The pages on the command line and the estimator: examples run and print what the pages show.

Digits may differ between machines, so they are compared as digits; words and layout as they are.
"""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import typer
from midpg_command import terminal
from pages import DOCS, assert_shown, blocks

from midpg_np.commands import app
from midpg_np.estimator import MultiScenarioClassifier


def run_python(code, names):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


@pytest.mark.slow
def test_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = iter(["new.csv", "kiosk.csv"])
    n_commands = 0
    for language, text in blocks("cli.md"):
        if language == "toml":
            Path("roles.toml").write_text(text, encoding="utf-8")
        elif language == "csv":
            Path(next(tables)).write_text(text, encoding="utf-8")
        elif language == "python":
            run_python(text, {})
        else:
            assert language == "console"
            for example in re.split(r"^\$ ", text, flags=re.M)[1:]:
                command, _, shown = example.partition("\n")
                name, *arguments = shlex.split(command)
                assert name == "midpg"
                assert_shown(shown, terminal(*arguments), command)
                n_commands += 1
    assert n_commands > 10 and next(tables, None) is None


@pytest.mark.slow
def test_estimator():
    pytest.importorskip("pandas", reason="the example uses a frame of pandas")
    names, printed, n_shown = {}, "", 0
    for language, text in blocks("estimator.md"):
        if language == "python":
            printed = run_python(text, names)
        else:
            assert_shown(text, printed, "estimator.md")
            n_shown += 1
    assert n_shown == 2


def test_a_page_that_shows_something_else_is_found():
    assert_shown("AUC 0.71\n...\nend", "AUC 0.69\none\ntwo\nend", "x")
    for printed in ("LogLoss 0.71\nend", "AUC 0.71\nend\nmore"):
        with pytest.raises(AssertionError):
            assert_shown("AUC 0.71\n...\nend", printed, "x")


COMMANDS = ("train", "predict", "gradcheck", "verify", "reproduce", "data")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_section(command):
    assert f"\n## midpg {command}\n" in (DOCS / "cli.md").read_text(encoding="utf-8")


def test_every_option_of_train_is_described():
    options = typer.main.get_command(app).commands["train"].params
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for option in options:
        assert any(f"`{name}" in page for name in (*option.opts, *option.secondary_opts))


def test_every_argument_of_the_estimator_is_described():
    page = (DOCS / "estimator.md").read_text(encoding="utf-8")
    for name in MultiScenarioClassifier().get_params():
        assert f"`{name}`" in page or f'`{name}="' in page
