"""Model files and checkpoints: one safetensors file each, written so that it is whole or not there.

A file holds named arrays and one JSON text in the header, and nothing that could be executed.
``docs/training.md`` describes the names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import to_numpy
from midpg_np.models import make_model, model_config, model_name
from midpg_np.tree import Tree, tree_flatten, tree_items, tree_unflatten

MODEL_FORMAT = "midpg_np.model"
VERSION = 1
HEADER = "midpg_np"  # key of the metadata in the file's header


class LoadedModel(NamedTuple):
    """Contents of a model file; ``encoder`` is None if none was saved, ``meta`` what was added."""

    model: Any
    params: Tree
    encoder: Any
    meta: dict[str, Any]


def write_file(
    path: str | Path,
    format_name: str,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
) -> None:
    """Write arrays and JSON-able metadata; a reader sees the old file or the new one, whole.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; the old file is intact.
    """
    from safetensors.numpy import save_file

    # One entry only: safetensors writes several in random order, and equal models should be
    # equal files.
    header = {HEADER: header_text(format_name, meta)}
    with replacing(path) as temporary:
        # safetensors reads the memory as it lies: a transposed view would be stored wrongly.
        temporary.write_bytes(b"")
        mode = temporary.stat().st_mode  # as the user's umask has it; safetensors would hide it
        save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, temporary, header)
        temporary.chmod(mode)


def header_text(format_name: str, meta: Mapping[str, Any]) -> str:
    """Return the JSON text that says what a file holds; ``parse_header`` reads it."""
    return json.dumps({"format": format_name, "version": VERSION, "content": dict(meta)})


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a place for a new file, which replaces the old one once the disk has it whole.

    Raises
    ------
    OSError
        If the new file could not be written; the old one is intact.
    """
    from safetensors import SafetensorError

    path = Path(path)
    # A folder, since safetensors keeps an unfinished file under a name of its own: whatever a kill
    # leaves there goes with the next file that is written.
    folder = path.with_name(f".{path.name}.tmp")
    temporary = folder / path.name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{path}: could not be written ({error}); what was saved there before is intact."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: str | Path, format_name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the metadata of a file written by ``write_file``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, foreign, of another kind or of a later version; the message says
        what was found and what was expected.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    expected = f"expected a {format_name} file (safetensors, version {VERSION})"
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file; {expected}.")
    if not path.is_file():
        raise ValueError(f"{path}: found a folder; {expected}.")
    try:
        with safe_open(path, framework="np") as file:
            meta = parse_header(path, file.metadata() or {}, expected, format_name)
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}
    except SafetensorError as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: found {size} bytes that are no complete safetensors file ({error}); "
            f"{expected}."
        ) from error
    return arrays, meta


def parse_header(
    path: Path, header: Mapping[str, str], expected: str, format_name: str
) -> dict[str, Any]:
    """Return what ``header_text`` was given, or raise ValueError saying what was found instead."""
    if HEADER not in header:
        raise ValueError(f"{path}: found a safetensors file of another origin; {expected}.")
    try:
        parsed = json.loads(header[HEADER])
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: found damaged metadata ({error}); {expected}.") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("content"), dict):
        raise ValueError(f"{path}: found metadata that is no JSON object; {expected}.")
    if parsed.get("format") != format_name:
        raise ValueError(f"{path}: found a {parsed.get('format')!r} file; {expected}.")
    if parsed.get("version") != VERSION:
        found = parsed.get("version")
        raise ValueError(f"{path}: found version {found!r}; {expected}. Update midpg_np.")
    return parsed["content"]


def with_prefix(prefix: str, tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the leaves of a tree on the host as ``{"prefix.path": array}``."""
    return {f"{prefix}.{path}": to_numpy(leaf) for path, leaf in tree_items(tree)}


def without_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose name starts with ``prefix.``, named by the rest."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def save_model(
    path: str | Path,
    model: Any,
    params: Tree,
    encoder: Any = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Save a model with its parameters and, if given, its encoder, so that raw rows can be scored.

    Parameters
    ----------
    path : str or Path
        File to write; replaced as a whole if it exists.
    model, params
        A model of ``MODELS`` and its parameters; every bit is kept.
    encoder : Encoder, optional
        Fitted encoder of the rows.
    meta : mapping, optional
        Anything JSON-able to keep beside the model.

    Raises
    ------
    OSError
        If the file cannot be written; an older file is then intact.
    """
    arrays = with_prefix("params", params)
    header = {"model": model_name(model), "config": model_config(model), "meta": dict(meta or {})}
    if encoder is not None:
        header["encoder"], encoder_arrays = encoder.state()
        arrays |= {f"encoder.{name}": array for name, array in encoder_arrays.items()}
    write_file(path, MODEL_FORMAT, arrays, header)


def load_model(path: str | Path) -> LoadedModel:
    """Load what ``save_model`` saved in the file ``path``; every bit is as it was.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated or foreign, or its arrays are not those of its model.
    """
    arrays, header = read_file(path, MODEL_FORMAT)
    if "model" not in header or "config" not in header:
        raise ValueError(f"{path}: found metadata {sorted(header)}; expected model and config.")
    try:
        model = make_model(header["model"], **header["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the model in this file cannot be built: {error}") from error
    flat = without_prefix("params", arrays)
    check_params(model, flat, str(path))
    encoder = None
    if "encoder" in header:
        from midpg_np.data.encoding import Encoder

        encoder = Encoder.from_state(header["encoder"], without_prefix("encoder", arrays))
    return LoadedModel(model, tree_unflatten(flat), encoder, header.get("meta", {}))


def check_params(model: Any, flat: Mapping[str, np.ndarray], origin: str) -> None:
    """Raise ValueError unless ``flat`` has exactly the names and shapes of the model's parameters.

    Parameters
    ----------
    origin : str
        Where the arrays come from, for the message.
    """
    expected = tree_flatten(model.init(np.random.default_rng(0)))
    for path in sorted(expected.keys() | flat.keys()):
        if path not in flat or path not in expected:
            found = "lacks" if path not in flat else "has, beyond its model,"
            raise ValueError(f"{origin}: {found} the parameter {path}.")
        if flat[path].shape != expected[path].shape:
            raise ValueError(
                f"{origin}: parameter {path} has shape {flat[path].shape}; its model needs "
                f"{expected[path].shape}."
            )
