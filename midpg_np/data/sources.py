"""Finding the files of a public data set; nothing here downloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Where a data set is published, in words, and the names of the file that is read.

    Parameters
    ----------
    name : str
        Name of the data set, as ``load_dataset`` takes it.
    files : tuple of str
        Names the file may have, the preferred one first; each also with ``.gz``.
    published : str
        Publisher and place.
    """

    name: str
    files: tuple[str, ...]
    published: str

    def locate(self, path: str | PathLike[str] | None) -> Path:
        """Return the file to read, given the file itself or its folder.

        Raises
        ------
        FileNotFoundError
            If no path is given or nothing suitable lies there; says where the data is published.
        """
        where = f"The data set is published by {self.published}; download it there."
        if path is None:
            raise FileNotFoundError(
                f"data set {self.name!r} needs a path, of {self.files[0]} or of its folder. {where}"
            )
        path = Path(path)
        if path.is_file():
            return path
        if not path.is_dir():
            raise FileNotFoundError(f"data set {self.name!r}: {path} does not exist. {where}")
        found = find_file(path, self.files)
        if found is None:
            raise FileNotFoundError(
                f"data set {self.name!r}: folder {path} holds none of {', '.join(self.files)} "
                f"(nor the same with .gz). {where}"
            )
        return found


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the files ``names``, plain or with ``.gz``, that lies in ``folder``."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None
