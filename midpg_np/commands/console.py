"""Results on stdout, messages and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console

# A table must not be cut to 80 columns when the output is a file or a pipe.
WIDTH_OF_FILES = 140


def stdout() -> Console:
    """Return the console for results."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES, highlight=False)


def stderr() -> Console:
    """Return the console for messages and progress bars; bars are off if it is no terminal."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` pairs; a value that is JSON is read as JSON, anything else as text.

    Raises
    ------
    ValueError
        If there is no "=" in one of them.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"a setting is written NAME=VALUE, such as gain=2; got {setting!r}.")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
