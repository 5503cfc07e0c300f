"""Stop-gradient sg(x): the value passes, the derivative is zero."""

from __future__ import annotations

from collections.abc import Mapping

from midpg_np.backend import Array


class StopGradient:
    """Records every detached value by name, and can replay recorded ones.

    A numerical check changes a parameter and runs ``forward`` again; a value behind sg must then
    stay what it was.  So the check runs ``forward`` once, keeps ``detached``, and passes it back
    as ``frozen``.
    """

    def __init__(self, frozen: Mapping[str, Array] | None, detached: dict[str, Array]) -> None:
        self.frozen = frozen
        self.detached = detached

    def __call__(self, name: str, x: Array) -> Array:
        """Return sg(x)."""
        self.detached[name] = x
        return x if self.frozen is None else self.frozen[name]
