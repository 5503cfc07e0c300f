"""Pictures of the tutorials: what ``plots.show`` saves during a block belongs to the block."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst


def own_folder(gallery_conf: dict[str, Any], fname: str | Path | None) -> None:
    """Give the next tutorial an empty folder for its figures."""
    leave_folder(gallery_conf, fname)
    os.environ["MIDPG_FIGURES"] = tempfile.mkdtemp(prefix="midpg-figures-")


def leave_folder(gallery_conf: dict[str, Any], fname: str | Path | None) -> None:
    """Remove the folder of the last tutorial."""
    folder = os.environ.pop("MIDPG_FIGURES", None)
    if folder and Path(folder).name.startswith("midpg-figures-"):
        shutil.rmtree(folder, ignore_errors=True)


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Move new pictures to the page, in the order in which they were saved."""
    pictures = Path(os.environ["MIDPG_FIGURES"]).glob("*.png")
    blocks = []
    for picture in sorted(pictures, key=lambda path: path.stat().st_mtime_ns):
        place = next(block_vars["image_path_iterator"])
        shutil.move(picture, place)
        title = picture.stem.lstrip("0123456789_").replace("_", " ")
        blocks.append(figure_rst([place], gallery_conf["src_dir"], title))
    return "\n".join(blocks)
