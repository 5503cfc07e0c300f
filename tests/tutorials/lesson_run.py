"""Run a tutorial in a process of its own, and say what is wrong with what it did."""

import os
import subprocess
import sys
from pathlib import Path

from lesson import Lesson

RUNNER = Path(__file__).with_name("run.py")
SECONDS = 30
PNG = b"\x89PNG"


def run_complaints(path, folder, **environment):
    """Run a tutorial in an empty working directory; an empty list if all is well.

    The environment is this process's without MIDPG_DATA, and figures go to a folder of their own.
    """
    work, figures = folder / "work", folder / "figures"
    work.mkdir()
    inherited = {name: value for name, value in os.environ.items() if name != "MIDPG_DATA"}
    try:
        result = subprocess.run(
            [sys.executable, "-W", "error", str(RUNNER), str(path)],
            cwd=work,
            env=inherited | {"MIDPG_FIGURES": str(figures)} | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return [f"takes more than {SECONDS} seconds"]
    if result.returncode:
        return [f"fails: {result.stderr[-2000:]}"]
    lesson = Lesson(path.read_text(encoding="utf-8"))
    unproven = lesson.unproven_numbers(result.stdout)
    found = [f"{number} is quoted but neither printed nor asserted" for number in unproven]
    drawn = {file.stem for file in figures.rglob("*.png") if file.read_bytes().startswith(PNG)}
    found += [f"figure {name} was not drawn" for name in sorted(lesson.figures - drawn)]
    return found + [f"leaves {file.name} behind" for file in sorted(work.iterdir())]
