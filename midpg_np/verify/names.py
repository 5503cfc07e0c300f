"""Name maps: where a case's quantities are in a dump, and how they lie there.

A map's entry gives the place of a quantity, its gradient and its next value alike:

    "layer_1.W" = "layers.0.weight"                                      the same under another name
    "layer_1.W" = {name = "layers.0.weight", transpose = true}           out x in
    "embedding.table" = {concat = ["user.weight", "item.weight"], axis = 0}
    "layer_1.b" = {name = "packed", start = 0, stop = 32, axis = 0}      a part of a larger array
    "logit" = {name = "out", reshape = [-1]}

Further keys of a map, with their defaults: ``gradient = "d.{name}"``, ``next = "next.{name}"``,
``serving = "serving.{name}"`` are the names of derived quantities in the dump.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.verify.files import Dumped
from midpg_np.verify.outcome import ADJOINT, NEXT, SERVING

TEMPLATES = {"gradient": ADJOINT, "next": NEXT, "serving": SERVING}
ENTRY_KEYS = {"name", "concat", "axis", "transpose", "start", "stop", "reshape"}


@dataclass(frozen=True)
class Place:
    """Where one quantity is in a dump.

    Parameters
    ----------
    sources : tuple of str
        Names in the dump; several are joined along ``axis``.
    axis : int
        Axis of joining and of ``start``, ``stop``.
    start, stop : int, optional
        Part of the array that is meant.
    transpose : bool
        Exchange the last two axes, after joining and cutting.
    reshape : tuple of int, optional
        Last of all, give it this shape.
    """

    sources: tuple[str, ...]
    axis: int = 0
    start: int | None = None
    stop: int | None = None
    transpose: bool = False
    reshape: tuple[int, ...] | None = None

    def read(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return the quantity from the arrays of ``sources``."""
        array = np.concatenate(arrays, axis=self.axis) if len(arrays) > 1 else arrays[0]
        if self.start is not None or self.stop is not None:
            cut: list[Any] = [slice(None)] * array.ndim
            cut[self.axis] = slice(self.start, self.stop)
            array = array[tuple(cut)]
        if self.transpose:
            array = np.swapaxes(array, -1, -2)
        return array if self.reshape is None else array.reshape(self.reshape)


@dataclass(frozen=True)
class NameMap:
    """Places by the case's names; a quantity that is not mapped has the case's name in the dump."""

    places: Mapping[str, Place]
    templates: Mapping[str, str]

    def place(self, name: str) -> Place:
        """Return where a quantity is, derived ones ("d.", "next.", "serving.") included."""
        if name in self.places:
            return self.places[name]
        for kind, prefix in TEMPLATES.items():
            if name.startswith(prefix):
                base = self.place(name.removeprefix(prefix))
                template = self.templates[kind]
                sources = tuple(template.replace("{name}", s) for s in base.sources)
                return Place(
                    sources, base.axis, base.start, base.stop, base.transpose, base.reshape
                )
        return Place((name,))


def name_map(names: Mapping[str, Any] | str | Path | None, case_names: Sequence[str]) -> NameMap:
    """Build a map from a dictionary, a TOML file, or nothing.

    Parameters
    ----------
    names : mapping or path, optional
        As in the text above.
    case_names : sequence of str
        The names that a map may speak of.

    Raises
    ------
    ValueError
        For a name that the case does not have (the closest is suggested) or an entry that is none.
    """
    entries, origin = _entries(names)
    templates = {
        kind: str(entries.pop(kind, prefix + "{name}")) for kind, prefix in TEMPLATES.items()
    }
    for kind, template in templates.items():
        if "{name}" not in template:
            raise ValueError(f"{origin}: {kind} must contain {{name}}; got {template!r}.")
    for name in entries:
        if name not in case_names:
            raise ValueError(
                f"{origin}: the case has no quantity {name!r}.{closest(name, case_names)}"
            )
    return NameMap({name: _place(origin, name, e) for name, e in entries.items()}, templates)


def _entries(names: Mapping[str, Any] | str | Path | None) -> tuple[dict[str, Any], str]:
    if names is None or isinstance(names, Mapping):
        return dict(names or {}), "name map"
    path = Path(names)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; expected a name map in TOML.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), str(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no TOML file ({error}).") from error


def _place(origin: str, name: str, entry: Any) -> Place:
    if isinstance(entry, str):
        return Place((entry,))
    if not isinstance(entry, Mapping):
        raise ValueError(f"{origin}: {name} must be a name or a table; got {entry!r}.")
    for key in entry:
        if key not in ENTRY_KEYS:
            raise ValueError(f"{origin}: {name} has a key {key!r}.{closest(key, ENTRY_KEYS)}")
    if ("name" in entry) == ("concat" in entry):
        raise ValueError(f"{origin}: {name} needs one of name and concat; got {dict(entry)}.")
    sources = (entry["name"],) if "name" in entry else tuple(entry["concat"])
    reshape = tuple(entry["reshape"]) if "reshape" in entry else None
    options = {k: entry[k] for k in ("axis", "start", "stop", "transpose") if k in entry}
    return Place(sources, **options, reshape=reshape)


def closest(name: str, known: Any) -> str:
    """Return " Did you mean ...?", or nothing if no known name is near."""
    match = get_close_matches(name, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def mapped(
    dump: Mapping[str, Dumped],
    case_names: Sequence[str],
    names: Mapping[str, Any] | str | Path | None = None,
    ignore: Sequence[str] = (),
) -> dict[str, Dumped]:
    """Return what a dump holds, under the case's names and in its order.

    Parameters
    ----------
    dump : mapping
        Arrays by their names in the dump.
    case_names : sequence of str
        Names of the case, in order.
    names : mapping or path, optional
        The map.
    ignore : sequence of str
        Patterns of names in the dump to pass over.

    Raises
    ------
    ValueError
        If the dump has a name that is not in the case, or lacks one that the map speaks of; the
        closest is suggested.
    """
    places = name_map(names, case_names)
    dump = {k: v for k, v in dump.items() if not any(fnmatchcase(k, pattern) for pattern in ignore)}
    found, used = {}, set()
    for name in case_names:
        place = places.place(name)
        present = [source for source in place.sources if source in dump]
        if len(present) == len(place.sources):
            found[name] = _read(name, place, [dump[source] for source in place.sources])
            used.update(present)
        elif present:
            absent = next(source for source in place.sources if source not in dump)
            raise ValueError(f"{name}: the dump lacks {absent!r}.{closest(absent, dump)}")
    _check_all_used(places, dump, found, used, case_names)
    return found


def _read(name: str, place: Place, parts: Sequence[Dumped]) -> Dumped:
    try:
        array = place.read([part.array for part in parts])
    except (ValueError, IndexError) as error:
        shapes = [part.array.shape for part in parts]
        raise ValueError(f"{name}: {place} does not fit shapes {shapes} ({error}).") from error
    return Dumped(array, parts[0].dtype)


def _check_all_used(
    places: NameMap,
    dump: Mapping[str, Dumped],
    found: Mapping[str, Any],
    used: set[str],
    case_names: Sequence[str],
) -> None:
    derived = ["", *TEMPLATES.values()]
    for name in places.places:
        if not any(prefix + name in found for prefix in derived):
            source = places.places[name].sources[0]
            raise ValueError(
                f"{name}: the dump has neither {source!r} nor its gradient.{closest(source, dump)}"
            )
    for source in dump:
        if source not in used:
            raise ValueError(
                f"the dump holds {source!r}, which is no quantity of the case."
                f"{closest(source, case_names)} Map it, or ignore it."
            )
