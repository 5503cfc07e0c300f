"""Figures of the tutorials, as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = "MIDPG_FIGURES"  # environment variable


def show(figure: Any, name: str) -> Path:
    """Save a figure as ``figures/name.png`` below the working directory; return the path.

    If the environment variable MIDPG_FIGURES is set, its folder is used instead.

    Parameters
    ----------
    figure : matplotlib Figure
        As the functions of this package return it.
    name : str
        Name of the file, without folder and ending.

    Raises
    ------
    ValueError
        If the name is empty or holds a folder.
    OSError
        If the file cannot be written.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"name must be that of a file, without folder; got {name!r}.")
    folder = Path(os.environ.get(FOLDER) or "figures")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, format="png", dpi=150)
    return path
