"""Import Numba without SciPy's linear algebra, which it loads only to see whether it is there.

The loops multiply no matrices.  So while Numba looks, empty modules stand in for the one it looks
for; then they are taken away, and whoever wants SciPy's linear algebra, Numba included, gets it.
A process needs 16 MB and a tenth of a second less (docs/decisions/0009-compiled-loops.md), and one
more without PyYAML, which reads Numba's settings: it stays away where there is no such file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

_LOOKED_FOR = ("scipy.linalg", "scipy.linalg.cython_blas")
_SETTINGS = Path(".numba_config.yaml")


def import_numba() -> None:
    """Load Numba, and of it what asks for SciPy.

    Without SciPy it finds none: the package itself has no stand-in.
    """
    with _stand_ins(() if _LOOKED_FOR[0] in sys.modules else _LOOKED_FOR), _without_yaml():
        import_module("numba.np.arraymath")


@contextmanager
def _without_yaml() -> Iterator[None]:
    if "yaml" in sys.modules or _SETTINGS.exists():
        yield
        return
    sys.modules["yaml"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        yield
    finally:
        del sys.modules["yaml"]


@contextmanager
def _stand_ins(names: tuple[str, ...]) -> Iterator[None]:
    modules = {name: ModuleType(name) for name in names}
    for module in modules.values():
        module.__path__ = []  # a package, as an import of something inside it asks
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
