"""Machine code that Numba has kept is used only as long as every source of this folder is the same.

Numba asks only whether the file has changed in which a loop stands.  But loops call functions of
other files (``loops.exp``), and an upgrade of the package leaves kept code where it is.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

STAMP = "sources.sha256"


@lru_cache
def forget_other_code(kept: Path) -> None:
    """Remove the machine code in the folder ``kept`` unless it was made from the present sources.

    Another process may do the same or compile meanwhile: what it misses, Numba compiles again.
    """
    stamp, present = kept / STAMP, _sources()
    try:
        if stamp.exists() and stamp.read_text() == present:
            return
        for pattern in ("*.nbi", "*.nbc"):
            for file in kept.glob(pattern):
                file.unlink(missing_ok=True)
        kept.mkdir(parents=True, exist_ok=True)
        temporary = stamp.with_name(f"{STAMP}.{os.getpid()}")
        temporary.write_text(present)
        os.replace(temporary, stamp)
    except OSError:  # nobody may write there, so Numba keeps nothing there either
        return


def _sources() -> str:
    digest = sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
