"""Which column plays which role."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Schema:
    """Names and roles of the columns of a table.

    Parameters
    ----------
    label : str
        Column of the label: 0 or 1.
    scenario : str
        Column that says which scenario a row belongs to.  It routes; to be seen by the models
        as an input as well, it is named among ``aware`` too.
    aware : sequence of str
        Scenario-aware fields, which feed the weighting matrices and the backbone.
    agnostic : sequence of str
        The other fields, which feed the backbone only.
    numeric : sequence of str
        Those of ``aware`` and ``agnostic`` that are numbers; they are cut into quantile bins.
    n_bins : int
        Number of quantile bins of a numeric field, at most (equal quantiles are merged).
    min_count : int, or mapping of field to int
        Training rows that a category needs for a code of its own; rarer ones get code 0, like
        unknown ones.  One number counts for all fields of categories but the scenario's own.

    Raises
    ------
    ValueError
        If a role is empty or two roles contradict each other.
    """

    label: str
    scenario: str
    aware: tuple[str, ...]
    agnostic: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    n_bins: int = 16
    min_count: int | Mapping[str, int] = field(default=1, hash=False)

    def __post_init__(self) -> None:
        for role in ("aware", "agnostic", "numeric"):
            object.__setattr__(self, role, _names(role, getattr(self, role)))
        for role in ("label", "scenario"):
            if not isinstance(getattr(self, role), str) or not getattr(self, role):
                raise ValueError(
                    f"{role} must be the name of a column; got {getattr(self, role)!r}."
                )
        self._check_roles()
        if isinstance(self.n_bins, bool) or not isinstance(self.n_bins, int) or self.n_bins < 2:
            raise ValueError(f"n_bins must be a whole number of at least 2; got {self.n_bins!r}.")
        self._check_min_count()

    def _check_roles(self) -> None:
        if not self.aware:
            raise ValueError("aware must name at least one field, for example the scenario column.")
        twice = sorted({name for name in self.fields if self.fields.count(name) > 1})
        if twice:
            raise ValueError(
                f"field {twice[0]!r} is named twice in aware and agnostic; name it once."
            )
        if self.label in self.fields:
            raise ValueError(
                f"label {self.label!r} is also a field; a model must not see its own label."
            )
        if self.label == self.scenario:
            raise ValueError(f"column {self.label!r} cannot be both label and scenario.")
        for name in self.numeric:
            if name not in self.fields:
                raise ValueError(
                    f"numeric names {name!r}, which is not a field; "
                    f"the fields are {', '.join(self.fields)}."
                )

    def _check_min_count(self) -> None:
        if not isinstance(self.min_count, Mapping):
            _check_least_count("min_count", self.min_count)
            return
        categories = [name for name in self.fields if name not in self.numeric]
        for name, count in self.min_count.items():
            _check_least_count(f"min_count of {name!r}", count)
            if name not in categories:
                raise ValueError(
                    f"min_count names {name!r}, which is no field of categories; these are "
                    f"{', '.join(categories)}."
                )
        object.__setattr__(self, "min_count", dict(self.min_count))  # a copy

    def least_count(self, name: str) -> int:
        """Return how many training rows a category of field ``name`` needs to get its own code."""
        if isinstance(self.min_count, Mapping):
            return self.min_count.get(name, 1)
        return 1 if name == self.scenario else self.min_count

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields in the order of the codes, scenario-aware ones first."""
        return self.aware + self.agnostic

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that training needs, each once: fields, scenario, label."""
        return tuple(dict.fromkeys((*self.fields, self.scenario, self.label)))

    def without(self, *names: str) -> Schema:
        """Return the schema with the fields ``names`` left out.

        Raises
        ------
        ValueError
            If one of them is no field.
        """
        for name in names:
            if name not in self.fields:
                raise ValueError(
                    f"cannot leave out {name!r}, which is not a field; "
                    f"the fields are {', '.join(self.fields)}."
                )
        kept: dict[str, Any] = {
            role: tuple(name for name in getattr(self, role) if name not in names)
            for role in ("aware", "agnostic", "numeric")
        }
        if isinstance(self.min_count, Mapping):
            kept["min_count"] = {n: count for n, count in self.min_count.items() if n not in names}
        return replace(self, **kept)

    @classmethod
    def from_toml(cls, path: str | PathLike[str]) -> Schema:
        """Read a schema from a TOML file ``path``: its top level or its table ``[schema]``.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not TOML, or a key is missing or unknown; the message names the file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no schema file {path}; write one as docs/data.md shows."
            )
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(content.get("schema", content))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"schema file {path}: {error}") from error

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Schema:
        """Build a schema from ``content``, a mapping such as ``to_dict`` gives.

        Raises
        ------
        ValueError
            If a key is unknown, or one that is needed is missing.
        """
        known = [f.name for f in fields(cls)]
        for key in content:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"key {key!r} is unknown; the keys are {', '.join(known)}.{hint}")
        for key in ("label", "scenario", "aware"):
            if key not in content:
                raise ValueError(f"key {key!r} is missing; a schema needs label, scenario, aware.")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as text, lists and numbers, ready for JSON."""
        return {
            "label": self.label,
            "scenario": self.scenario,
            "aware": list(self.aware),
            "agnostic": list(self.agnostic),
            "numeric": list(self.numeric),
            "n_bins": self.n_bins,
            "min_count": self.min_count,
        }


def _names(role: str, names: Sequence[str]) -> tuple[str, ...]:
    # A lone text is a sequence of its letters, which is never what was meant.
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{role} must be a list of column names; got {names!r}.")
    return tuple(names)


def _check_least_count(name: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}.")
