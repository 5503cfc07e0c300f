"""What the tests that every model runs need to know of one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class System:
    """One model of ``MODELS``: how to make it small, its options, and what is special about it.

    Parameters
    ----------
    kind : str
        Its name in ``MODELS``.
    small : dict
        Options that keep it below some hundred parameters and every width distinct.
    options : dict
        Every further option with all its values (or typical ones), the default first.
    inherited : dict
        Options that are drawn at random only, because another model walks through them.
    combinations : dict
        Combinations of options that are worth a test of their own, by name.
    repair : callable
        Turns options into a combination that the model accepts; an option that is None keeps
        its default.
    owned : callable
        ``owned(model)``: beginnings of the paths of parameters whose first axis is the scenario.
    training_differs : callable
        ``training_differs(model)``: whether training computes other logits than prediction.
    not_additive : callable
        ``not_additive(model)``: auxiliary terms that are no mean over the rows of a batch.
    structural_zeros : callable
        ``structural_zeros(model)``: parameters that a step at the start does not move.
    grows : callable
        ``grows(model)``: whether its definition makes a step dearer with every further scenario.
    stopped : tuple of dict
        Options under which something stands behind a stop-gradient.
    """

    kind: str
    small: dict[str, Any] = field(default_factory=dict)
    options: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    inherited: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    combinations: dict[str, dict[str, Any]] = field(default_factory=dict)
    repair: Callable[[dict[str, Any]], dict[str, Any]] = lambda options: options
    owned: Callable[[Any], tuple[str, ...]] = lambda model: ()
    training_differs: Callable[[Any], bool] = lambda model: False
    not_additive: Callable[[Any], set[str]] = lambda model: set()
    structural_zeros: Callable[[Any], set[str]] = lambda model: set()
    grows: Callable[[Any], bool] = lambda model: False
    stopped: tuple[dict[str, Any], ...] = ()
