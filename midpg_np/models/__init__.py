"""Models behind one protocol; ``MODELS`` maps the name used everywhere to the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any

from midpg_np.models.adasparse import AdaSparse
from midpg_np.models.apg import APG
from midpg_np.models.dnn import DNN
from midpg_np.models.dpg import DPG
from midpg_np.models.midpg import MIDPG
from midpg_np.models.optmsm import OptMSM
from midpg_np.models.pepnet import PEPNet
from midpg_np.models.ple import PLE
from midpg_np.models.protocol import Draws, Model, ModelOutput, ParamCount
from midpg_np.models.star import STAR

MODELS: dict[str, type] = {
    "dnn": DNN,
    "ple": PLE,
    "star": STAR,
    "pepnet": PEPNet,
    "adasparse": AdaSparse,
    "apg": APG,
    "optmsm": OptMSM,
    "dpg": DPG,
    "midpg": MIDPG,
}

__all__ = [
    "APG",
    "DNN",
    "DPG",
    "MIDPG",
    "MODELS",
    "PLE",
    "STAR",
    "AdaSparse",
    "Draws",
    "Model",
    "ModelOutput",
    "OptMSM",
    "PEPNet",
    "ParamCount",
    "make_model",
    "model_config",
    "model_for",
    "model_name",
]


def _closest(name: str, known: list[str]) -> str:
    match = get_close_matches(name, known, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def make_model(name: str, **config: Any) -> Any:
    """Build a model by name; lists become tuples and NumPy's scalars Python's.

    Raises
    ------
    ValueError
        For an unknown model or an option that the model does not have.
    """
    if name not in MODELS:
        known = list(MODELS)
        raise ValueError(f"model must be one of {known}; got {name!r}.{_closest(name, known)}")
    options = [field.name for field in fields(MODELS[name])]
    for option in config:
        if option not in options:
            raise ValueError(
                f"model {name!r} has no option {option!r}; it has {options}."
                f"{_closest(option, options)}"
            )
    return MODELS[name](**{option: _plain(value) for option, value in config.items()})


def _plain(value: Any) -> Any:
    """Return the value as Python has it: a NumPy float64 among the options would undo float32."""
    if isinstance(value, list):
        return tuple(_plain(part) for part in value)
    return value.item() if getattr(value, "shape", None) == () else value


# Options that name fields of the data: by number, or by the name that the data set gives them.
FIELD_OPTIONS = ("prior_fields",)


def model_for(name: str, data: Any, options: Mapping[str, Any]) -> Any:
    """Build a model for the fields and scenarios of a data set.

    Parameters
    ----------
    name : str
        A name in ``MODELS``.
    data : Dataset
        Whose ``vocab_sizes``, ``n_aware``, ``n_scenarios`` and ``field_names`` are read.
    options : mapping
        Options of the model; fields may be given by name.

    Raises
    ------
    ValueError
        For an unknown model, option or field.
    """
    options = dict(options)
    for option in FIELD_OPTIONS:
        if option in options:
            options[option] = tuple(_field(f, option, data.field_names) for f in options[option])
    sizes = {key: getattr(data, key) for key in ("vocab_sizes", "n_aware", "n_scenarios")}
    return make_model(name, **sizes, **options)


def _field(field: str | int, option: str, names: Sequence[str]) -> int:
    if not isinstance(field, str):
        return field
    if field not in names:
        raise ValueError(
            f"{option} names the field {field!r}, which the data does not have; it has "
            f"{list(names)}.{_closest(field, list(names))}"
        )
    return names.index(field)


def model_name(model: Any) -> str:
    """Return the name under which the model stands in ``MODELS``."""
    return next(name for name, cls in MODELS.items() if type(model) is cls)


def model_config(model: Any) -> dict[str, Any]:
    """Return the options of a model, such that ``make_model(name, **config)`` builds it again."""
    return asdict(model)
