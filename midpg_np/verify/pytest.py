"""Small ready cases as a fixture of pytest, for projects that pin their model against this one.

    case = case_fixture("midpg", variant=["r", "rc"])

    def test_my_model(case):
        check(MyModel(**case.config), case, NAMES).raise_if_wrong()

pytest is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

from midpg_np.models import MODELS, make_model
from midpg_np.verify.case import N_ROWS, StepCase, make_case
from midpg_np.verify.names import closest

# 6 -> 12 -> 6 -> 1: the two widths of every kernel differ, so that a transposed one does not fit.
SIZES = {
    "vocab_sizes": (3, 5, 4),
    "n_aware": 2,
    "n_scenarios": 4,
    "dim_embedding": 2,
    "hidden": (12, 6),
}
_WEIGHTING = {"row_divisor": 3, "col_divisor": 2, "d_k": 2, "generator_hidden": (4,)}
SIZES_OF: dict[str, dict[str, Any]] = {
    "dpg": _WEIGHTING,
    "midpg": _WEIGHTING | {"disc_hidden": (3,)},
    "star": {"dim_domain": 3, "aux_hidden": (5,)},
    "pepnet": {"gate_hidden": 3},
    "apg": {"rank": 3, "over_rank": 5},
    "optmsm": {
        "dim_specific": 3,
        "dim_shared": 5,
        "dim_code": 6,
        "tower_hidden": 7,
        "hyper_rank": 2,
    },
}


def case_fixture(
    *models: str,
    name: str = "case",
    seeds: Sequence[int] = (0,),
    n_rows: int = N_ROWS,
    **options: Any,
) -> Any:
    """Return a fixture, one per module of tests, that runs through cases of small models.

    Parameters
    ----------
    models : str
        Names in ``MODELS``.
    name : str
        Name of the fixture.
    seeds : sequence of int
        Seeds of the numbers; a case for each.
    n_rows : int
        Rows of the batch.
    options
        Options of the models, sizes among them.  A list stands for its entries one after the
        other.  A model that does not have an option goes without.

    Raises
    ------
    ImportError
        If pytest is not installed.
    ValueError
        For an unknown model or seedless fixture, an option that none of the models has, or a value
        that a model refuses.
    """
    try:
        import pytest
    except ImportError as error:
        raise ImportError(
            "case_fixture needs pytest, which is not installed (pip install pytest)."
        ) from error
    _check(models, seeds, options)
    entries = [
        (f"{label}-seed={seed}" if len(seeds) > 1 else label, model, seed)
        for kind in models
        for label, model in small_models(kind, options)
        for seed in seeds
    ]

    @pytest.fixture(
        scope="module",
        params=[entry[1:] for entry in entries],
        ids=[entry[0] for entry in entries],
        name=name,
    )
    def cases(request: Any) -> StepCase:
        model, seed = request.param
        return make_case(model, seed, n_rows)

    return cases


def _check(models: Sequence[str], seeds: Sequence[int], options: dict[str, Any]) -> None:
    if not models or not seeds:
        raise ValueError(f"a fixture needs a model and a seed; got {models} and {tuple(seeds)}.")
    known = {option for model in models if model in MODELS for option in _options_of(model)}
    for option, value in options.items():
        if known and option not in known:
            raise ValueError(f"no option {option!r} in {models}.{closest(option, known)}")
        if value == []:
            raise ValueError(f"{option} is an empty list; expected the values to run through.")


def _options_of(model: str) -> list[str]:
    return [field.name for field in fields(MODELS[model])]


def small_models(kind: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a readable name and the model for every combination of the options that are lists."""
    if kind not in MODELS:
        make_model(kind)  # says which there are
    own = SIZES | SIZES_OF.get(kind, {}) | dict(options)
    own = {option: value for option, value in own.items() if option in _options_of(kind)}
    varied = {option: value for option, value in own.items() if isinstance(value, list)}
    for values in product(*varied.values()):
        chosen = dict(zip(varied, values, strict=True))
        label = "-".join([kind, *(f"{option}={value}" for option, value in chosen.items())])
        yield label, make_model(kind, **(own | chosen))
