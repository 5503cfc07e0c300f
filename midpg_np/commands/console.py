"""Results on stdout, messages and progress on stderr."""

from __future__ import annotations

import sys

from rich.console import Console

# A table must not be cut to 80 columns when the output is a file or a pipe.
WIDTH_OF_FILES = 140


def stdout() -> Console:
    """Return the console for results."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES, highlight=False)


def stderr() -> Console:
    """Return the console for messages and progress bars; bars are off if it is no terminal."""
    return Console(stderr=True, highlight=False, soft_wrap=True)
