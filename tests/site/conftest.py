"""The site, built once for all tests, and a server for it."""

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from site_server import SiteServer

ROOT = Path(__file__).parents[2]
NEEDED = ("sphinx", "sphinx_gallery", "pydata_sphinx_theme", "myst_parser", "sphinx_design")
NEEDED = (*NEEDED, "sphinx-mathjax-offline", "matplotlib", "networkx")
PATIENCE = 900  # seconds that a worker waits for another one's build

sys.path.insert(0, str(ROOT / "docs" / "_ext"))


class Built(NamedTuple):
    """What a build left: the folder of the pages, the exit status and all messages."""

    pages: Path
    status: int
    messages: str


def copy_of_the_repository(folder):
    """Copy what a build writes into, and link the rest, so that the build starts afresh."""
    for path in ROOT.iterdir():
        if path.name in {"docs", "tutorials"}:
            ignored = shutil.ignore_patterns("_build", "__pycache__", "tutorials", "figures")
            shutil.copytree(path, folder / path.name, ignore=ignored)
        elif not path.name.startswith("."):
            (folder / path.name).symlink_to(path)


def build(folder):
    """Build the site by the command of docs/site.md."""
    copy_of_the_repository(folder)
    options = ("-j", "auto", "-W", "--keep-going", "-n", "-b", "html")
    command = [sys.executable, "-m", "sphinx", *options, "docs", "docs/_build/html"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
    )
    (folder / "messages").write_text(run.stdout + run.stderr, encoding="utf-8")
    (folder / "status").write_text(str(run.returncode))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Let one of the workers that share the tests do a piece of work, while the others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name, work):
        folder = base / name
        try:
            folder.mkdir()
        except FileExistsError:
            end = time.monotonic() + PATIENCE
            while not (folder / "done").exists() and time.monotonic() < end:
                time.sleep(0.5)
            return folder
        try:
            work(folder)
        finally:
            (folder / "done").touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def site(once):
    """Build the site, if what it needs is installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"the site needs {', '.join(missing)}; install the extra 'docs'")
    folder = once("site", build)
    messages = (folder / "messages").read_text(encoding="utf-8")
    return Built(folder / "docs/_build/html", int((folder / "status").read_text()), messages)


@pytest.fixture(scope="session")
def server(site):
    """Serve the site at a free port of this machine."""
    with SiteServer(site.pages) as running:
        yield running
