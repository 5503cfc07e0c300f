"""The pages on verification: their commands and programs run, and print what the pages show."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import DOCS, assert_shown, blocks

from midpg_np.verify.mistakes import MISTAKES
from midpg_np.verify.mistakes.page import catalogue_page


def midpg(*arguments):
    """Run the command in this process and return what it prints."""
    typer = pytest.importorskip("typer", reason="the command line needs the extra 'app'")
    from midpg_np.commands import app

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        typer.main.get_command(app).main(list(arguments), standalone_mode=False)
    return printed.getvalue()


def run_console(text):
    command, _, shown = text.partition("\n")
    arguments = shlex.split(command.removeprefix("$ "))
    if arguments[0] == "midpg":
        assert_shown(shown, midpg(*arguments[1:]), command)
    else:
        subprocess.run(arguments, check=True)


def run_page_console(text):
    """Run the commands of a block, each with what it prints below it."""
    for piece in re.split(r"^(?=\$ )", text, flags=re.M):
        if piece.strip():
            run_console(piece)


def test_verify_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    languages = []
    for language, text in blocks("verify.md"):
        languages.append(language)
        if language == "console":
            run_page_console(text)
        elif language == "python":
            exec(compile(text, "verify.md", "exec"), {})
        elif language == "toml":
            Path("names.toml").write_text(text, encoding="utf-8")
    assert languages.count("console") == 3
    assert languages.count("python") == 1


def test_cpp_program(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ on this machine")
    monkeypatch.chdir(tmp_path)
    found = blocks("verify-files.md")
    Path("dnn.cpp").write_text(dict(found)["cpp"], encoding="utf-8")
    consoles = [text for language, text in found if language == "console"]
    run_page_console(consoles[0])
    run_page_console(consoles[-1])


def test_tensorflow_program(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="the program needs TensorFlow")
    monkeypatch.chdir(tmp_path)
    found = blocks("verify-files.md")
    consoles = [text for language, text in found if language == "console"]
    run_page_console(consoles[0])
    Path("names.toml").write_text(dict(found)["toml"], encoding="utf-8")
    subprocess.run([sys.executable, "-c", dict(found)["tensorflow"]], check=True)
    run_page_console(consoles[1])


def test_the_page_of_mistakes_is_the_catalogue():
    page = (DOCS / "mistakes.md").read_text(encoding="utf-8")
    assert page == catalogue_page(list(MISTAKES.values())) + "\n", (
        "print it again: midpg verify mistakes --markdown > docs/mistakes.md"
    )


def test_entries_of_a_zip_member_are_read_as_the_format_page_says(tmp_path):
    """The header of an npz is a member of bytes, and no member needs pickle."""
    import json

    from midpg_np.verify.case import make_case
    from midpg_np.verify.ready import sized_model

    make_case(sized_model("dnn", {}, small=True)).save(tmp_path / "case.npz")
    with np.load(tmp_path / "case.npz", allow_pickle=False) as file:
        header = json.loads(file["midpg_np"].tobytes())
        assert set(header["content"]["order"]) == set(file.files) - {"midpg_np"}
