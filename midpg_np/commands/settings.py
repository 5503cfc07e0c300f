"""``--set NAME=VALUE``: options of the model and of the training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from midpg_np.models import MODELS, make_model
from midpg_np.training.config import TrainConfig

# Settings that follow from something else on the command line.
_ELSEWHERE = {
    "seed": "use --seed",
    "vocab_sizes": "it follows from the data",
    "n_aware": "it follows from the data",
    "n_scenarios": "it follows from the data",
}


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


def check_model_name(name: str) -> None:
    """Raise ValueError with the names there are and the closest one unless ``name`` is a model."""
    if name not in MODELS:
        make_model(name)


def separate(settings: Mapping[str, Any], model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide settings into options of the training and options of the model.

    Raises
    ------
    ValueError
        For an option that neither has, or that is not to be set.
    """
    training_names = [field.name for field in fields(TrainConfig) if field.name != "seed"]
    model_names = [f.name for f in fields(MODELS[model]) if f.name not in _ELSEWHERE]
    for name in settings:
        if name in _ELSEWHERE:
            raise ValueError(f"--set {name}: {_ELSEWHERE[name]}.")
        if name not in training_names + model_names:
            match = get_close_matches(name, training_names + model_names, n=1)
            hint = f" Did you mean {match[0]!r}?" if match else ""
            raise ValueError(
                f"neither the training nor model {model!r} has an option {name!r}; the training "
                f"has {', '.join(training_names)}; the model has {', '.join(model_names)}.{hint}"
            )
    training = {name: value for name, value in settings.items() if name in training_names}
    return training, {name: value for name, value in settings.items() if name not in training}
