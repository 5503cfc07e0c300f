"""Compare a dump with a case, quantity by quantity, in the order of computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.verify.case import StepCase
from midpg_np.verify.files import Dumped, as_dumped, read_dump
from midpg_np.verify.names import mapped
from midpg_np.verify.outcome import ADJOINT, NEXT, SERVING
from midpg_np.verify.tolerance import FORMATS, allowed_error

KINDS = {ADJOINT: "gradient", NEXT: "next", SERVING: "serving"}


class DumpMismatchError(AssertionError):
    """A dump differs from its case."""


@dataclass(frozen=True)
class Entry:
    """What became of one quantity.

    Parameters
    ----------
    name : str
        Its name in the case.
    status : str
        "ok", "differs", "shape", "not finite" or "missing".
    error : float
        Largest absolute deviation.
    allowed : float
        What rounding explains.
    place : tuple of int
        Index of the largest deviation, or of the first entry that is not finite.
    got, want : float
        Both numbers there.
    n_wrong, n_entries : int
        Entries beyond what is allowed, and all.
    hint : str
        What could be the matter, where that can be said.
    """

    name: str
    status: str
    error: float = 0.0
    allowed: float = 0.0
    place: tuple[int, ...] = ()
    got: float = 0.0
    want: float = 0.0
    n_wrong: int = 0
    n_entries: int = 0
    hint: str = ""

    @property
    def kind(self) -> str:
        """What it is: "value", "gradient", "next" or "serving"."""
        return next(
            (kind for prefix, kind in KINDS.items() if self.name.startswith(prefix)), "value"
        )

    @property
    def is_wrong(self) -> bool:
        """Whether it is there and not right."""
        return self.status not in ("ok", "missing")

    def __str__(self) -> str:
        index = f"[{', '.join(map(str, self.place))}]" if self.place else ""
        if self.status in ("shape", "missing"):
            return f"{self.name}: {self.hint or self.status}"
        if self.status == "not finite":
            return f"{self.name}{index}: is {self.got}; expected {self.want:+.9e}"
        return (
            f"{self.name}{index}: got {self.got:+.9e}, expected {self.want:+.9e} "
            f"({self.n_wrong} of {self.n_entries} entries differ by more than {self.allowed:.1e})"
        )


@dataclass(frozen=True)
class Comparison:
    """A dump beside its case.

    Parameters
    ----------
    case : StepCase
    dump : dict
        What the dump holds, under the case's names.
    entries : tuple of Entry
        One per quantity of the case, in order of computation.
    """

    case: StepCase
    dump: Mapping[str, Dumped]
    entries: tuple[Entry, ...]

    @property
    def wrong(self) -> list[Entry]:
        """What is there and not right, in order of computation."""
        return [entry for entry in self.entries if entry.is_wrong]

    @property
    def missing(self) -> list[str]:
        """What the dump does not hold."""
        return [entry.name for entry in self.entries if entry.status == "missing"]

    @property
    def n_compared(self) -> int:
        """Quantities that were compared."""
        return len(self.entries) - len(self.missing)

    @property
    def ok(self) -> bool:
        """Whether everything that was compared is right."""
        return not self.wrong

    def first(self, kind: str) -> Entry | None:
        """Return the first wrong "value", "gradient" (backward order), "next" or "serving"."""
        return next((entry for entry in self.wrong if entry.kind == kind), None)

    def raise_if_wrong(self) -> None:
        """Raise an error that names the first wrong value and the first wrong gradient.

        Raises
        ------
        DumpMismatchError
            Unless ``ok``.
        """
        if self.ok:
            return
        firsts = [self.first(kind) for kind in ("value", "gradient", "next", "serving")]
        raise DumpMismatchError(
            "; ".join(str(entry) for entry in firsts if entry is not None) + "."
        )


def compare(
    case: StepCase,
    dump: Mapping[str, Any] | str | Path,
    names: Mapping[str, Any] | str | Path | None = None,
    ignore: Sequence[str] = (),
) -> Comparison:
    """Compare arrays of another implementation with a case.

    Parameters
    ----------
    case : StepCase
    dump : mapping or path
        Arrays by name, any subset of the case's, or a file of them (npz, safetensors).
    names : mapping or path, optional
        Name map, see ``verify.names``.
    ignore : sequence of str
        Patterns of names in the dump to pass over.

    Raises
    ------
    ValueError
        If the dump cannot be read, holds nothing of the case, or names that neither the case nor
        the map knows.
    """
    if isinstance(dump, (str, Path)):
        dumped = read_dump(dump)
    else:
        dumped = {k: v if isinstance(v, Dumped) else as_dumped(k, v) for k, v in dump.items()}
    if not dumped:
        raise ValueError("the dump holds nothing; expected some of the case's quantities.")
    found = mapped(dumped, list(case.arrays), names, ignore)
    found = in_one_format(found)
    entries = tuple(
        compare_entry(name, found[name], want, case.noise[name])
        if name in found
        else Entry(name, "missing")
        for name, want in case.arrays.items()
    )
    return Comparison(case, found, entries)


def in_one_format(found: Mapping[str, Dumped]) -> dict[str, Dumped]:
    """Return the dump with all real arrays in its coarsest format.

    An implementation in float32 may add up its loss in float64; what went in was rounded before.
    """
    formats = [dumped.dtype for dumped in found.values() if dumped.dtype in FORMATS]
    coarsest = max(formats, key=lambda name: FORMATS[name][0], default="float64")
    return {
        name: Dumped(dumped.array, coarsest) if dumped.dtype in FORMATS else dumped
        for name, dumped in found.items()
    }


def compare_entry(name: str, dumped: Dumped, want: np.ndarray, noise: float) -> Entry:
    """Compare one array with the right one."""
    got = dumped.array
    if got.shape != want.shape:
        return Entry(name, "shape", hint=_shape_hint(got.shape, want.shape))
    n_entries, is_finite = want.size, np.isfinite(got)
    if not is_finite.all():
        place = _index(np.argmin(is_finite), want.shape)
        return Entry(
            name, "not finite", np.inf, 0.0, place, float(got[place]), float(want[place]),
            int((~is_finite).sum()), n_entries,
        )  # fmt: skip
    dtype = dumped.dtype if want.dtype.kind == "f" else "integer"
    if want.dtype.kind == "f" and dtype not in FORMATS:
        dtype = "float64"
    error = np.abs(got - want)
    allowed = allowed_error(want, dtype, noise)
    n_wrong = int((error > allowed).sum())
    place = _index(np.argmax(error), want.shape) if n_entries else ()
    return Entry(
        name,
        "differs" if n_wrong else "ok",
        float(error.max(initial=0.0)),
        allowed,
        place,
        float(got[place]) if n_entries else 0.0,
        float(want[place]) if n_entries else 0.0,
        n_wrong,
        n_entries,
    )


def _index(flat: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def _shape_hint(got: tuple[int, ...], want: tuple[int, ...]) -> str:
    text = f"has shape {got}; expected {want}"
    if got != want and len(got) > 1 and (*got[:-2], got[-1], got[-2]) == want:
        return f"{text}: map it with transpose = true"
    if np.prod(got, dtype=int) == np.prod(want, dtype=int):
        return f"{text}: map it with reshape = {list(want)}"
    return text
